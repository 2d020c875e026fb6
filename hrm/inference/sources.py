"""Where puzzles to solve come from: arguments, lines, drawn grids, CSV rows, a data set.

Shapes: T tokens per puzzle.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrm.data.fit import check_fits
from hrm.data.format import DatasetMetadata, read_metadata
from hrm.data.origin import Origin, knows_identifiers
from hrm.data.split import Split
from hrm.errors import UserError
from hrm.tasks import PuzzleError, Task
from hrm.tasks.reading import CSV_HEADER


@dataclass(frozen=True)
class Puzzle:
    """A puzzle to solve, and what is known about it."""

    place: str  # where it stands, for messages
    inputs: np.ndarray  # T, int32
    answer: np.ndarray | None = None  # T, int64, negative where unknown
    identifier: int | None = None  # of its data set; None: unseen in training


def from_arguments(texts: Iterable[str], task: Task) -> list[Puzzle]:
    """Puzzles of a command line.

    Raises:
        PuzzleError: one cannot be read.
    """
    placed = ((f"puzzle {number}", text) for number, text in enumerate(texts, 1))
    return [Puzzle(place, task.read(text, place)) for place, text in placed]


def from_lines(lines: Iterable[str], name: str, task: Task) -> list[Puzzle]:
    """One puzzle a line, or drawn over several, or CSV (`source,question,answer,rating`).

    Empty lines are skipped. An empty answer is not known.

    Args:
        name: of the file, for messages.

    Raises:
        PuzzleError: a line cannot be read; names file, line and column.
        UserError: there is no puzzle.
    """
    cleaned = (line.rstrip("\r\n").removeprefix("\ufeff") for line in lines)
    numbered = ((number, line) for number, line in enumerate(cleaned, 1))
    puzzles: list[Puzzle] = []
    drawn = _Drawn(name, task)
    for number, line in numbered:
        if line == ",".join(CSV_HEADER):
            puzzles += _from_rows(numbered, name, task)
        elif (puzzle := drawn.take(number, line)) is not None:
            puzzles.append(puzzle)
    drawn.refuse_rest()
    if not puzzles:
        raise UserError(f"{name}: holds no puzzle")
    return puzzles


class _Drawn:
    """Puzzles of a line each, or of several lines of which each is a row of the grid."""

    def __init__(self, name: str, task: Task):
        self._name, self._task = name, task
        self._rows: list[str] = []
        self._first = 0  # line of the file

    def take(self, number: int, line: str) -> Puzzle | None:
        """A puzzle that ends with this line, None where none does."""
        rows, columns = self._task.shape
        notation = self._task.notation
        if not notation.keeps_spaces:
            line = line.rstrip()
        cells = notation.cells_in(line)
        if cells == columns and rows > 1:
            if not self._rows:
                self._first = number
            self._rows.append(line)
            if len(self._rows) < rows:
                return None
            whole, self._rows = "\n".join(self._rows), []
            return self._read(whole, self._first)
        if cells == 0:  # empty, or a line that is drawn between rows
            if not line:
                self.refuse_rest()
            return None
        self.refuse_rest()
        return self._read(line, number)

    def refuse_rest(self) -> None:
        """Raise `PuzzleError` where rows have not become a whole grid."""
        if self._rows:
            self._read("\n".join(self._rows), self._first)

    def _read(self, text: str, number: int) -> Puzzle:
        place = f"{self._name}:{number}"
        return Puzzle(place, self._task.read(text, place))


def _from_rows(numbered: Iterable[tuple[int, str]], name: str, task: Task) -> Iterator[Puzzle]:
    for number, line in numbered:
        if not line:
            continue
        place = f"{name}:{number}"
        try:
            [row] = csv.reader([line], strict=True)
        except (csv.Error, ValueError) as error:
            raise PuzzleError(str(error), place) from None
        if len(row) != len(CSV_HEADER):
            raise PuzzleError(f"{len(row)} fields, expected {len(CSV_HEADER)}", place)
        _, question, answer, _ = row
        inputs = _parse_field("question", question, line, place, task)
        known = _parse_field("answer", answer, line, place, task) if answer else None
        yield Puzzle(place, inputs, None if known is None else known.astype(np.int64))


def _parse_field(name: str, text: str, line: str, place: str, task: Task) -> np.ndarray:
    try:
        return task.read(text, place)
    except PuzzleError as error:
        start = line.find(text) if name == "question" else line.rfind(text)
        column = None if error.column is None else start + error.column
        raise PuzzleError(f"{name}: {error.reason}", place, error.cell, column) from None


def read_lines(path: Path, task: Task) -> list[Puzzle]:
    """`from_lines` of a file.

    Raises:
        UserError: the file or one of its lines cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return read_stream(file, str(path), task)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def read_stream(file: Iterable[bytes], name: str, task: Task) -> list[Puzzle]:
    """`from_lines` of an open file.

    Raises:
        UserError: it is not UTF-8, or one of its lines cannot be read.
    """
    try:
        return from_lines((line.decode() for line in file), name, task)
    except UnicodeDecodeError:
        raise UserError(f"{name}: is not a text file in UTF-8") from None


def from_split(
    data_path: Path,
    split: str,
    metadata: DatasetMetadata,
    index: int | None = None,
    limit: int | None = None,
    origin: Origin | None = None,
) -> list[Puzzle]:
    """Puzzles of a data set, counted over its sets in the metadata's order.

    Args:
        metadata: the model's.
        index: which one; None: all.
        limit: at most so many of all, evenly spaced.
        origin: of the model's data; without their identifiers all puzzles are unseen ones.

    Raises:
        UserError: there is no such puzzle, or it does not fit the model.
    """
    folder = data_path / split
    check_fits(metadata, read_metadata(folder), str(data_path))
    opened = Split.open(folder)
    total = len(opened)
    if index is not None and index >= total:
        raise UserError(f"--index {index}: {folder} has {total} puzzles, the first is 0")
    if total == 0:
        raise UserError(f"{folder}: holds no puzzle")
    wanted = range(total) if index is None else [index]
    if limit is not None and limit < len(wanted):
        wanted = [n * len(wanted) // limit for n in range(limit)]
    is_known = knows_identifiers(origin or Origin(), data_path)
    puzzles = []
    for number in wanted:
        example = opened.example(number)
        place = f"{folder}[{number}]"
        identifier = example.identifier if is_known else None
        puzzles.append(Puzzle(place, example.inputs, example.labels, identifier))
    return puzzles
