"""Puzzles as people write them: one reader for arguments, files, the server and the page.

Shapes: N puzzles, T tokens per puzzle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hrm.errors import UserError

CSV_HEADER = ["source", "question", "answer", "rating"]
LINE_BREAKS = "\r\n"
FRAME = " \t|+-─│┌┐└┘├┤┬┴┼"  # what people draw around and between boxes


class PuzzleError(UserError):
    """A puzzle that cannot be read.

    `place` is where it stands (`puzzle`, or a file and a line); `column` the character at fault
    and `cell` the cell that it stands for, both counted from 0, None where it is not a single one.
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
        self.reason, self.cell, self.column = reason, cell, column


@dataclass(frozen=True)
class Notation:
    """Which characters stand for which symbol of a grid, and which are only drawn around it."""

    symbols: str  # token -> character
    aliases: Mapping[str, str] = field(default_factory=dict)  # other character -> symbol
    ignored: str = LINE_BREAKS

    @cached_property
    def tokens(self) -> dict[str, int]:
        """The token of each character that may be written."""
        token_of = {symbol: token for token, symbol in enumerate(self.symbols)}
        return token_of | {other: token_of[symbol] for other, symbol in self.aliases.items()}

    @property
    def keeps_spaces(self) -> bool:
        """Whether a space is a cell."""
        return " " in self.tokens

    def cells_in(self, line: str) -> int:
        """How many cells a line of text names, whatever they are."""
        return sum(character not in self.ignored for character in line)

    def read(self, text: str, shape: tuple[int, int], place: str = "puzzle") -> np.ndarray:
        """One character per cell, row by row; what is ignored does not count.

        Args:
            place: where the puzzle stands, for messages.

        Returns:
            [T] int32.

        Raises:
            PuzzleError: the wrong number of characters, or one that the data set does not have.
        """
        tokens: list[int] = []
        line = text.replace("\r", "").replace("\n", "")
        for column, character in enumerate(line):
            if character in self.ignored:
                continue
            if character not in self.tokens:
                known = "".join(dict.fromkeys(self.symbols))
                reason = f"character {character!r} is not one of {known!r}"
                raise PuzzleError(reason, place, len(tokens), column)
            tokens.append(self.tokens[character])
        rows, columns = shape
        if len(tokens) != rows * columns:
            raise PuzzleError(
                f"{len(tokens)} characters, expected {rows * columns} ({rows}x{columns})", place
            )
        return np.array(tokens, np.int32)
