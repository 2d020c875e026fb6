"""Examples between reading and writing, on the disk: sizes and symbols are known at the end."""

import mmap
import struct
from array import array
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryFile
from typing import Self

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]  # input and output, uint8 each
SHAPES = struct.Struct("<4I")  # rows and columns of input and output


class Spool:
    """Takes examples with their versions in any order, and gives them by split, group and puzzle.

    In memory are a few numbers per example; the grids are in a file without a name.
    """

    def __init__(self, folder: Path):
        self._file = TemporaryFile(dir=folder)
        self._end = 0
        self._starts = array("q")
        self._keys = {name: array("q") for name in ("split", "group", "puzzle")}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, split: int, group: int, puzzle: int, versions: Iterable[Pair]) -> None:
        """An example: itself, then its versions."""
        self._starts.append(self._end)
        for name, number in zip(self._keys, (split, group, puzzle), strict=True):
            self._keys[name].append(number)
        for pair in versions:
            self._end += self._file.write(SHAPES.pack(*pair[0].shape, *pair[1].shape))
            for grid in pair:
                self._end += self._file.write(grid.tobytes())

    def puzzles(self, split: int) -> Iterator[tuple[int, int, list[int]]]:
        """Group, puzzle and the numbers of its examples; a group's puzzles follow one another."""
        keys = {name: np.frombuffer(own, np.int64) for name, own in self._keys.items()}
        rows = np.flatnonzero(keys["split"] == split)
        order = rows[np.lexsort((keys["puzzle"][rows], keys["group"][rows]))]  # stable

        def key(row: int) -> tuple[int, int]:
            return int(keys["group"][row]), int(keys["puzzle"][row])

        for (group, puzzle), examples in groupby(order, key):
            yield group, puzzle, [int(row) for row in examples]

    def versions(self, examples: list[int]) -> Iterator[tuple[Pair, ...]]:
        """The examples of a puzzle as they are, then of each of its versions."""
        return zip(*map(self._pairs, examples), strict=True)

    def _pairs(self, example: int) -> Iterator[Pair]:
        start, after = self._starts[example], example + 1
        end = self._starts[after] if after < len(self) else self._end
        while start < end:
            shapes = SHAPES.unpack_from(self._cells, start)
            start += SHAPES.size
            grids = []
            for rows, columns in (shapes[:2], shapes[2:]):
                grid = np.frombuffer(self._cells[start : start + rows * columns], np.uint8)
                grids.append(grid.reshape(rows, columns))
                start += rows * columns
            yield grids[0], grids[1]

    @cached_property
    def _cells(self) -> mmap.mmap:
        self._file.flush()
        return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
