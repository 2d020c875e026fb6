"""The eight rotations and reflections of a grid, numbered as the original builders number them."""

import numpy as np

COUNT = 8
INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
TRANSPOSING = (1, 3, 6, 7)  # rows become columns


def dihedral(grid: np.ndarray, number: int) -> np.ndarray:
    """A grid [n, m], turned counter-clockwise or reflected; a view.

    0 identity, 1 to 3 quarter turns, 4 columns reversed, 5 rows reversed, 6 transposed, 7
    transposed along the other diagonal. `dihedral(dihedral(g, t), INVERSE[t])` is g.
    """
    if number < 4:
        return np.rot90(grid, number)
    if number == 4:
        return np.fliplr(grid)
    if number == 5:
        return np.flipud(grid)
    return grid.T if number == 6 else np.fliplr(np.rot90(grid))


_CORNERS = np.array([[0, 1], [2, 3]])
_TURNED = [dihedral(_CORNERS, number).tolist() for number in range(COUNT)]
# COMPOSED[then][first]: the one transform that equals `first` followed by `then`.
COMPOSED = tuple(
    tuple(
        _TURNED.index(dihedral(dihedral(_CORNERS, first), then).tolist()) for first in range(COUNT)
    )
    for then in range(COUNT)
)
