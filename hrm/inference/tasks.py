"""Where puzzles to solve come from: arguments, lines, CSV rows, a data set.

Shapes: T tokens per puzzle.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrm.data.format import METADATA_FILE, DatasetMetadata, has_split
from hrm.data.split import Split
from hrm.data.sudoku import CSV_HEADER
from hrm.errors import UserError
from hrm.inference.puzzles import PuzzleError, parse_puzzle
from hrm.viz import GridLook


@dataclass(frozen=True)
class Task:
    """A puzzle to solve, and what is known about it."""

    place: str  # where it stands, for messages
    inputs: np.ndarray  # T, int32
    answer: np.ndarray | None = None  # T, int64, negative where unknown
    identifier: int | None = None  # of its data set; None: unseen in training


def from_arguments(puzzles: Iterable[str], metadata: DatasetMetadata) -> list[Task]:
    """Puzzles of a command line.

    Raises:
        PuzzleError: one cannot be read.
    """
    places = (f"puzzle {number}" for number, _ in enumerate(puzzles, 1))
    return [
        Task(place, parse_puzzle(text, metadata, place))
        for place, text in zip(places, puzzles, strict=True)
    ]


def from_lines(lines: Iterable[str], name: str, metadata: DatasetMetadata) -> list[Task]:
    """One puzzle a line, or CSV with the header `source,question,answer,rating`.

    Empty lines are skipped. An empty answer is not known.

    Args:
        name: of the file, for messages.

    Raises:
        PuzzleError: a line cannot be read; names file, line and column.
        UserError: there is no puzzle.
    """
    look = GridLook.from_metadata(metadata)
    numbered = ((n, line.rstrip("\r\n")) for n, line in enumerate(lines, 1))
    filled = ((n, line.removeprefix("\ufeff")) for n, line in numbered if line)
    tasks: list[Task] = []
    for number, line in filled:
        if line == ",".join(CSV_HEADER):
            tasks += _from_rows(filled, name, metadata)
        else:
            place = f"{name}:{number}"
            text = line if look.is_maze else line.rstrip()
            tasks.append(Task(place, parse_puzzle(text, metadata, place)))
    if not tasks:
        raise UserError(f"{name}: holds no puzzle")
    return tasks


def _from_rows(
    numbered: Iterable[tuple[int, str]], name: str, metadata: DatasetMetadata
) -> Iterator[Task]:
    for number, line in numbered:
        place = f"{name}:{number}"
        try:
            [row] = csv.reader([line], strict=True)
        except (csv.Error, ValueError) as error:
            raise PuzzleError(str(error), place) from None
        if len(row) != len(CSV_HEADER):
            raise PuzzleError(f"{len(row)} fields, expected {len(CSV_HEADER)}", place)
        _, question, answer, _ = row
        inputs = _parse_field("question", question, line, place, metadata)
        known = _parse_field("answer", answer, line, place, metadata) if answer else None
        yield Task(place, inputs, None if known is None else known.astype(np.int64))


def _parse_field(
    name: str, text: str, line: str, place: str, metadata: DatasetMetadata
) -> np.ndarray:
    try:
        return parse_puzzle(text, metadata, place)
    except PuzzleError as error:
        start = line.find(text) if name == "question" else line.rfind(text)
        cell = None if error.cell is None else start + error.cell
        raise PuzzleError(f"{name}: {error.reason}", place, cell) from None


def read_lines(path: Path, metadata: DatasetMetadata) -> list[Task]:
    """`from_lines` of a file.

    Raises:
        UserError: the file or one of its lines cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return read_stream(file, str(path), metadata)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def read_stream(file: Iterable[bytes], name: str, metadata: DatasetMetadata) -> list[Task]:
    """`from_lines` of an open file.

    Raises:
        UserError: it is not UTF-8, or one of its lines cannot be read.
    """
    try:
        return from_lines((line.decode() for line in file), name, metadata)
    except UnicodeDecodeError:
        raise UserError(f"{name}: is not a text file in UTF-8") from None


def from_split(
    data_path: Path,
    split: str,
    metadata: DatasetMetadata,
    index: int | None = None,
    limit: int | None = None,
) -> list[Task]:
    """Puzzles of a data set, counted over its sets in the metadata's order.

    Args:
        metadata: the model's.
        index: which one; None: all.
        limit: at most so many of all, evenly spaced.

    Raises:
        UserError: there is no such puzzle, or it does not fit the model.
    """
    folder = data_path / split
    if not has_split(data_path, split):
        raise UserError(f"{data_path}: no {split}/{METADATA_FILE}; name a data set with --data")
    opened = Split.open(folder)
    theirs, total = opened.metadata, len(opened)
    for key in ("vocab_size", "seq_len"):
        if getattr(theirs, key) != getattr(metadata, key):
            raise UserError(
                f"{data_path}: {key} is {getattr(theirs, key)}, "
                f"the checkpoint's {getattr(metadata, key)}"
            )
    if index is not None and index >= total:
        raise UserError(f"--index {index}: {folder} has {total} puzzles, the first is 0")
    if total == 0:
        raise UserError(f"{folder}: holds no puzzle")
    wanted = range(total) if index is None else [index]
    if limit is not None and limit < len(wanted):
        wanted = [n * len(wanted) // limit for n in range(limit)]
    tasks = []
    for number in wanted:
        example = opened.example(number)
        place = f"{folder}[{number}]"
        tasks.append(Task(place, example.inputs, example.labels, example.identifier))
    return tasks
