"""Reading mazes from CSV files, every row checked.

Mazes are rows of uint8 tokens: the position of a character in `SYMBOLS`, plus one for padding.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrm.data.grid import Shape
from hrm.errors import UserError
from hrm.progress import Progress
from hrm.tasks.csv_rows import WAY_OUT, Row, open_rows
from hrm.tasks.maze.rules import PATH, SYMBOLS, find_fault
from hrm.tasks.maze.symmetry import canonical
from hrm.tasks.reading import LINE_END, Notation, PuzzleError

_CHARACTERS = np.array(list(SYMBOLS))
_QUESTIONS, _ANSWERS = Notation(SYMBOLS.removesuffix(PATH)), Notation(SYMBOLS)


@dataclass(frozen=True)
class CsvMazes:
    """The checked mazes of one CSV file, in its order."""

    path: Path
    shape: Shape
    questions: np.ndarray  # [N, cells] uint8
    answers: np.ndarray  # [N, cells] uint8
    lines: np.ndarray  # [N] int32, line of the file, counted from 1


def parse_csv(path: Path, shape: Shape | None = None) -> CsvMazes:
    """Read a file whose first line names a column of questions and one of answers.

    Args:
        shape: None for the square that the first question is.

    Raises:
        UserError: the file cannot be read, is empty, or a row is bad; names file, line, reason.
    """
    tokens: list[np.ndarray] = []
    first_line: dict[bytes, int] = {}
    with (
        open_rows(path) as rows,
        Progress(f"bytes of {path.name} read", path.stat().st_size) as progress,
    ):
        for row in rows:
            shape = shape or _square_of(path, row)
            maze = _checked(path, row, shape)
            line, question = row.line, maze[0].tobytes()
            if (earlier := first_line.setdefault(question, line)) != line:
                raise UserError(f"{path}:{line}: same question as in line {earlier}; {WAY_OUT}")
            tokens.append(maze)
            progress.update(len(row.question) + len(row.answer or ""))
    if shape is None:
        raise UserError(f"{path}: holds no mazes")
    questions, answers = np.stack(tokens, axis=1)
    return CsvMazes(path, shape, questions, answers, np.array([*first_line.values()], np.int32))


def _square_of(path: Path, row: Row) -> Shape:
    lengths = [len(LINE_END.sub("", text or "")) for text in (row.question, row.answer)]
    for cells in lengths:
        side = math.isqrt(cells)
        if side > 1 and side * side == cells:
            return side, side
    raise UserError(
        f"{path}:{row.line}: question: {lengths[0]} characters are not a square maze, row by row "
        f"(25, 36, … 900; spaces count, at both ends, too); {WAY_OUT}"
    )


def _checked(path: Path, row: Row, shape: Shape) -> np.ndarray:
    """Question and answer of a row as tokens, [2, cells] uint8."""
    line, question, answer, _ = row
    try:
        parts = (("question", question, _QUESTIONS), ("answer", answer or "", _ANSWERS))
        pair = np.stack(
            [notation.read(text, shape, f"{path}:{line}: {part}") for part, text, notation in parts]
        )
        fault = find_fault(*_CHARACTERS[pair].reshape(2, *shape))
        if fault is not None:
            raise PuzzleError(fault.reason, f"{path}:{line}: {fault.part}", fault.cell)
    except PuzzleError as error:
        raise UserError(f"{error}; {WAY_OUT}") from None
    return (pair + 1).astype(np.uint8)


def find_leakage(train: CsvMazes, test: CsvMazes) -> list[tuple[int, int]]:
    """Every training maze that is a test maze up to symmetry, with the first such one.

    Returns:
        (row of `train`, row of `test`), in the order of `train`.
    """
    first: dict[bytes, int] = {}
    for row, form in enumerate(_forms(test)):
        first.setdefault(form, row)
    return [(row, first[form]) for row, form in enumerate(_forms(train)) if form in first]


def _forms(mazes: CsvMazes) -> Iterator[bytes]:
    with Progress("mazes compared", len(mazes.questions)) as progress:
        for question in mazes.questions:
            yield canonical(question, mazes.shape)
            progress.update()
