"""Mazes, as a task."""

from functools import cached_property

import numpy as np

from hrm.data.format import DatasetMetadata
from hrm.data.grid import PAD_SYMBOL, Grid
from hrm.errors import UserError
from hrm.tasks.base import Symmetry, Task
from hrm.tasks.maze.rules import SYMBOLS, WALL, is_shortest_path

TURNS = 8  # rotations and reflections of a square


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
            is_shortest_path(*(symbols[cells].reshape(self.shape) for cells in pair))
            for pair in zip(answers, inputs, strict=True)
        ]

    @property
    def most_versions(self) -> int:
        return TURNS if self.shape[0] == self.shape[1] else 1

    def symmetries(self, count: int, seed: int) -> list[Symmetry]:
        """`count` rotations and reflections at random, none of them the identity."""
        if self.most_versions == 1:
            raise UserError("votes: only square mazes have symmetric versions; use votes=1")
        if count >= TURNS:
            raise UserError(f"votes={count + 1}: a maze has {TURNS} symmetric versions")
        cells = np.arange(np.prod(self.shape)).reshape(self.shape)
        versions = [np.rot90(flipped, turns) for flipped in (cells, cells.T) for turns in range(4)]
        rng = np.random.default_rng(seed)
        return [
            Symmetry(versions[n].ravel(), np.arange(self.metadata.vocab_size))
            for n in 1 + rng.permutation(TURNS - 1)[:count]
        ]
