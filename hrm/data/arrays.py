"""Arrays of a data set: opened, read row by row where they are large, and checked."""

import os
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from hrm.errors import UserError, one_line


class TokenFile:
    """Rows of a large array of tokens, [examples, seq_len], read whenever they are taken.

    A memory map would keep as much of the file in the process as was ever looked at, and a file
    that is cut short meanwhile would kill it.
    """

    def __init__(self, path: Path, mapped: np.memmap[Any, Any]):
        self.path, self.shape, self.dtype, self.ndim = path, mapped.shape, mapped.dtype, mapped.ndim
        self._start = mapped.offset
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, examples: np.ndarray, axis: int = 0) -> np.ndarray:
        """Rows by their numbers, [n, seq_len]; consecutive ones are read at once.

        Raises:
            UserError: the file cannot be read.
        """
        assert axis == 0
        rows = np.empty((len(examples), *self.shape[1:]), self.dtype)
        row_bytes = rows[:1].nbytes
        ends = np.flatnonzero(np.diff(examples, append=-1) != 1) + 1
        first = 0
        for last in ends.tolist():
            where = self._start + int(examples[first]) * row_bytes
            wanted = (last - first) * row_bytes
            try:
                read = os.pread(self._file, wanted, where)
            except OSError as error:
                raise UserError(f"{self.path}: cannot be read ({one_line(error)})") from None
            if len(read) < wanted:
                raise UserError(f"{self.path}: truncated; build the data set again")
            rows[first:last] = np.frombuffer(read, self.dtype).reshape(-1, *self.shape[1:])
            first = last
        return rows


def require_file(path: Path) -> None:
    if not os.path.exists(path):  # unlike those of Path, these never raise
        raise UserError(f"{path}: not found; build the data set again")
    if not os.path.isfile(path):  # a pipe would be waited for
        raise UserError(f"{path}: truncated or damaged (not a file); build it again")


def open_array(path: Path) -> np.ndarray:
    """Memory-map an array of integers.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged header is parsed as Python
            array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header raises almost anything
        raise UserError(
            f"{path}: truncated or damaged ({one_line(error)}); build it again"
        ) from None
    if array.dtype.kind not in "iu":
        raise UserError(f"{path}: holds {array.dtype}, expected integers; build it again")
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def unmapped(path: Path, array: np.ndarray) -> np.ndarray | TokenFile:
    """An array that is not held in memory, unless it had to be copied."""
    return TokenFile(path, array.base) if isinstance(array.base, np.memmap) else array


def check_tokens(
    path: Path,
    rows: np.ndarray,
    numbers: np.ndarray,
    vocab_size: int,
    ignored: tuple[int | None, ...],
) -> None:
    if not rows.size or (rows.min() >= 0 and rows.max() < vocab_size):
        return
    wrong = (rows < 0) | (rows >= vocab_size)
    for label in ignored:
        if label is not None:
            wrong &= rows != label
    if wrong.any():
        row, column = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise UserError(
            f"{path}: token {rows[row, column]} in row {numbers[row]} is not in "
            f"0..vocab_size-1={vocab_size - 1}; build it again"
        )


def check_indices(path: Path, indices: np.ndarray, end: int, unit: str) -> None:
    if indices.ndim != 1 or len(indices) == 0:
        raise UserError(
            f"{path}: shape {indices.shape}, expected one dimension, at least [0]; build it again"
        )
    if indices[0] != 0 or indices[-1] != end:
        raise UserError(
            f"{path}: runs from {indices[0]} to {indices[-1]}, expected 0 to {end} ({unit}); "
            "build it again"
        )
    disordered = indices[1:] <= indices[:-1]
    if disordered.any():
        where = int(np.argmax(disordered))
        raise UserError(
            f"{path}: {indices[where]} at position {where} is followed by {indices[where + 1]}, "
            "expected strictly increasing numbers; build it again"
        )


def check_identifiers(path: Path, identifiers: np.ndarray, puzzles: int, limit: int) -> None:
    if identifiers.shape != (puzzles,):
        raise UserError(
            f"{path}: shape {identifiers.shape}, expected [puzzles={puzzles}]; build it again"
        )
    if identifiers.max(initial=-1) >= limit:
        raise UserError(
            f"{path}: identifier {identifiers.max()} is not below "
            f"num_puzzle_identifiers={limit}; build it again"
        )
    if identifiers.min(initial=0) < np.iinfo(np.int32).min:
        raise UserError(f"{path}: identifier {identifiers.min()} is too small; build it again")
