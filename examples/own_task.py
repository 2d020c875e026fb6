"""A task of its own: every open cell takes the colour of the one seed in its region.

    python examples/own_task.py                 # writes data/regions
    hrm train data/regions --config-name quickstart_6x6 run_name=regions
"""

import sys

import numpy as np

from hrm.data import DatasetWriter

SYMBOLS = "_#.abcd"  # token -> character: padding, wall, open cell, four colours
WALL, OPEN, COLOURS = 1, 2, (3, 4, 5, 6)
SIDE = 6


def region_of(grid: np.ndarray, start: tuple[int, int]) -> list[tuple[int, int]]:
    """The cells that are reached from one cell without crossing a wall."""
    found, waiting = {start}, [start]
    while waiting:
        row, column = waiting.pop()
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= near[0] < len(grid) and 0 <= near[1] < len(grid)
            if inside and near not in found and grid[near] != WALL:
                found.add(near)
                waiting.append(near)
    return sorted(found)


def new_puzzle(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A question and its answer, [SIDE, SIDE] tokens each."""
    question = np.where(rng.random((SIDE, SIDE)) < 0.4, WALL, OPEN)
    answer = question.copy()
    for cell in map(tuple, np.argwhere(question == OPEN)):
        if answer[cell] == OPEN:
            region, colour = region_of(question, cell), rng.choice(COLOURS)
            question[region[rng.integers(len(region))]] = colour
            answer[tuple(zip(*region, strict=True))] = colour
    return question, answer


def write(folder: str, train: int, test: int) -> None:
    rng, known = np.random.default_rng(0), set()
    with DatasetWriter(folder, symbols=SYMBOLS, overwrite=True) as writer:
        while len(known) < train + test:
            question, answer = new_puzzle(rng)
            if question.tobytes() not in known:  # so that no test puzzle is a training puzzle
                split = "train" if len(known) < train else "test"
                known.add(question.tobytes())
                writer.add(None, None, question, answer, split)


if __name__ == "__main__":
    write(*(sys.argv[1:2] or ["data/regions"]), train=4000, test=200)
