"""Grids of a user's own, as a task: those of several sizes are written without their canvas."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from hrm.data.format import DatasetMetadata
from hrm.data.grid import Grid
from hrm.tasks.base import Task
from hrm.tasks.grids.canvas import END_SYMBOL, Canvas
from hrm.tasks.reading import LINE_END, Line, Notation, PuzzleError, Reading

ROW_END = "/"  # between rows that are written in one line


def _rows_of(line: str, tokens: Mapping[str, int]) -> list[str]:
    """The rows of a line, which is one where a slash is a symbol."""
    return [line] if ROW_END in tokens else line.removesuffix(ROW_END).split(ROW_END)


class OpenGrid(Grid):
    """A grid whose answer may change every cell."""

    @property
    def blank(self) -> None:
        return None


class GridsTask(Task):
    """Grids as `hrm build grids` and `DatasetWriter` write them, of one size or of several."""

    keeps_givens: ClassVar[bool] = False  # whether answers must keep all cells but blank ones

    @classmethod
    def fits(cls, metadata: DatasetMetadata) -> bool:
        """Only data that name their task: what others wrote may keep its givens."""
        return metadata.task is not None

    @cached_property
    def grid(self) -> Grid:
        kind = Grid if self.keeps_givens else OpenGrid
        return kind(self.shape, self.metadata.box_shape, self.symbols)

    @property
    def has_ends(self) -> bool:
        """Whether grids of several sizes stand in a canvas, see `Canvas`."""
        return self.symbols[1:2] == END_SYMBOL

    @cached_property
    def notation(self) -> Notation:
        if self.has_ends:
            return CanvasNotation(self.symbols)
        return RowsNotation(self.symbols)


class RowsNotation(Notation):
    """Rows in several lines, or in one with a slash between them, if that is no symbol."""

    def _lines(self, lines: Iterable[str]) -> Iterator[Line]:
        for line in super()._lines(lines):
            for row in _rows_of(line.text, self.tokens):
                yield Line(line.number, row, *self._count(row))

    def _check_rows(self, lines: Sequence[Line], shape: tuple[int, int], place: str) -> None:
        sizes = [line.cells for line in lines]
        if len(sizes) > 1 and set(sizes) != {shape[1]}:
            shown = ", ".join(map(str, sizes[:9]))
            raise PuzzleError(
                f"rows of {shown} characters, expected {shape[0]} of {shape[1]}", place
            )


class CanvasNotation(Notation):
    """Grids of any size up to the canvas: a line per row, or one line with slashes between rows.

    In a file a blank line stands between grids, or each is one line. The whole canvas, with its
    padding and end marks, is read as well.
    """

    def reading(
        self, text: str, shape: tuple[int, int], place: str = "puzzle", beside: str = ""
    ) -> Reading:
        lines = [line for line in self._lines(LINE_END.split(text)) if line.text]
        return self._placed(lines, shape, place)

    def find(
        self, lines: Iterable[str], shape: tuple[int, int], name: str = "puzzle"
    ) -> Iterator[Reading]:
        pending: list[Line] = []

        def taken() -> Iterator[Reading]:
            if pending:
                yield self._placed(pending, shape, f"{name}:{pending[0].number}")
                pending.clear()

        for line in self._lines(lines):
            if not line.text or self._is_whole(line.text, shape):
                yield from taken()
            if line.text:
                pending.append(line)
                if self._is_whole(line.text, shape):
                    yield from taken()
        yield from taken()

    def _is_whole(self, text: str, shape: tuple[int, int]) -> bool:
        """Whether a line is all of a puzzle."""
        in_one_line = len(text) == shape[0] * shape[1] > shape[1]
        return in_one_line or (ROW_END in text and ROW_END not in self.tokens)

    def _placed(self, lines: Sequence[Line], shape: tuple[int, int], place: str) -> Reading:
        rows = [line.text for line in lines]
        if len(rows) == 1:
            rows = _rows_of(rows[0], self.tokens)
        number = lines[0].number if lines else 1
        for row, text in enumerate(rows, 1):
            for column, character in enumerate(text):
                if character not in self.tokens:
                    own = place if len(rows) == 1 else f"{place}, row {row}"
                    raise PuzzleError(self._not_known(character), own, None, column)
        whole = "".join(rows)
        if not whole:
            raise PuzzleError("holds no cell", place)
        tokens = np.array([self.tokens[character] for character in whole], np.int32)
        sizes = [len(row) for row in rows]
        if len(tokens) == shape[0] * shape[1] and set(sizes) <= {len(tokens), shape[1]}:
            return Reading(number, tokens, None)
        if min(sizes) < max(sizes):
            raise PuzzleError(
                f"rows of {', '.join(map(str, sizes[:9]))} characters, expected equally long ones; "
                f"write a row a line, a blank line between puzzles, or {ROW_END} between rows",
                place,
            )
        if len(rows) > shape[0] or sizes[0] > shape[1]:
            raise PuzzleError(
                f"{len(rows)}x{sizes[0]} cells, expected at most {shape[0]}x{shape[1]}", place
            )
        placed = Canvas(shape, has_ends=True).place(tokens.reshape(len(rows), -1))
        return Reading(number, placed.ravel(), None)
