"""Grids of tokens: their shapes, the symbols that show them, and which cells are given. No rules.

Shapes: T tokens per puzzle.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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


def first_digit(symbols: str) -> int | None:
    """Token of the digit 1 where all others are padding, blank or further digits, else None."""
    before, one, after = symbols.partition("1")
    digits = one and set(before) <= {PAD_SYMBOL, *BLANK_SYMBOLS}
    return len(before) if digits and DIGIT_SYMBOLS[1:].startswith(one + after) else None


@dataclass(frozen=True)
class Grid:
    """What turns a row of tokens into a picture."""

    shape: tuple[int, int]
    box_shape: tuple[int, int] | None
    symbols: str  # token -> character
    wall: str | None = None  # the symbol of cells that are drawn as solid
    # Of cells that are colours: symbol -> fill and ink, "#rrggbb" each.
    colors: Mapping[str, tuple[str, str]] = field(default_factory=dict, hash=False)
    ends: str = ""  # symbols that say where a grid ends on its canvas

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

    def whole(self, labels: np.ndarray) -> np.ndarray:
        """A right answer, [T] integers, with the padding around it that is not labelled.

        Unknown cells (negative) stay so where no cell is known, and where grids have no ends.
        """
        if not self.ends or (labels < 0).all():
            return labels
        return np.where(labels < 0, self.symbols.index(PAD_SYMBOL), labels)

    def used_part(self, *tokens: np.ndarray) -> Shape:
        """Rows and columns, from the top left corner, that hold all that is not padding.

        All of them where grids have no ends, so that none is smaller than another.

        Args:
            tokens: [..., T] integers.
        """
        if not self.ends:
            return self.shape
        padding = [t for t, s in enumerate(self.symbols) if s == PAD_SYMBOL]
        used = np.zeros(self.shape, bool)
        for rows in tokens:
            held = (rows >= 0) & ~np.isin(rows, padding)
            used |= held.reshape(-1, *self.shape).any(axis=0)
        rows, columns = (np.flatnonzero(used.any(axis=axis)).max(initial=0) for axis in (1, 0))
        return int(rows) + 1, int(columns) + 1

    def part(self, shape: Shape) -> "Grid":
        """How the top left part of the grid is drawn; itself where that is all of it."""
        return self if shape == self.shape else replace(self, shape=shape)

    def cut(self, tokens: np.ndarray, shape: Shape) -> np.ndarray:
        """The top left part of grids of one value a cell, [..., T] -> [..., rows * columns]."""
        rows, columns = shape
        part = tokens.reshape(*tokens.shape[:-1], *self.shape)[..., :rows, :columns]
        return part.reshape(*tokens.shape[:-1], rows * columns)

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
