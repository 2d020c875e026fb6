"""Small tasks of our own in ARC's form, for a first try: nothing is downloaded.

Every rule can be told from its demonstrations, and all grids fit on a small canvas, so that a small
model learns them on a laptop.
"""

from collections.abc import Callable

import numpy as np

from hrm.tasks.arc.puzzles import Pair, Puzzle
from hrm.tasks.arc.versions import COLOURS

SIDE = 8  # of the canvas
SIZES = (3, 4)  # rows and columns of an input
DEMONSTRATIONS, TESTS = 8, 2
BLACK, RED, BLUE, GREEN = 0, 2, 1, 3

Rule = Callable[[np.ndarray], np.ndarray]


def puzzles(seed: int) -> list[Puzzle]:
    """One task for each rule; equal seeds give equal tasks."""
    return [
        Puzzle(name, _pairs(rule, np.random.default_rng([seed, number])))
        for number, (name, rule) in enumerate(RULES.items())
    ]


def _pairs(rule: Rule, rng: np.random.Generator) -> dict[str, list[Pair]]:
    found: dict[bytes, Pair] = {}  # by input, so that none is there twice
    while len(found) < DEMONSTRATIONS + TESTS:
        grid = _random_grid(rng)
        output = rule(grid)
        if not np.array_equal(grid, output):
            found[bytes(grid.shape) + grid.tobytes()] = grid, output
    pairs = list(found.values())
    return {"train": pairs[:DEMONSTRATIONS], "test": pairs[DEMONSTRATIONS:]}


def _random_grid(rng: np.random.Generator) -> np.ndarray:
    """About half of the cells coloured, in a few colours; red and blue are among them."""
    palette = np.append([RED, BLUE], rng.choice(np.arange(GREEN, COLOURS), 2, replace=False))
    shape = tuple(rng.choice(SIZES, 2).tolist())
    while True:
        coloured = rng.random(shape) < 0.5
        grid = np.where(coloured, rng.choice(palette, shape), BLACK).astype(np.uint8)
        if {RED, BLUE} <= set(grid.ravel().tolist()):
            return grid


# ---- rules: [rows, columns] uint8 -> the same, never more than twice as large ----


def _red_becomes_green(grid: np.ndarray) -> np.ndarray:
    return np.where(grid == RED, np.uint8(GREEN), grid)


def _swap_red_and_blue(grid: np.ndarray) -> np.ndarray:
    colours = np.arange(COLOURS, dtype=np.uint8)
    colours[[RED, BLUE]] = BLUE, RED
    return colours[grid]


def _keep_red(grid: np.ndarray) -> np.ndarray:
    return np.where(grid == RED, grid, np.uint8(BLACK))


def _fall(grid: np.ndarray) -> np.ndarray:
    """Coloured cells fall to the bottom of their columns."""
    order = np.argsort(grid != BLACK, axis=0, kind="stable")
    return np.take_along_axis(grid, order, axis=0)


def _red_columns(grid: np.ndarray) -> np.ndarray:
    """Where a column has red, all of it becomes red."""
    return np.where((grid == RED).any(axis=0), np.uint8(RED), grid)


def _frame(grid: np.ndarray) -> np.ndarray:
    """A blue line around the grid."""
    return np.pad(grid, 1, constant_values=BLUE)


def _shift(grid: np.ndarray) -> np.ndarray:
    """Every row moves to the right by one cell, around the edge."""
    return np.roll(grid, 1, axis=1)


def _crop(grid: np.ndarray) -> np.ndarray:
    """What red spans."""
    rows, columns = np.nonzero(grid == RED)
    return grid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


RULES: dict[str, Rule] = {
    "recolour": _red_becomes_green,
    "swap": _swap_red_and_blue,
    "filter": _keep_red,
    "mirror": np.fliplr,
    "turn": lambda grid: np.rot90(grid, 2),
    "transpose": np.transpose,
    "shift": _shift,
    "fall": _fall,
    "columns": _red_columns,
    "frame": _frame,
    "double": lambda grid: grid.repeat(2, axis=0).repeat(2, axis=1),
    "crop": _crop,
}
