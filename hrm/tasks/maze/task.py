"""Mazes, as a task."""

from functools import cached_property

import numpy as np

from hrm.data.format import DatasetMetadata
from hrm.data.grid import PAD_SYMBOL, Grid
from hrm.errors import UserError
from hrm.tasks.base import Symmetry, Task
from hrm.tasks.maze.rules import SYMBOLS, WALL, find_fault
from hrm.tasks.maze.symmetry import places


class MazeTask(Task):
    """A shortest path is to be drawn from the start to the goal."""

    name = "maze"
    judges = True

    @classmethod
    def fits(cls, metadata: DatasetMetadata) -> bool:
        """The original's vocabulary, and its symbols where they are said."""
        known = metadata.symbols is None or metadata.symbols.removeprefix(PAD_SYMBOL) == SYMBOLS
        return known and metadata.vocab_size == len(metadata.symbols or PAD_SYMBOL + SYMBOLS)

    @classmethod
    def infer_symbols(cls, metadata: DatasetMetadata) -> str:
        return PAD_SYMBOL + SYMBOLS

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.shape, self.metadata.box_shape, self.symbols, wall=WALL)

    def are_valid(self, answers: np.ndarray, inputs: np.ndarray) -> list[bool | None]:
        symbols = np.array(list(self.symbols))
        return [
            find_fault(*(symbols[cells].reshape(self.shape) for cells in pair)) is None
            for pair in zip(inputs, answers, strict=True)
        ]

    @property
    def most_versions(self) -> int:
        return len(places(self.shape))

    def symmetries(self, count: int, seed: int) -> list[Symmetry]:
        """`count` rotations and reflections at random, none of them the identity."""
        if count >= self.most_versions:
            raise UserError(
                f"votes={count + 1}: a maze of {self.shape[0]}x{self.shape[1]} cells has "
                f"{self.most_versions} symmetric versions"
            )
        rng = np.random.default_rng(seed)
        return [
            Symmetry(places(self.shape)[n], np.arange(self.metadata.vocab_size))
            for n in 1 + rng.permutation(self.most_versions - 1)[:count]
        ]
