"""A few examples of a split as a split of its own, such as those that go with a shared model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hrm.data.format import PuzzleArrays, array_digests, write_arrays, write_metadata
from hrm.data.split import Split


def write_part(split: Split, numbers: Sequence[int], folder: Path) -> None:
    """Write these examples, in this order, as a split of one set; each is a group.

    Args:
        folder: of the new split; its parent is there.

    Raises:
        IndexError: there is no example of such a number.
        OSError: it cannot be written.
    """
    rows = [split.row(number) for number in numbers]
    ends = np.arange(len(rows) + 1, dtype=np.int32)
    arrays = PuzzleArrays(
        inputs=np.stack([row.inputs for row in rows]),
        labels=np.stack([row.labels for row in rows]),
        puzzle_identifiers=np.array([row.identifier for row in rows], np.int32),
        puzzle_indices=ends,
        group_indices=ends,
    )
    name = folder.name
    counted = {"sets": (name,), "total_groups": len(rows), "mean_puzzle_examples": 1.0}
    metadata = split.metadata.model_copy(update=counted)
    folder.mkdir()
    write_arrays(folder, name, arrays)
    write_metadata(folder, metadata, array_digests(folder, metadata))
