"""Sudoku grids: their shapes, their symbols and the rules.

Grids are rows of uint8 tokens, row-major: 0 is blank, 1..n are the digits, n the side. A box shape
is (rows, columns) of one box, so (2, 3) makes grids of 6x6.
"""

import math
from functools import lru_cache

import numpy as np

from hrm.data.grid import DIGIT_SYMBOLS, parse_shape
from hrm.errors import UserError

BoxShape = tuple[int, int]

SYMBOLS = DIGIT_SYMBOLS
BLANK = SYMBOLS[0]
MAX_SIDE = len(SYMBOLS) - 1


def parse_box_shape(text: str) -> BoxShape:
    """'2x3' -> (2, 3).

    Raises:
        UserError: not of that form, or the grid would be too small or too large.
    """
    box_shape = parse_shape(text)
    if min(box_shape) < 2 or math.prod(box_shape) > MAX_SIDE:
        raise UserError(
            f"box {text}: needs at least 2 rows and 2 columns, and at most {MAX_SIDE} cells"
        )
    return box_shape


def usual_box_shape(cells: int) -> BoxShape | None:
    """The box that most puzzles of that size have; None where there is none.

    It is the one nearest to a square, no taller than wide (36 -> (2, 3)). A choice of the builder,
    which writes it down; where a data set says nothing, `hrm.data.grid.infer_box_shape` holds.
    """
    side = math.isqrt(cells)
    if side * side != cells or side > MAX_SIDE:
        return None
    for rows in range(math.isqrt(side), 1, -1):
        if side % rows == 0:
            return rows, side // rows
    return None


def units_of_cells(box_shape: BoxShape) -> np.ndarray:
    """Number of each cell's row, column and box, row by row: [3, cells] int64."""
    box_rows, box_columns = box_shape
    side = box_rows * box_columns
    rows, columns = np.divmod(np.arange(side * side), side)
    return np.stack([rows, columns, rows // box_rows * box_rows + columns // box_columns])


@lru_cache
def units(box_shape: BoxShape) -> tuple[np.ndarray, np.ndarray]:
    """Cells of each row, then column, then box, [3 * side, side], and the units of each cell,
    [cells, 3], as numbered there; int64."""
    side = math.prod(box_shape)
    numbers = units_of_cells(box_shape)
    members = np.argsort(numbers, axis=1, kind="stable").reshape(3 * side, side)
    return members, numbers.T + side * np.arange(3)


def is_valid_solution(grids: np.ndarray, box_shape: BoxShape) -> np.ndarray:
    """Whether every row, column and box holds each digit once.

    Args:
        grids: [N, cells] integers; values out of 1..n make a grid invalid.

    Returns:
        [N] bool.
    """
    box_rows, box_columns = box_shape
    side = box_rows * box_columns
    bits = np.zeros(256, np.uint32)
    bits[1 : side + 1] = 1 << np.arange(side)
    in_range: np.ndarray = np.all((grids >= 0) & (grids <= side), axis=1)
    # N, band, row in band, stack, column in stack
    blocks = bits[np.where(in_range[:, None], grids, 0)].reshape(
        -1, box_columns, box_rows, box_rows, box_columns
    )
    full = (1 << side) - 1
    valid = in_range.copy()
    for axes in ((3, 4), (1, 2), (2, 4)):
        valid &= (np.bitwise_or.reduce(blocks, axis=axes) == full).all(axis=(1, 2))
    return valid
