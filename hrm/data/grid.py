"""Grids of tokens: their shapes, the symbols that show them, and which cells are given. No rules.

Shapes: T tokens per puzzle.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from hrm.errors import UserError

PAD_SYMBOL = "_"
UNKNOWN_SYMBOL = "?"
BLANK_SYMBOLS = ". "
DIGIT_SYMBOLS = ".123456789ABCDEFGHIJKLMNOP"  # blank, then the digits of grids of digits
TOKEN_SYMBOLS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

Side = Annotated[int, Field(gt=0)]
Shape = tuple[Side, Side]  # rows, columns


def parse_shape(text: str) -> Shape:
    """'2x3' -> (2, 3).

    Raises:
        UserError: not of that form.
    """
    rows, _, columns = text.lower().partition("x")
    if not (rows.isascii() and rows.isdigit() and columns.isascii() and columns.isdigit()):
        raise UserError(f"{text!r} is not a shape; write ROWSxCOLUMNS, e.g. 2x3")
    return int(rows), int(columns)


def infer_grid_shape(seq_len: int) -> Shape | None:
    """The square that `seq_len` makes, else None."""
    side = math.isqrt(seq_len)
    return (side, side) if side * side == seq_len else None


def infer_box_shape(grid_shape: Shape | None) -> Shape | None:
    """The square box of a square grid, where there is one answer, else None (6x6: 2x3 or 3x2)."""
    if grid_shape is None or grid_shape[0] != grid_shape[1]:
        return None
    side = math.isqrt(grid_shape[0])
    return (side, side) if side > 1 and side * side == grid_shape[0] else None


def infer_symbols(grid_shape: Shape | None, vocab_size: int) -> str:
    """Token -> character, for data sets that do not say it.

    A square grid whose vocabulary is its side + 1 (+ 2: with padding, as the original writes it)
    holds digits and blanks; else tokens show as 0-9A-Za-z.
    """
    if grid_shape is not None and grid_shape[0] == grid_shape[1] < len(DIGIT_SYMBOLS):
        digits = DIGIT_SYMBOLS[: grid_shape[0] + 1]
        for symbols in (digits, PAD_SYMBOL + digits):
            if len(symbols) == vocab_size:
                return symbols
    return TOKEN_SYMBOLS


@dataclass(frozen=True)
class Grid:
    """What turns a row of tokens into a picture."""

    shape: tuple[int, int]
    box_shape: tuple[int, int] | None
    symbols: str  # token -> character
    wall: str | None = None  # the symbol of cells that are drawn as solid

    @property
    def blank(self) -> str | None:
        """The symbol of an empty cell, None where a grid has none."""
        return next((blank for blank in BLANK_SYMBOLS if blank in self.symbols), None)

    @property
    def empty(self) -> str:
        """Symbols of cells that hold nothing: blanks and padding."""
        return "".join(s for s in self.symbols if s in BLANK_SYMBOLS + PAD_SYMBOL)

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
        if self.blank is None:
            return np.zeros(inputs.shape, bool)
        empty = [t for t, s in enumerate(self.symbols) if s in self.empty]
        return ~np.isin(inputs, empty)
