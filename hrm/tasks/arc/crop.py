"""Grids out of the tokens of predictions, and grids as bytes."""

import numpy as np

SIDE = 30
TOKENS = SIDE * SIDE
COLOUR = 2  # the token of colour 0; tokens below it are no colours
COLOURS = 10


def crop(tokens: np.ndarray) -> list[np.ndarray]:
    """The largest rectangle of colours of each prediction, from its top left corner.

    Among rectangles of equal area it is the one with fewest rows. Where the first token is no
    colour, the grid is 0 x 0.

    Args:
        tokens: [N, 900] integers.

    Returns:
        N grids of colours, [rows, columns] uint8.
    """
    cells = tokens.reshape(-1, SIDE, SIDE)
    ends = np.ones((len(cells), SIDE, SIDE + 1), bool)
    ends[:, :, :SIDE] = (cells < COLOUR) | (cells >= COLOUR + COLOURS)
    widths = np.minimum.accumulate(ends.argmax(axis=2), axis=1)  # N, rows
    last = (widths * np.arange(1, SIDE + 1)).argmax(axis=1)
    columns = widths[np.arange(len(cells)), last]
    rows = np.where(columns > 0, last + 1, 0)
    colours = (cells - COLOUR).astype(np.uint8)
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
