"""What is drawn at random for ARC data sets, call by call as the published builder draws it.

Published checkpoints are tables indexed by the versions that came out of this stream, so the calls
of numpy's legacy generator, whose numbers never change, and their order are fixed here.

Shapes: V versions, P pairs.
"""

from collections.abc import Sequence

import numpy as np

from hrm.tasks.arc.equality import DistinctVersions
from hrm.tasks.arc.puzzles import Pair
from hrm.tasks.arc.versions import COLOURS, Versions
from hrm.tasks.dihedral import COUNT, TRANSPOSING

TRIALS = 5  # for each version that is wanted


def draw_versions(pairs: Sequence[Pair], count: int, rng: np.random.RandomState) -> Versions:
    """A task itself and up to `count` other versions, each of a content of its own."""
    distinct = DistinctVersions(pairs)
    colours = np.arange(COLOURS, dtype=np.uint8)
    distinct.add(0, colours)
    kept = [(0, colours.tobytes())]
    for _ in range(TRIALS * count):
        transform = rng.randint(0, COUNT)
        colours[1:] = rng.permutation(np.arange(1, COLOURS, dtype=np.uint8))
        if distinct.add(transform, colours):
            kept.append((transform, colours.tobytes()))
            if len(kept) > count:
                break
    transforms, written = zip(*kept, strict=True)
    return Versions(
        np.array(transforms, np.uint8),
        np.frombuffer(b"".join(written), np.uint8).reshape(-1, COLOURS),
    )


def draw_corners(
    pairs: Sequence[Pair], versions: Versions, side: int, rng: np.random.RandomState
) -> np.ndarray:
    """Where on the canvas the pairs begin: one of each version at (0, 0), the others anywhere.

    Args:
        pairs: of the task itself.
        side: rows and columns of the canvas.

    Returns:
        [V, P, 2] uint8, row and column.
    """
    sizes = np.array([np.maximum(x.shape, y.shape) for x, y in pairs])
    ends = side + 1 - sizes
    others = [np.delete(np.arange(len(pairs)), kept) for kept in range(len(pairs))]
    corners = np.zeros((len(versions), len(pairs), 2), np.uint8)
    ends_of = [ends[:, ::-1] if t in TRANSPOSING else ends for t in range(COUNT)]
    for own, transform in zip(corners, versions.transforms.tolist(), strict=True):
        moved = others[rng.randint(0, len(pairs))]
        own[moved] = rng.randint(0, ends_of[transform][moved])
    return corners


def draw_no_corners(
    pairs: Sequence[Pair], versions: Versions, side: int, rng: np.random.RandomState
) -> np.ndarray:
    """`draw_corners` for test splits: all at (0, 0), which the published builder draws for, too."""
    rng.randint(0, np.full(len(versions), len(pairs)))
    return np.zeros((len(versions), len(pairs), 2), np.uint8)
