"""CSV files of puzzles, whoever wrote them: encoding, separator and columns are found out.

Rows are read one by one, so files may be larger than memory.
"""

import codecs
import csv
import errno
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO, cast

from hrm.errors import UserError

CSV_HEADER = ["source", "question", "answer", "rating"]
QUESTIONS = ("question", "questions", "puzzle", "puzzles", "quiz", "quizzes")
ANSWERS = ("answer", "answers", "solution", "solutions")
RATINGS = ("rating", "ratings", "difficulty")
OF_A_MODEL = "halt_probability"  # a column that tells: the answers are a model's, and may be wrong
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
LONGEST_LINE = 2**20  # characters
WAY_OUT = "correct or delete that line"
_ANY_BYTE = "surrogateescape"  # in columns that nobody reads, bytes may be of any encoding
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16's does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Row(NamedTuple):
    """A puzzle as it stands in a file."""

    line: int
    question: str
    answer: str | None
    rating: str | None


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8, UTF-16 or UTF-32, its line ends as they are.

    Raises:
        UserError: it cannot be opened, or its bytes are not of its encoding.
    """
    try:
        with open(path, "rb") as file, decoded(file, str(path)) as text:
            yield text
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, not a file") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # of what the reader writes meanwhile
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


@contextmanager
def decoded(file: BinaryIO, name: str) -> Iterator[TextIO]:
    """Text of an open file, likewise; the file stays open."""
    encoding = encoding_of(file)
    errors = _ANY_BYTE if encoding.startswith("utf-8") else "strict"
    text = TextIOWrapper(file, encoding, errors, newline="")
    try:
        yield text
    except UnicodeError:
        raise UserError(f"{name}: begins as {encoding.upper()}, but is not") from None
    finally:
        text.detach()


def encoding_of(file: BinaryIO) -> str:
    """UTF-8, unless a byte-order mark, or zeros between the first letters, say otherwise."""
    start = cast(BufferedReader, file).peek(4)[:4]
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    zeros = "".join("0" if byte == 0 else "x" for byte in start)
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros, "utf-8")


def bounded_lines(file: TextIO) -> Iterator[str]:
    """The lines of a file; one that is longer than `LONGEST_LINE` comes in pieces."""
    return iter(partial(file.readline, LONGEST_LINE), "")


@dataclass(frozen=True)
class Columns:
    """What the columns of a CSV file hold, by its first line."""

    names: tuple[str, ...]
    separator: str
    question: int
    answer: int | None
    rating: int | None

    @classmethod
    def of(cls, header: str, name: str) -> "Columns | None":
        """The columns that a first line names; None where it names no question.

        Raises:
            UserError: it names two.
        """
        if len(header) >= LONGEST_LINE:
            return None
        for separator in SEPARATORS:
            try:
                names = next(csv.reader([header.removeprefix("\ufeff")], delimiter=separator), [])
            except csv.Error:
                continue
            names = [one.strip().lower() for one in names]
            question = _only(names, QUESTIONS, name)
            if question is not None:
                answer = None if OF_A_MODEL in names else _only(names, ANSWERS, name)
                rating = _only(names, RATINGS, name)
                return cls(tuple(names), separator, question, answer, rating)
        return None

    @property
    def note(self) -> str:
        """How the file is read where the file is not as published; else empty."""
        if list(self.names) == CSV_HEADER and self.separator == ",":
            return ""
        answers = "no answers"
        if self.answer is not None:
            answers = f"answers in {self.names[self.answer]!r}"
        elif OF_A_MODEL in self.names:
            answers = "no answers that count, since they are a model's"
        return (
            f"CSV with {SEPARATORS[self.separator]}, by its header: questions in "
            f"{self.names[self.question]!r}, {answers}"
        )

    def rows(self, lines: Iterable[str], name: str, before: int = 1) -> Iterator[Row]:
        """The rows below the header; those that hold nothing are left out.

        Args:
            name: of the file, for messages.
            before: lines above the first of `lines`.

        Raises:
            UserError: a row is not CSV, or has another number of fields; names file and line.
        """
        reader = csv.reader(lines, delimiter=self.separator, strict=True)
        count, question, answer, rating = len(self.names), self.question, self.answer, self.rating
        try:
            for row in reader:
                if len(row) != count:  # at times only by separators at its end
                    if not any(map(str.strip, row)):
                        continue
                    if len(row) < count or any(row[count:]):
                        reason = f"{len(row)} fields, expected {count} ({self._shown})"
                        raise UserError(f"{name}:{before + reader.line_num}: {reason}; {WAY_OUT}")
                if not row[question] and not any(map(str.strip, row)):
                    continue
                yield Row(
                    before + reader.line_num,
                    row[question],
                    None if answer is None else row[answer],
                    None if rating is None else row[rating],
                )
        except csv.Error as error:
            raise UserError(f"{name}:{before + reader.line_num}: {error}; {WAY_OUT}") from None

    @property
    def _shown(self) -> str:
        return self.separator.join(self.names)[:100].replace("\t", " ")


def _only(names: list[str], known: tuple[str, ...], file: str) -> int | None:
    found = [number for number, name in enumerate(names) if name in known]
    if len(found) > 1:
        both = " and ".join(names[number] for number in found[:2])
        raise UserError(f"{file}:1: both {both} may be what is meant; rename one of these columns")
    return found[0] if found else None


def read_header(lines: Iterable[str], name: str) -> tuple[Columns | None, str, list[str]]:
    """The first line that is not blank: its columns, its text, and the lines above it.

    Args:
        lines: an iterator, which stands behind that line then.

    Raises:
        UserError: two columns may be the question, or the answer.
    """
    above, text = list[str](), ""
    for text in lines:
        if text.strip():
            break
        above.append(text)
    else:
        text = above.pop() if above else ""
    return Columns.of(text, name), text, above


def say_columns(name: str, encoding: str, columns: Columns) -> None:
    """Say on stderr how a file is read that is not as published."""
    notes = [] if encoding.startswith("utf-8") else [encoding.upper()]
    notes += [columns.note] if columns.note else []
    if notes:
        print(f"note: {name}: read as {'; '.join(notes)}", file=sys.stderr)


@contextmanager
def open_rows(path: Path, with_ratings: bool = False) -> Iterator[Iterator[Row]]:
    """The rows of a file whose first line names a column of questions and one of answers.

    Args:
        with_ratings: a column of ratings must be named, too.

    Raises:
        UserError: the file cannot be read or names no such columns, or a row is not CSV.
    """
    with open_text(path) as file:
        lines = bounded_lines(file)
        columns, _, above = read_header(lines, str(path))
        number = len(above) + 1
        if columns is None or columns.answer is None or (with_ratings and columns.rating is None):
            needed = "question, answer and rating" if with_ratings else "question and answer"
            raise UserError(
                f"{path}:{number}: the first line must name columns {needed}, as "
                f"{','.join(CSV_HEADER)} does"
            )
        say_columns(str(path), file.encoding, columns)
        yield columns.rows(lines, str(path), number)
