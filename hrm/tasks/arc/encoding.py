"""ARC grids as rows of tokens: placed somewhere on a square canvas, marked where they end.

Below a grid and to its right stands a line of `END`, where there is room; all else is `PAD`.

Shapes: V versions, S side of the canvas.
"""

import numpy as np

from hrm.data.grid import PAD_SYMBOL
from hrm.tasks.arc.versions import COLOURS, Versions
from hrm.tasks.dihedral import dihedral

SIDE = 30  # no published grid is larger
PAD, END, FIRST_COLOUR = range(3)
VOCAB_SIZE = FIRST_COLOUR + COLOURS
SYMBOLS = PAD_SYMBOL + "=" + "0123456789"  # token -> character


def encode(grid: np.ndarray, versions: Versions, corners: np.ndarray, side: int) -> np.ndarray:
    """Versions of a grid as tokens.

    Args:
        grid: [rows, columns] uint8 colours.
        corners: [V, 2] integers, row and column of the canvas where each version begins.

    Returns:
        [V, S * S] uint8.
    """
    canvas = np.full((len(versions), side + 1, side + 1), PAD, np.uint8)  # marks may hang over
    marks = np.tile(np.array([END, PAD], np.uint8), (len(versions), 1))
    tokens = np.hstack([versions.colours + np.uint8(FIRST_COLOUR), marks])
    for transform in np.unique(versions.transforms).tolist():
        own = np.flatnonzero(versions.transforms == transform)
        marked = _marked(dihedral(grid, transform))
        rows, columns = marked.shape
        patches = tokens[own][:, marked]
        for version, (row, column), patch in zip(
            own.tolist(), corners[own].tolist(), patches, strict=True
        ):
            canvas[version, row : row + rows, column : column + columns] = patch
    return canvas[:, :side, :side].reshape(len(versions), side * side)


def _marked(grid: np.ndarray) -> np.ndarray:
    """A grid and its marks, [rows + 1, columns + 1]: colours, 10 is an end, 11 a pad."""
    rows, columns = grid.shape
    marked = np.full((rows + 1, columns + 1), COLOURS)
    marked[:rows, :columns] = grid
    marked[rows, columns] = COLOURS + 1
    return marked
