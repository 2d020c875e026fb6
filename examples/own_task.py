"""A task of its own: stones fall down until they lie on a wall, on the floor or on each other.

python examples/own_task.py data/stones
hrm train data/stones --config-name quickstart_4x4 run_name=stones
"""

import sys

import numpy as np

from hrm.data import DatasetWriter

SYMBOLS = "_.#o"  # token -> character: padding, air, wall, stone
AIR, WALL, STONE = 1, 2, 3
SHAPE = (6, 6)


def fallen(grid: np.ndarray) -> np.ndarray:
    """The answer to a question, [rows, columns] tokens each."""
    answer = np.where(grid == STONE, AIR, grid)
    for column in range(grid.shape[1]):
        floor = len(grid) - 1  # where the next stone comes to lie
        for row in reversed(range(len(grid))):
            if grid[row, column] == WALL:
                floor = row - 1
            elif grid[row, column] == STONE:
                answer[floor, column] = STONE
                floor -= 1
    return answer


def write(folder: str, task: str = "grids", train: int = 1000, test: int = 200) -> None:
    """A data set of random questions, none of which comes twice."""
    rng, known = np.random.default_rng(0), set()
    with DatasetWriter(folder, symbols=SYMBOLS, task=task, overwrite=True) as writer:
        while len(known) < train + test:
            question = rng.choice([AIR, WALL, STONE], SHAPE, p=[0.5, 0.15, 0.35])
            if question.tobytes() not in known:
                split = "train" if len(known) < train else "test"
                known.add(question.tobytes())
                writer.add(None, None, question, fallen(question), split)


if __name__ == "__main__":
    write(*sys.argv[1:])
