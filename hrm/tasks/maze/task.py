"""Mazes, as a task."""

from functools import cached_property

import numpy as np

from hrm.data.format import DatasetMetadata
from hrm.data.grid import PAD_SYMBOL, Grid
from hrm.errors import UserError
from hrm.tasks.base import Contradiction, Symmetry, Task
from hrm.tasks.maze.rules import SYMBOLS, WALL, fault_of, find_fault
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

    def contradictory(self, inputs: np.ndarray) -> np.ndarray:
        return np.array([self.contradiction(maze) is not None for maze in inputs], bool)

    def contradiction(self, inputs: np.ndarray) -> Contradiction | None:
        """What keeps a maze from having an answer: its start, its goal, or the way between them."""
        fault = fault_of(self._drawn(inputs))
        return None if fault is None else Contradiction(fault.reason, fault.cell)

    def are_valid(self, answers: np.ndarray, inputs: np.ndarray) -> list[bool | None]:
        return [
            find_fault(self._drawn(maze), self._drawn(answer)) is None
            for maze, answer in zip(inputs, answers, strict=True)
        ]

    def _drawn(self, tokens: np.ndarray) -> np.ndarray:
        """Characters, [rows, columns]."""
        return np.array(list(self.symbols))[tokens].reshape(self.shape)

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
