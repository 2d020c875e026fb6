"""Reading Sudoku puzzles from CSV files, every row checked.

Grids are rows of uint8 tokens as in `hrm.tasks.sudoku.rules`.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from hrm.data.split import row_numbers
from hrm.errors import UserError
from hrm.tasks.csv_rows import WAY_OUT, Row, open_rows
from hrm.tasks.reading import PuzzleError, say_spelling
from hrm.tasks.sudoku.notation import sudoku_notation
from hrm.tasks.sudoku.rules import SYMBOLS, BoxShape, is_valid_solution, usual_box_shape

CHUNK_ROWS = 16384
_NO_TOKEN = 255
_CODES = 0x10000  # characters that the table knows


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
    """Read a file whose first line names a column of questions and one of answers.

    Args:
        box_shape: None to infer it from the first question's length.
        with_ratings: ratings must be whole numbers, and are returned.
        spool_dir: where the (unnamed) file lies that holds the tokens outside of memory.

    Raises:
        UserError: the file cannot be read, is empty, or a row is bad; names file, line, reason.
    """
    with open_rows(path, with_ratings) as rows:
        return _parse(path, rows, box_shape, with_ratings, spool_dir)


def _parse(
    path: Path,
    rows: Iterator[Row],
    box_shape: BoxShape | None,
    with_ratings: bool,
    spool_dir: Path | None,
) -> CsvPuzzles:
    lines: list[np.ndarray] = []
    ratings: list[np.ndarray] = []
    said: set[str] = set()
    with tempfile.TemporaryFile(dir=spool_dir) as spool:
        for chunk in _chunks(rows):
            if box_shape is None:
                box_shape = _box_shape_of(path, chunk[0])
            spool.write(_checked(path, chunk, box_shape, with_ratings, said).data)
            lines.append(np.array([row.line for row in chunk], np.int32))
            numbers = [int(row.rating or 0) if with_ratings else 0 for row in chunk]
            ratings.append(np.array(numbers, np.int64))
        if box_shape is None or not lines:
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


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """At most CHUNK_ROWS at a time; what is wrong with a row is raised after those before it."""
    while True:
        chunk: list[Row] = []
        try:
            chunk.extend(islice(rows, CHUNK_ROWS))
        except UserError:
            if chunk:
                yield chunk
            raise
        if not chunk:
            return
        yield chunk


def _box_shape_of(path: Path, row: Row) -> BoxShape:
    line, question, answer, _ = row
    lengths = [len("".join((text or "").split())) for text in (question, answer)]
    for cells in lengths:
        if box_shape := usual_box_shape(cells):
            return box_shape
    raise UserError(
        f"{path}:{line}: a question of {lengths[0]} characters is no Sudoku grid "
        f"(16, 36, 64, 81, ...); {WAY_OUT}"
    )


def _checked(
    path: Path, rows: list[Row], box_shape: BoxShape, with_ratings: bool, said: set[str]
) -> np.ndarray:
    """The tokens of one chunk, [rows, 2, cells] uint8 (question, answer), all of them right."""
    side = math.prod(box_shape)
    texts = [text or "" for _, question, answer, _ in rows for text in (question, answer)]
    tokens, unread = _read_plain(texts, side)
    fault = _read_others(path, rows, tokens, unread, side, said)
    for bad in (
        _first_bad_rating(rows) if with_ratings else None,
        _first_bad_content(tokens, box_shape),
    ):
        if bad is not None and (fault is None or bad[0] < fault[0]):
            fault = bad[0], f"{path}:{rows[bad[0]][0]}: {bad[1]}"
    if fault is not None:
        raise UserError(f"{fault[1]}; {WAY_OUT}")
    return tokens


def _read_plain(texts: list[str], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of texts of one character per cell, and which puzzles need a closer look.

    Returns:
        [N, 2, cells] uint8 and [N] bool, for 2 N texts.
    """
    cells = side * side
    joined = "".join(text if len(text) == cells else " " * cells for text in texts)
    try:
        codes = np.frombuffer(joined.encode("ascii"), np.uint8)
    except UnicodeEncodeError:
        wide = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        codes = np.minimum(wide, _CODES - 1)
    tokens = _token_table(side)[codes].reshape(-1, 2, cells)
    return tokens, (tokens == _NO_TOKEN).any(axis=(1, 2))


@lru_cache
def _token_table(side: int) -> np.ndarray:
    """Character -> token; none for those whose token depends on the other characters."""
    notation = sudoku_notation(SYMBOLS[: side + 1])
    table = np.full(_CODES, _NO_TOKEN, np.uint8)
    for character, token in notation.tokens.items():
        table[ord(character)] = token
    for character in notation.dashes:
        table[ord(character)] = 0
    for spelling in notation.spellings:
        table[[ord(character) for character in spelling.symbols]] = _NO_TOKEN
    return table


def _read_others(
    path: Path, rows: list[Row], tokens: np.ndarray, unread: np.ndarray, side: int, said: set[str]
) -> tuple[int, str] | None:
    """Read the puzzles that need a closer look into their place; the first that is wrong."""
    notation, shape = sudoku_notation(SYMBOLS[: side + 1]), (side, side)
    for index in np.flatnonzero(unread).tolist():
        line, question, answer, _ = rows[index]
        place = f"{path}:{line}"
        try:
            reading = notation.reading(question, shape, f"{place}: question", answer or "")
            tokens[index, 0] = reading.tokens
            tokens[index, 1] = notation.read(answer or "", shape, f"{place}: answer", question)
        except PuzzleError as error:
            return index, str(error)
        say_spelling(reading, place, said)
    return None


def _first_bad_rating(rows: list[Row]) -> tuple[int, str] | None:
    for index, (_, _, _, rating) in enumerate(rows):
        try:
            if abs(int(rating or "")) < 2**63:
                continue
        except ValueError:
            pass
        return index, f"rating {(rating or '')[:20]!r} is not a whole number"
    return None


def _first_bad_content(tokens: np.ndarray, box_shape: BoxShape) -> tuple[int, str] | None:
    questions, answers = tokens[:, 0], tokens[:, 1]
    checks = (
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


def _refuse_duplicates(puzzles: CsvPuzzles) -> None:
    questions = puzzles.questions
    sums = row_numbers(questions)
    order = np.argsort(sums, kind="stable")
    equal = sums[order[1:]] == sums[order[:-1]]
    suspects = np.union1d(order[1:][equal], order[:-1][equal])
    first_line: dict[bytes, int] = {}
    for row in suspects:
        line = int(puzzles.lines[row])
        earlier = first_line.setdefault(questions[row].tobytes(), line)
        if earlier != line:
            raise UserError(f"{puzzles.path}:{line}: same question as in line {earlier}; {WAY_OUT}")
