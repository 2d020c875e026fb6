"""Reading Sudoku puzzles from CSV files, every row checked.

Grids are rows of uint8 tokens as in `hrm.tasks.sudoku.rules`.
"""

import csv
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from hrm.errors import UserError
from hrm.tasks.reading import CSV_HEADER
from hrm.tasks.sudoku.rules import SYMBOLS, BoxShape, is_valid_solution, usual_box_shape

CHUNK_ROWS = 16384
_NO_TOKEN = 255
_UTF8_MARK = "\xef\xbb\xbf"  # a byte-order mark as latin-1 shows it
_WAY_OUT = "correct or delete that line"


@dataclass(frozen=True)
class CsvPuzzles:
    """The checked puzzles of one CSV file, in its order."""

    path: Path
    box_shape: BoxShape
    questions: np.ndarray  # [N, cells] uint8, 0 is blank
    answers: np.ndarray  # [N, cells] uint8
    ratings: np.ndarray  # [N] int64; all 0 unless the ratings were asked for
    lines: np.ndarray  # [N] int32, line of the file, counted from 1


def parse_csv(
    path: Path,
    box_shape: BoxShape | None = None,
    *,
    with_ratings: bool = False,
    spool_dir: Path | None = None,
) -> CsvPuzzles:
    """Read a file with the header `source,question,answer,rating` and check every row.

    Args:
        box_shape: None to infer it from the first question's length.
        with_ratings: ratings must be whole numbers, and are returned.
        spool_dir: where the (unnamed) file lies that holds the tokens outside of memory.

    Raises:
        UserError: the file cannot be read, is empty, or a row is bad; names file, line, reason.
    """
    try:
        with open(path, encoding="latin-1", newline="") as file:
            return _parse(path, file, box_shape, with_ratings, spool_dir)
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, not a CSV file") from None
    except PermissionError:
        raise UserError(f"{path}: permission denied") from None


def _parse(
    path: Path,
    file: IO[str],
    box_shape: BoxShape | None,
    with_ratings: bool,
    spool_dir: Path | None,
) -> CsvPuzzles:
    lines: list[np.ndarray] = []
    ratings: list[np.ndarray] = []
    with tempfile.TemporaryFile(dir=spool_dir) as spool:
        for rows, row_lines in _row_chunks(path, file):
            if box_shape is None:
                box_shape = _box_shape_of(path, rows[0], row_lines[0])
            tokens = _check_rows(path, rows, row_lines, box_shape, with_ratings)
            spool.write(tokens.data)
            lines.append(np.array(row_lines, np.int32))
            ratings.append(
                np.array([int(row[3]) for row in rows], np.int64)
                if with_ratings
                else np.zeros(len(rows), np.int64)
            )
        if box_shape is None:
            raise UserError(f"{path}: holds no puzzles")
        spool.flush()
        cells = math.prod(box_shape) ** 2
        tokens = np.memmap(spool, np.uint8, mode="r").reshape(-1, 2, cells)
    puzzles = CsvPuzzles(
        path=path,
        box_shape=box_shape,
        questions=tokens[:, 0],
        answers=tokens[:, 1],
        ratings=np.concatenate(ratings),
        lines=np.concatenate(lines),
    )
    _refuse_duplicates(puzzles)
    return puzzles


def _row_chunks(path: Path, file: IO[str]) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Yield non-blank rows with their line numbers, at most CHUNK_ROWS at a time."""
    reader = csv.reader(file)
    header = next(reader, [])
    if header:
        header[0] = header[0].removeprefix(_UTF8_MARK)
    if header != CSV_HEADER:
        raise UserError(f"{path}:1: the first line must be {','.join(CSV_HEADER)}")
    numbered = ((row, reader.line_num) for row in reader if row)
    while True:
        try:
            chunk = list(islice(numbered, CHUNK_ROWS))
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: {error}; {_WAY_OUT}") from None
        if not chunk:
            return
        yield [row for row, _ in chunk], [line for _, line in chunk]


def _box_shape_of(path: Path, row: list[str], line: int) -> BoxShape:
    cells = len(row[1]) if len(row) > 1 else 0
    box_shape = usual_box_shape(cells)
    if box_shape is None:
        raise UserError(
            f"{path}:{line}: a question of {cells} characters is no Sudoku grid "
            f"(16, 36, 64, 81, ...); {_WAY_OUT}"
        )
    return box_shape


def _check_rows(
    path: Path, rows: list[list[str]], lines: list[int], box_shape: BoxShape, with_ratings: bool
) -> np.ndarray:
    """Check one chunk; return its tokens, [rows, 2, cells] uint8 (question, answer)."""
    side = math.prod(box_shape)
    bad_form = _first_bad_form(rows, side * side, with_ratings)
    well_formed = rows if bad_form is None else rows[: bad_form[0]]
    text = "".join(row[1] + row[2] for row in well_formed).encode("latin-1")
    tokens = _token_table(side)[np.frombuffer(text, np.uint8)].reshape(-1, 2, side * side)

    bad_content = _first_bad_content(tokens, box_shape)
    bad = bad_content or bad_form
    if bad is not None:
        index, reason = bad
        raise UserError(f"{path}:{lines[index]}: {reason}; {_WAY_OUT}")
    return tokens


def _first_bad_form(
    rows: list[list[str]], cells: int, with_ratings: bool
) -> tuple[int, str] | None:
    for index, row in enumerate(rows):
        if len(row) != len(CSV_HEADER):
            return index, f"{len(row)} fields, expected {len(CSV_HEADER)}"
        for name, text in (("question", row[1]), ("answer", row[2])):
            if len(text) != cells:
                return index, f"{name} has {len(text)} characters, expected {cells}"
        if with_ratings and not _is_rating(row[3]):
            return index, f"rating {row[3][:20]!r} is not a whole number"
    return None


def _is_rating(text: str) -> bool:
    try:
        return abs(int(text)) < 2**63
    except ValueError:
        return False


def _first_bad_content(tokens: np.ndarray, box_shape: BoxShape) -> tuple[int, str] | None:
    questions, answers = tokens[:, 0], tokens[:, 1]
    symbols = f"'.', '0' and {SYMBOLS[1]}..{SYMBOLS[math.prod(box_shape)]}"
    checks = (
        ((questions == _NO_TOKEN).any(axis=1), f"question has a character other than {symbols}"),
        ((answers == _NO_TOKEN).any(axis=1), f"answer has a character other than {symbols}"),
        (
            ~is_valid_solution(answers, box_shape),
            "answer is not a solved grid (each digit once per row, column and box of "
            f"{box_shape[0]}x{box_shape[1]})",
        ),
        (
            ((questions != 0) & (questions != answers)).any(axis=1),
            "answer does not extend the question (a given digit differs)",
        ),
    )
    found = [(int(np.argmax(bad)), reason) for bad, reason in checks if bad.any()]
    return min(found, key=lambda bad: bad[0], default=None)


def _token_table(side: int) -> np.ndarray:
    table = np.full(256, _NO_TOKEN, np.uint8)
    for token, symbol in enumerate(SYMBOLS[: side + 1]):
        table[ord(symbol)] = token
    table[ord("0")] = 0
    return table


def _refuse_duplicates(puzzles: CsvPuzzles) -> None:
    questions = puzzles.questions
    weights = np.random.default_rng(0).integers(2**63, size=questions.shape[1], dtype=np.uint64)
    sums = np.concatenate(
        [
            (questions[start : start + CHUNK_ROWS] * weights).sum(axis=1)
            for start in range(0, len(questions), CHUNK_ROWS)
        ]
    )
    order = np.argsort(sums, kind="stable")
    equal = sums[order[1:]] == sums[order[:-1]]
    suspects = np.union1d(order[1:][equal], order[:-1][equal])
    first_line: dict[bytes, int] = {}
    for row in suspects:
        line = int(puzzles.lines[row])
        earlier = first_line.setdefault(questions[row].tobytes(), line)
        if earlier != line:
            raise UserError(
                f"{puzzles.path}:{line}: same question as in line {earlier}; {_WAY_OUT}"
            )
