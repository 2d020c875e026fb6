"""A split's examples by number, its sets one after the other in the metadata's order.

Shapes: T tokens per example.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrm.data.format import IGNORE_LABEL_ID, DatasetMetadata, PuzzleArrays, read_split

CHUNK_CELLS = 2**21


def differs(tokens: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where an answer is not the right one, bool; not where that is unknown (negative).

    Args:
        tokens, labels: integers of shapes that broadcast.
    """
    return (labels >= 0) & (tokens != labels)


def row_numbers(rows: np.ndarray) -> np.ndarray:
    """A number for each row, [N, T] integers -> [N] uint64: equal ones share it, others rarely."""
    weights = np.random.default_rng(0).integers(2**63, size=rows.shape[1], dtype=np.uint64)
    size = max(1, CHUNK_CELLS // max(1, rows.shape[1]))
    starts = range(0, len(rows), size)
    parts = [(rows[s : s + size].astype(np.uint64) * weights).sum(1) for s in starts]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def rows_among(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which rows, [N, T] integers, are among others, [M, T]: [N] bool."""
    found = np.zeros(len(rows), bool)
    if rows.shape[1:] != others.shape[1:]:
        return found
    sums, other_sums = row_numbers(rows), row_numbers(others)
    suspects = others[np.isin(other_sums, sums)]
    known = {row.astype(np.int64).tobytes() for row in suspects}
    for row in np.flatnonzero(np.isin(sums, other_sums)):
        found[row] = rows[row].astype(np.int64).tobytes() in known
    return found


@dataclass(frozen=True)
class Example:
    """One puzzle of a split with its answer."""

    inputs: np.ndarray  # T, int32
    labels: np.ndarray  # T, int64, negative where unknown
    identifier: int


@dataclass(frozen=True)
class Group:
    """A puzzle and all its augmented versions: the examples [first, last)."""

    number: int  # within its set
    first: int
    last: int


@dataclass(frozen=True)
class Split:
    """What lies in a split's folder, memory-mapped."""

    metadata: DatasetMetadata
    sets: tuple[PuzzleArrays, ...]

    @classmethod
    def open(cls, folder: Path) -> "Split":
        """Raises `UserError` where the folder is no split or is damaged."""
        metadata, sets = read_split(folder)
        return cls(metadata, tuple(sets.values()))

    def __len__(self) -> int:
        return sum(len(arrays.inputs) for arrays in self.sets)

    def example(self, index: int) -> Example:
        """Raises `IndexError` where there is none of that number."""
        stored = self.row(index)
        labels = stored.labels.astype(np.int64)
        if self.metadata.ignore_label_id is not None:
            labels[labels == self.metadata.ignore_label_id] = IGNORE_LABEL_ID
        return Example(stored.inputs.astype(np.int32), labels, stored.identifier)

    def row(self, index: int) -> Example:
        """An example as it is stored: its labels unchanged, and the dtypes of the files."""
        arrays, row, _ = self._locate(index)
        [inputs], [labels] = arrays.take(np.array([row]))
        return Example(inputs, labels, int(arrays.puzzle_identifiers[_puzzle_of(arrays, row)]))

    def group(self, index: int) -> Group:
        """The group of an example; `IndexError` where there is none of that number."""
        arrays, row, before = self._locate(index)
        puzzle = _puzzle_of(arrays, row)
        number = int(arrays.group_indices.searchsorted(puzzle, "right")) - 1
        first, last = arrays.puzzle_indices[arrays.group_indices[number : number + 2]].tolist()
        return Group(number, first + before, last + before)

    def _locate(self, index: int) -> tuple[PuzzleArrays, int, int]:
        """An example's set, its row there, and how many examples lie in the sets before."""
        before = 0
        for arrays in self.sets:
            if 0 <= index - before < len(arrays.inputs):
                return arrays, index - before, before
            before += len(arrays.inputs)
        raise IndexError(f"there are {len(self):,} examples, the first is 0")


def _puzzle_of(arrays: PuzzleArrays, row: int) -> int:
    return int(arrays.puzzle_indices.searchsorted(row, "right")) - 1
