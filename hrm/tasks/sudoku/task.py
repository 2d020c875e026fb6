"""Sudoku, as a task."""

import math
import sys
from functools import cached_property

import numpy as np

from hrm.data.format import DatasetMetadata
from hrm.data.grid import PAD_SYMBOL, Grid
from hrm.tasks.base import Difficulty, Symmetry, Task, Unit
from hrm.tasks.reading import Notation, PuzzleError
from hrm.tasks.sudoku.difficulty import MOST_GUESSES, count_guesses
from hrm.tasks.sudoku.notation import sudoku_notation
from hrm.tasks.sudoku.rules import BLANK, SYMBOLS, BoxShape, is_valid_solution, units_of_cells
from hrm.tasks.sudoku.symmetry import random_symmetries

UNITS = ("row", "column", "box")


class SudokuTask(Task):
    """Every digit once per row, column and box."""

    name = "sudoku"
    judges = True
    takes_guesses = True

    @classmethod
    def fits(cls, metadata: DatasetMetadata) -> bool:
        """Digits 1..n in a grid of n x n with boxes of n cells, as we or the original write it."""
        grid, box = metadata.inferred_grid_shape(), metadata.inferred_box_shape()
        if grid is None or box is None or grid != (math.prod(box),) * 2 or grid[0] >= len(SYMBOLS):
            return False
        symbols = metadata.symbols or cls.infer_symbols(metadata)
        return (
            symbols.removeprefix(PAD_SYMBOL) == SYMBOLS[: grid[0] + 1]
            and len(symbols) == metadata.vocab_size
        )

    @property
    def box_shape(self) -> BoxShape:
        box = self.metadata.inferred_box_shape()
        assert box is not None
        return box

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.shape, self.box_shape, self.symbols)

    @property
    def _blank_token(self) -> int:
        return self.symbols.index(BLANK)

    @cached_property
    def notation(self) -> Notation:
        return sudoku_notation(self.symbols)

    def checked_tokens(self, tokens: np.ndarray, place: str) -> np.ndarray:
        checked = super().checked_tokens(tokens, place)
        if self.symbols.startswith(PAD_SYMBOL) and (checked == 0).any():
            raise PuzzleError(
                "token 0 is padding in this data set, blank is 1 and a digit d is d + 1; "
                "give strings to write digits as they are",
                place,
            )
        return checked

    def title(self, inputs: np.ndarray) -> str:
        return f"puzzle, {int(self.grid.givens(inputs).sum())} givens"

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Rows, then columns, then boxes."""
        return tuple(
            Unit(f"{name} {number + 1}", tuple(np.flatnonzero(own == number).tolist()))
            for name, own in zip(UNITS, units_of_cells(self.box_shape), strict=True)
            for number in range(self.shape[0])
        )

    def are_valid(self, answers: np.ndarray, inputs: np.ndarray) -> list[bool | None]:
        digits = answers.astype(np.int64) - self._blank_token
        kept = ~((answers != inputs) & self.grid.givens(inputs)).any(axis=1)
        return (is_valid_solution(digits, self.box_shape) & kept).tolist()

    @property
    def most_versions(self) -> int:
        return sys.maxsize

    def symmetries(self, count: int, seed: int) -> list[Symmetry]:
        places, digits = random_symmetries(np.random.default_rng(seed), count, self.box_shape)
        blank = self._blank_token
        tokens = np.tile(np.arange(self.metadata.vocab_size), (count, 1))
        tokens[:, blank : blank + digits.shape[1]] = digits + blank
        return [Symmetry(*version) for version in zip(places, tokens, strict=True)]

    def difficulty(self, inputs: np.ndarray) -> Difficulty:
        digits = np.maximum(inputs - self._blank_token, 0)
        return Difficulty(
            count_guesses(digits, self.box_shape)[0],
            MOST_GUESSES,
            "guesses",
            "Difficulty is the number of guesses that a plain search needs: 0 where naked and "
            "hidden singles alone solve the puzzle; else it tries the lowest digit in the cell "
            "with the fewest candidates, and goes back when that fails.",
        )
