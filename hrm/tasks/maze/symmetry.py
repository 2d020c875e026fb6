"""The rotations and reflections of mazes that keep their shape."""

from functools import lru_cache

import numpy as np

from hrm.data.grid import Shape
from hrm.tasks.dihedral import COUNT, dihedral


@lru_cache
def places(shape: Shape) -> np.ndarray:
    """Which cell comes to stand where, [versions, cells] int64; `maze[places]` are the versions.

    All eight of `hrm.tasks.dihedral` for a square and four for another rectangle, in their order;
    the first is the maze itself.
    """
    cells = np.arange(shape[0] * shape[1]).reshape(shape)
    turned = [dihedral(cells, number) for number in range(COUNT)]
    return np.stack([version.ravel() for version in turned if version.shape == shape])


def canonical(maze: np.ndarray, shape: Shape) -> bytes:
    """The same for all versions of a maze, [cells] uint8, and for no other maze."""
    return min(version.tobytes() for version in maze[places(shape)])
