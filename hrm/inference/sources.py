"""Where puzzles to solve come from: arguments, lines, drawn grids, CSV rows, a data set.

Shapes: T tokens per puzzle.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hrm.data.fit import check_fits
from hrm.data.format import DatasetMetadata, read_metadata
from hrm.data.origin import Origin, knows_identifiers
from hrm.data.split import Split
from hrm.errors import UserError
from hrm.tasks import PuzzleError, Task
from hrm.tasks.csv_rows import (
    CSV_HEADER,
    SEPARATORS,
    Row,
    bounded_lines,
    decoded,
    open_text,
    read_header,
    say_columns,
)
from hrm.tasks.reading import Reading, say_spelling


@dataclass(frozen=True)
class Puzzle:
    """A puzzle to solve, and what is known about it."""

    place: str  # where it stands, for messages
    inputs: np.ndarray  # T, int32
    answer: np.ndarray | None = None  # T, int64, negative where unknown
    identifier: int | None = None  # of its data set; None: unseen in training
    name: str | None = None  # in a file of the task's own form


def from_arguments(texts: Iterable[str], task: Task) -> list[Puzzle]:
    """Puzzles of a command line.

    Raises:
        PuzzleError: one cannot be read.
    """
    puzzles, said = [], set[str]()
    for number, text in enumerate(texts, 1):
        place = f"puzzle {number}"
        reading = task.notation.reading(text, task.shape, place)
        puzzles.append(Puzzle(place, reading.tokens))
        say_spelling(reading, place, said)
    return puzzles


def from_lines(
    lines: Iterable[str], name: str, task: Task, encoding: str = "utf-8"
) -> list[Puzzle]:
    """One puzzle a line, or drawn over several, or CSV with a header that names the columns.

    Empty lines are skipped. An empty answer is not known.

    Args:
        name: of the file, for messages.
        encoding: in which it was, likewise.

    Raises:
        PuzzleError: a line cannot be read; names file, line and column.
        UserError: there is no puzzle.
    """
    lines = iter(lines)
    columns, first, above = read_header(lines, name)
    if columns is not None:
        say_columns(name, encoding, columns)
        puzzles = list(_from_rows(columns.rows(lines, name, len(above) + 1), name, task))
    else:
        found = task.notation.find(chain(above, [first], lines), task.shape, name)
        try:
            puzzles = list(_from_text(found, name))
        except PuzzleError as error:
            raise _with_way_out(error, first) from None
    if not puzzles:
        raise UserError(f"{name}: holds no puzzle")
    return puzzles


def _from_text(found: Iterable[Reading], name: str) -> Iterator[Puzzle]:
    said: set[str] = set()
    for reading in found:
        place = f"{name}:{reading.number}"
        say_spelling(reading, place, said)
        yield Puzzle(place, reading.tokens)


def _with_way_out(error: PuzzleError, first: str) -> PuzzleError:
    if not any(separator in first for separator in SEPARATORS):
        return error
    header = ",".join(CSV_HEADER)
    reason = f"{error.reason}; if this is CSV, its first line must name the columns, as {header}"
    return PuzzleError(reason, error.place, error.cell, error.column)


def _from_rows(rows: Iterable[Row], name: str, task: Task) -> Iterator[Puzzle]:
    said: set[str] = set()
    for line, question, answer, _ in rows:
        place = f"{name}:{line}"
        known = answer or ""
        reading = task.notation.reading(question, task.shape, f"{place}: question", known)
        say_spelling(reading, place, said)
        if known:
            tokens = task.notation.read(known, task.shape, f"{place}: answer", question)
            yield Puzzle(place, reading.tokens, tokens.astype(np.int64))
        else:
            yield Puzzle(place, reading.tokens)


def read_lines(path: Path, task: Task) -> list[Puzzle]:
    """`from_lines` of a file.

    Raises:
        UserError: the file or one of its lines cannot be read.
    """
    with open_text(path) as text:
        return from_lines(bounded_lines(text), str(path), task, text.encoding)


def read_named(path: Path, task: Task) -> list[Puzzle]:
    """Puzzles of a file of the task's own form.

    Raises:
        UserError: it cannot be read.
    """
    return [Puzzle(p.place, p.inputs, p.answer, name=p.name) for p in task.read_file(path)]


def read_stream(file: BinaryIO, name: str, task: Task) -> list[Puzzle]:
    """`from_lines` of an open, buffered file.

    Raises:
        UserError: it is no text, or one of its lines cannot be read.
    """
    with decoded(file, name) as text:
        return from_lines(bounded_lines(text), name, task, text.encoding)


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
