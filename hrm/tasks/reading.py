"""Puzzles as people write them: one reader for arguments, files, the server and the page.

A puzzle is one line, or drawn over several. What a character means can depend on the others:

- A dash is a blank where the puzzle has its cells only with the dashes, else part of a frame.
- A `Spelling` is another way to write some symbols, recognized by what is written beside them.

Shapes: T tokens per puzzle.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hrm.errors import UserError

COMMENTS = ("#", "//")
SECTION = "[puzzle]"  # of a .sdk file; others, such as [State], are not puzzles
LINE_BREAKS = "\r\n"
LINE_END = re.compile("\r\n|\r|\n")


class PuzzleError(UserError):
    """A puzzle that cannot be read.

    `place` is where it stands (`puzzle`, or a file and a line); `column` the character at fault
    in its line and `cell` the cell that it stands for, both counted from 0, None where it is not a
    single one.
    """

    def __init__(
        self,
        reason: str,
        place: str = "puzzle",
        cell: int | None = None,
        column: int | None = None,
    ):
        column = cell if column is None else column
        shown = "" if column is None else f", column {column + 1}"
        super().__init__(f"{place}{shown}: {reason}")
        self.reason, self.place, self.cell, self.column = reason, place, cell, column


@dataclass(frozen=True)
class Spelling:
    """Another way to write some symbols, which a puzzle keeps to."""

    symbols: Mapping[str, str]  # character -> the symbol that it stands for
    beside: str  # at least one of these is written as well; empty: no condition
    never: str  # none of these is
    meaning: str  # a sentence

    def is_of(self, written: set[str]) -> bool:
        """Whether a puzzle of these characters is written so."""
        return (
            not written.isdisjoint(self.symbols)
            and written.isdisjoint(self.never)
            and not (self.beside and written.isdisjoint(self.beside))
        )


@dataclass(frozen=True)
class Line:
    """A line of a puzzle, its comment cut off."""

    number: int  # counted from 1
    text: str
    cells: int  # dashes not counted
    dashes: int

    @property
    def both(self) -> int:
        return self.cells + self.dashes


@dataclass(frozen=True)
class Reading:
    """A puzzle that was read."""

    number: int  # its first line
    tokens: np.ndarray  # T, int32
    spelling: Spelling | None


@dataclass(frozen=True)
class Notation:
    """Which characters stand for which symbol of a grid, and which are only drawn around it."""

    symbols: str  # token -> character
    aliases: Mapping[str, str] = field(default_factory=dict)  # other character -> symbol
    frame: str = ""  # drawn around and between cells
    corners: str = ""  # of a line without cells, such as +---+; those that can be cells: *---*
    dashes: Mapping[str, str] = field(default_factory=dict)  # character -> symbol, or of the frame
    stretched: Mapping[str, str] = field(default_factory=dict)  # one character -> several
    spellings: tuple[Spelling, ...] = ()

    @cached_property
    def tokens(self) -> dict[str, int]:
        """The token of each character that stands for one wherever it is written."""
        token_of = {symbol: token for token, symbol in enumerate(self.symbols)}
        return token_of | {other: token_of[symbol] for other, symbol in self.aliases.items()}

    @property
    def keeps_spaces(self) -> bool:
        """Whether a space is a cell."""
        return " " in self.tokens

    def read(
        self, text: str, shape: tuple[int, int], place: str = "puzzle", beside: str = ""
    ) -> np.ndarray:
        """The tokens of a puzzle, [T] int32; arguments and errors as of `reading`."""
        return self.reading(text, shape, place, beside).tokens

    def reading(
        self, text: str, shape: tuple[int, int], place: str = "puzzle", beside: str = ""
    ) -> Reading:
        """One character per cell, row by row, in one line or several; frames do not count.

        Args:
            place: where the puzzle stands, for messages.
            beside: text by the same hand, such as its answer: it is spelled alike.

        Raises:
            PuzzleError: the wrong number of characters, or one that the data set does not have.
        """
        rows, columns = shape
        found = self._lines(LINE_END.split(text))
        lines = [line for line in found if line.cells or line.dashes in (columns, rows * columns)]
        places = {line.number: f"{place}, line {line.number}" for line in lines}
        return self._join(lines, shape, places | {1: place}, place, beside)

    def find(
        self, lines: Iterable[str], shape: tuple[int, int], name: str = "puzzle"
    ) -> Iterator[Reading]:
        """The puzzles of a file, each a line or as many lines as it has rows.

        Raises:
            PuzzleError: a line cannot be read; names file, line and column.
        """
        pending: list[Line] = []

        def joined(own: Sequence[Line]) -> Reading:
            places = {line.number: f"{name}:{line.number}" for line in own}
            return self._join(own, shape, places, f"{name}:{own[0].number}")

        for line in self._lines(lines):
            columns, whole = shape[1], shape[0] * shape[1]
            is_whole = line.cells > 0 and whole in (line.cells, line.both)
            if not is_whole and shape[0] > 1 and columns in (line.cells, line.both):
                pending.append(line)
                if _rows(pending, columns) >= shape[0]:
                    yield joined(_without_ornament(pending, columns))
                    pending = []
            elif is_whole or line.cells > 0 or not line.text:
                if _rows(pending, columns):
                    joined(_without_ornament(pending, columns))  # raises: rows are missing
                    raise AssertionError
                pending = []
                if line.text:
                    yield joined([line])
        if _rows(pending, shape[1]):
            joined(_without_ornament(pending, shape[1]))

    def _lines(self, lines: Iterable[str]) -> Iterator[Line]:
        """Lines without comments, and without sections that are no puzzle."""
        marks = [mark for mark in COMMENTS if mark[0] not in self.tokens]
        skipping = False
        for number, text in enumerate(lines, 1):
            text = text.strip(LINE_BREAKS) if self.keeps_spaces else text.strip()
            if "[" not in self.tokens and text[:1] == "[" and text[-1:] == "]":
                skipping = text.lower() != SECTION
                continue
            starts = [found for mark in marks if (found := text.find(mark)) >= 0]
            if skipping or (starts and not text[: min(starts)].strip()):
                continue
            if starts:
                text = text[: min(starts)].rstrip()
            for one, several in self.stretched.items():
                text = text.replace(one, several)
            yield Line(number, text, *self._count(text))

    def _spelling(self, written: set[str], beside: str) -> Spelling | None:
        written = written | (set(beside) - set(self.dashes))
        return next((one for one in self.spellings if one.is_of(written)), None)

    def _is_drawn(self, character: str) -> bool:
        return character in self.frame or character in self.dashes

    def _count(self, text: str) -> tuple[int, int]:
        """Cells and dashes of a line; a rule, such as `+---+`, has neither."""
        cells = sum(not self._is_drawn(c) for c in text)
        dashes = sum(c in self.dashes for c in text)
        if not cells and any(c in self.corners for c in text):
            return 0, 0
        if (
            cells
            and dashes
            and cells == sum(c in self.corners and c not in self.frame for c in text)
        ):
            return 0, 0
        return cells, dashes

    def _check_rows(self, lines: Sequence[Line], shape: tuple[int, int], place: str) -> None:
        """Raise `PuzzleError` where lines are no rows of a grid; here they may end anywhere."""

    def _join(
        self,
        lines: Sequence[Line],
        shape: tuple[int, int],
        places: Mapping[int, str],
        place: str,
        beside: str = "",
    ) -> Reading:
        self._check_rows(lines, shape, place)
        rows, columns = shape
        whole = rows * columns
        blanks = _dashes_are_blanks(lines, whole)
        written = {c for line in lines if line.both for c in line.text}
        spelling = self._spelling(written if blanks else written - set(self.dashes), beside)
        other = dict(self.dashes if blanks else {}) | dict(spelling.symbols if spelling else {})
        meanings = self.tokens | {c: self.tokens[symbol] for c, symbol in other.items()}
        tokens: list[int] = []
        for line in lines:
            if not line.both:
                continue
            for column, character in enumerate(line.text):
                if character in meanings:
                    tokens.append(meanings[character])
                elif not self._is_drawn(character):
                    reason = self._not_known(character)
                    raise PuzzleError(reason, places[line.number], len(tokens), column)
        if len(tokens) != whole:
            hint = ""
            if len(tokens) > whole and len(tokens) % whole == 0:
                hint = "; write one puzzle a line"
            elif len(tokens) > whole and "A" in self.tokens:
                hint = "; each cell is one character, and 10 is A"
            elif len(tokens) < whole and self.keeps_spaces:
                hint = "; spaces are cells, at the end of a line, too"
            raise PuzzleError(
                f"{len(tokens)} characters, expected {whole} ({rows}x{columns}){hint}", place
            )
        return Reading(lines[0].number, np.array(tokens, np.int32), spelling)

    def _not_known(self, character: str) -> str:
        if "\udc80" <= character <= "\udcff":  # as `surrogateescape` shows it
            byte = character.encode(errors="surrogateescape").hex()
            return f"byte 0x{byte} is not UTF-8; save the file as UTF-8"
        return f"character {character!r} is not one of {''.join(dict.fromkeys(self.symbols))!r}"


def say_spelling(reading: Reading, place: str, said: set[str]) -> None:
    """Say on stderr how a puzzle is spelled, once for all that are spelled so."""
    if reading.spelling is not None and reading.spelling.meaning not in said:
        said.add(reading.spelling.meaning)
        print(f"note: {place}: {reading.spelling.meaning}", file=sys.stderr)


def _dashes_are_blanks(lines: Sequence[Line], whole: int) -> bool:
    """Whether dashes are cells: the puzzle has as many cells as it must only with them."""
    if sum(line.cells for line in lines) == whole:
        return False
    drawn = [line for line in lines if line.both]
    proof = len(drawn) == 1 or any(line.cells and line.dashes for line in drawn)
    return proof and len({line.both for line in drawn}) == 1


def _rows(lines: Sequence[Line], columns: int) -> int:
    """Rows that lines of a grid amount to; one of dashes alone counts where dashes are blanks."""
    sure = sum(line.cells > 0 for line in lines)
    dashed = any(line.cells not in (0, columns) for line in lines)
    return len(lines) if dashed else sure


def _without_ornament(lines: Sequence[Line], columns: int) -> list[Line]:
    dashed = any(line.cells not in (0, columns) for line in lines)
    return [line for line in lines if dashed or line.cells]
