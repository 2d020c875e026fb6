"""How tokens look: symbols, shapes, and what a cell is in an answer.

Shapes: T tokens per puzzle.
"""

import math
from dataclasses import dataclass

import numpy as np

from hrm.data import maze
from hrm.data.format import DatasetMetadata
from hrm.data.split import differs
from hrm.data.sudoku import SYMBOLS

PAD_SYMBOL = "_"
TOKEN_SYMBOLS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
UNKNOWN_SYMBOL = "?"
BLANK_SYMBOLS = ". "

KINDS = ("given", "answered", "changed in this step", "wrong", "changed and wrong")
GIVEN, KEPT, CHANGED, WRONG, CHANGED_WRONG = range(len(KINDS))


@dataclass(frozen=True)
class GridLook:
    """What turns a row of tokens into a picture."""

    shape: tuple[int, int]
    box_shape: tuple[int, int] | None
    symbols: str  # token -> character

    @classmethod
    def from_metadata(cls, metadata: DatasetMetadata) -> "GridLook":
        """As the metadata say; what foreign data sets leave out is inferred.

        A square grid whose vocabulary is its side + 1 (+ 2: with padding, as the original writes
        it) is a Sudoku; a vocabulary of 6 is the original's maze. Else tokens show as 0-9A-Za-z.
        """
        shape = metadata.inferred_grid_shape() or (1, metadata.seq_len)
        symbols = metadata.symbols or _infer_symbols(shape, metadata.vocab_size)
        symbols = symbols[: metadata.vocab_size].ljust(metadata.vocab_size, UNKNOWN_SYMBOL)
        sudoku = symbols.removeprefix(PAD_SYMBOL) == SYMBOLS[: shape[0] + 1]
        box_shape = metadata.inferred_box_shape() if sudoku else metadata.box_shape
        return cls(shape, box_shape, symbols)

    @property
    def is_sudoku(self) -> bool:
        """Whether the Sudoku rules hold: digits 1..n in boxes of n cells."""
        return (
            self.box_shape is not None
            and self.shape == (math.prod(self.box_shape),) * 2
            and self.symbols.removeprefix(PAD_SYMBOL) == SYMBOLS[: self.shape[0] + 1]
        )

    @property
    def is_maze(self) -> bool:
        """Whether a shortest path is to be found, in the original's symbols."""
        return self.symbols.removeprefix(PAD_SYMBOL) == maze.SYMBOLS

    def text(self, tokens: np.ndarray) -> str:
        """One character per cell; `UNKNOWN_SYMBOL` for what is no token."""
        return "".join(map(self.symbol, tokens.tolist()))

    def symbol(self, token: int) -> str:
        return self.symbols[token] if 0 <= token < len(self.symbols) else UNKNOWN_SYMBOL

    def givens(self, inputs: np.ndarray) -> np.ndarray:
        """Cells that the answer must keep, bool; none where no symbol stands for a blank.

        Args:
            inputs: [..., T] integers.
        """
        if not set(self.symbols) & set(BLANK_SYMBOLS):
            return np.zeros(inputs.shape, bool)
        empty = [t for t, s in enumerate(self.symbols) if s in BLANK_SYMBOLS + PAD_SYMBOL]
        return ~np.isin(inputs, empty)


def _infer_symbols(shape: tuple[int, int], vocab_size: int) -> str:
    if shape[0] == shape[1] < len(SYMBOLS):
        digits = SYMBOLS[: shape[0] + 1]
        for symbols in (digits, PAD_SYMBOL + digits):
            if len(symbols) == vocab_size:
                return symbols
    return PAD_SYMBOL + maze.SYMBOLS if vocab_size == 6 else TOKEN_SYMBOLS


def wrong_cells(
    look: GridLook, tokens: np.ndarray, inputs: np.ndarray, answer: np.ndarray | None
) -> np.ndarray:
    """Cells that differ from the answer where it is known (>= 0), else from a given: [T] bool."""
    if answer is None:
        return look.givens(inputs) & (tokens != inputs)
    return differs(tokens, answer)


def cell_kinds(
    tokens: np.ndarray,
    look: GridLook,
    inputs: np.ndarray | None,
    previous: np.ndarray | None,
    answer: np.ndarray | None,
) -> np.ndarray:
    if inputs is None:
        return np.full(len(tokens), GIVEN)
    changed = np.zeros(len(tokens), bool) if previous is None else tokens != previous
    wrong = wrong_cells(look, tokens, inputs, answer)
    kinds = np.where(look.givens(inputs), GIVEN, KEPT)
    kinds = np.where(changed, CHANGED, kinds)
    return np.where(wrong, np.where(changed, CHANGED_WRONG, WRONG), kinds)
