"""Small tasks of our own in ARC's form, for a first try: nothing is downloaded.

Every rule can be told from its demonstrations, all grids fit on a small canvas, and what becomes
of a cell depends on few others, so that a small model learns the rules on a laptop in minutes.
"""

from collections.abc import Callable

import numpy as np

from hrm.tasks.arc.puzzles import Pair, Puzzle
from hrm.tasks.arc.versions import COLOURS

SIDE = 6  # of the canvas
SIZES = (3, 4)  # rows and columns of an input
DEMONSTRATIONS, TESTS = 20, 4
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


# ---- rules: [rows, columns] uint8 -> the same, a frame's width larger at most ----


def _recolour(grid: np.ndarray) -> np.ndarray:
    return np.where(grid == RED, np.uint8(GREEN), grid)


def _swap(grid: np.ndarray) -> np.ndarray:
    colours = np.arange(COLOURS, dtype=np.uint8)
    colours[[RED, BLUE]] = BLUE, RED
    return colours[grid]


def _filter(grid: np.ndarray) -> np.ndarray:
    """Red cells stay."""
    return np.where(grid == RED, grid, np.uint8(BLACK))


def _negative(grid: np.ndarray) -> np.ndarray:
    """What was black is blue, and all else black."""
    return np.where(grid == BLACK, np.uint8(BLUE), np.uint8(BLACK))


def _frame(grid: np.ndarray) -> np.ndarray:
    """A blue line around the grid."""
    return np.pad(grid, 1, constant_values=BLUE)


def _glow(grid: np.ndarray) -> np.ndarray:
    """Black cells next to red ones become green."""
    red = np.pad(grid == RED, 1)
    near = red[:-2, 1:-1] | red[2:, 1:-1] | red[1:-1, :-2] | red[1:-1, 2:]
    return np.where((grid == BLACK) & near, np.uint8(GREEN), grid)


def _columns(grid: np.ndarray) -> np.ndarray:
    """Where a column has red, all of it becomes red."""
    return np.where((grid == RED).any(axis=0), np.uint8(RED), grid)


def _shift(grid: np.ndarray) -> np.ndarray:
    """Every row moves to the right by one cell; what leaves the grid is gone."""
    return np.pad(grid, ((0, 0), (1, 0)), constant_values=BLACK)[:, :-1]


RULES: dict[str, Rule] = {
    "recolour": _recolour,
    "swap": _swap,
    "filter": _filter,
    "negative": _negative,
    "frame": _frame,
    "glow": _glow,
    "columns": _columns,
    "shift": _shift,
}
