"""How a grid stands among the tokens of an example, and which character shows a token.

Where all grids have one size, token 0 is padding and the symbols follow. Where sizes differ, each
grid stands in the upper left corner of a canvas: token 1, the end mark, stands below its columns
and beside its rows, so far as the canvas has room, and all else is padding.
"""

import unicodedata
from dataclasses import dataclass

import numpy as np

from hrm.data.grid import PAD_SYMBOL, TOKEN_SYMBOLS, Shape

PAD, END = 0, 1
END_SYMBOL = "¦"
OTHER_PAD_SYMBOL = "¤"  # where a grid's own symbols have the usual one
MOST_TOKENS = 256
MOST_SYMBOLS = MOST_TOKENS - 1  # without the padding


def _letters(count: int) -> str:
    """Letters of the alphabets behind ASCII, none of which is composed of others."""
    beyond = map(chr, range(0xC0, 0x500))
    known = (c for c in beyond if c.isalpha() and unicodedata.is_normalized("NFKC", c))
    return "".join(next(known) for _ in range(count))


NUMBER_SYMBOLS = TOKEN_SYMBOLS + _letters(MOST_SYMBOLS - len(TOKEN_SYMBOLS))  # of 0, 1, 2, …


@dataclass(frozen=True)
class Canvas:
    """Where grids stand.

    Args:
        shape: rows and columns.
        has_ends: whether grids may be smaller, and have an end mark.
    """

    shape: Shape
    has_ends: bool

    @property
    def first_symbol(self) -> int:
        """The token of the first symbol."""
        return END + 1 if self.has_ends else PAD + 1

    def symbols(self, own: str) -> str:
        """Token -> character, of grids with these symbols."""
        pad = OTHER_PAD_SYMBOL if PAD_SYMBOL in own else PAD_SYMBOL
        return pad + (END_SYMBOL if self.has_ends else "") + own

    def place(self, grid: np.ndarray) -> np.ndarray:
        """A grid of tokens, [n, m], in the canvas, [rows, columns], same dtype."""
        rows, columns = grid.shape
        placed = np.full(self.shape, PAD, grid.dtype)
        placed[:rows, :columns] = grid
        if self.has_ends:
            placed[rows : rows + 1, :columns] = END
            placed[:rows, columns : columns + 1] = END
        return placed
