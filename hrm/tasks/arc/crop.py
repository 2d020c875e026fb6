"""Grids out of the tokens of predictions, and grids as bytes."""

from math import isqrt

import numpy as np

from hrm.tasks.arc.encoding import FIRST_COLOUR
from hrm.tasks.arc.versions import COLOURS


def crop(tokens: np.ndarray) -> list[np.ndarray]:
    """The largest rectangle of colours of each prediction, from its top left corner.

    Among rectangles of equal area it is the one with fewest rows. Where the first token is no
    colour, the grid is 0 x 0.

    Args:
        tokens: [N, S * S] integers, of square canvases.

    Returns:
        N grids of colours, [rows, columns] uint8.
    """
    side = isqrt(tokens.shape[1])
    cells = tokens.reshape(-1, side, side)
    ends = np.ones((len(cells), side, side + 1), bool)
    ends[:, :, :side] = (cells < FIRST_COLOUR) | (cells >= FIRST_COLOUR + COLOURS)
    widths = np.minimum.accumulate(ends.argmax(axis=2), axis=1)  # N, rows
    last = (widths * np.arange(1, side + 1)).argmax(axis=1)
    columns = widths[np.arange(len(cells)), last]
    rows = np.where(columns > 0, last + 1, 0)
    colours = (cells - FIRST_COLOUR).astype(np.uint8)
    sizes = zip(rows.tolist(), columns.tolist(), strict=True)
    return [colours[n, :height, :width] for n, (height, width) in enumerate(sizes)]


def content(grid: np.ndarray) -> bytes:
    """A grid, [rows, columns] uint8, as bytes: rows, columns, and the cells row by row."""
    return bytes(grid.shape) + grid.tobytes()


def grid_of(content: bytes) -> list[list[int]]:
    """The grid that `content` made bytes of, whatever follows them."""
    rows, columns = content[:2]
    cells = np.frombuffer(content, np.uint8, count=rows * columns, offset=2)
    return cells.reshape(rows, columns).tolist()
