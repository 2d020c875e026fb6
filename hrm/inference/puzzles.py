"""Puzzles as people write them, and whether an answer keeps the rules.

Shapes: N puzzles, T tokens per puzzle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrm.data import maze
from hrm.data.format import DatasetMetadata
from hrm.data.sudoku import is_valid_solution
from hrm.errors import UserError
from hrm.viz import PAD_SYMBOL, GridLook


class PuzzleError(UserError):
    """A puzzle that cannot be read.

    `place` is where it stands (`puzzle`, or a file and a line), `cell` the character at fault,
    counted from 0, None where it is not a single one.
    """

    def __init__(self, reason: str, place: str = "puzzle", cell: int | None = None):
        column = "" if cell is None else f", column {cell + 1}"
        super().__init__(f"{place}{column}: {reason}")
        self.reason, self.cell = reason, cell


@dataclass(frozen=True)
class Contradiction:
    """A given that stands there twice in a row, column or box."""

    reason: str
    cell: int  # the second of the two


def parse_puzzle(text: str, metadata: DatasetMetadata, place: str = "puzzle") -> np.ndarray:
    """One character per token, line breaks ignored; `.`, `0` and `_` are blank in a Sudoku.

    Args:
        place: where the puzzle stands, for messages.

    Returns:
        [T] int32.

    Raises:
        PuzzleError: the wrong number of characters, or one that the data set does not have.
    """
    look = GridLook.from_metadata(metadata)
    token_of = {symbol: token for token, symbol in enumerate(look.symbols)}
    if look.is_sudoku:
        token_of |= {s.lower(): token for s, token in token_of.items()}
        token_of |= dict.fromkeys(f"0{PAD_SYMBOL}", token_of["."])
    text = text.replace("\r", "").replace("\n", "")
    for cell, character in enumerate(text):
        if character not in token_of:
            known = "".join(dict.fromkeys(look.symbols))
            raise PuzzleError(f"character {character!r} is not one of {known!r}", place, cell)
    if len(text) != metadata.seq_len:
        rows, columns = look.shape
        raise PuzzleError(
            f"{len(text)} characters, expected {metadata.seq_len} ({rows}x{columns})", place
        )
    return np.array([token_of[c] for c in text], np.int32)


def puzzle_tokens(puzzles: Any, metadata: DatasetMetadata) -> np.ndarray:
    """Puzzles as tokens.

    Args:
        puzzles: N of them: strings as `parse_puzzle` reads them, or tokens of the data set as
            arrays or nested lists, flat [T] or as a grid [rows, columns]. Kinds may be mixed.

    Returns:
        [N, T] int32.

    Raises:
        UserError: a puzzle does not fit the data set.
    """
    if isinstance(puzzles, str):
        raise UserError("puzzles: give a list of puzzles, not one string")
    if not isinstance(puzzles, np.ndarray) or puzzles.dtype == object:
        rows = [_one_puzzle(puzzle, metadata, f"puzzle {n}") for n, puzzle in enumerate(puzzles)]
        return np.stack(rows) if rows else np.zeros((0, metadata.seq_len), np.int32)
    return _checked_tokens(puzzles, metadata, "puzzles")


def _one_puzzle(puzzle: Any, metadata: DatasetMetadata, place: str) -> np.ndarray:
    if isinstance(puzzle, str):
        return parse_puzzle(puzzle, metadata, place)
    try:
        tokens = np.asarray(puzzle)
    except ValueError:
        raise PuzzleError("its rows differ in length", place) from None
    return _checked_tokens(tokens[None], metadata, place)[0]


def _checked_tokens(tokens: np.ndarray, metadata: DatasetMetadata, place: str) -> np.ndarray:
    look, (vocab_size, seq_len) = (
        GridLook.from_metadata(metadata),
        (metadata.vocab_size, metadata.seq_len),
    )
    if tokens.dtype.kind not in "iu" or tokens.shape[1:] not in ((seq_len,), look.shape):
        rows, columns = look.shape
        raise PuzzleError(
            f"{tokens.dtype} of shape {list(tokens.shape)}, expected integers of shape "
            f"[puzzles, {seq_len}] or [puzzles, {rows}, {columns}]",
            place,
        )
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        raise PuzzleError(f"tokens must be in 0..{vocab_size - 1}", place)
    if look.is_sudoku and look.symbols.startswith(PAD_SYMBOL) and (tokens == 0).any():
        raise PuzzleError(
            "token 0 is padding in this data set, blank is 1 and a digit d is d + 1; "
            "give strings to write digits as they are",
            place,
        )
    return tokens.reshape(-1, seq_len).astype(np.int32)


def keeps_rules(tokens: np.ndarray, inputs: np.ndarray, look: GridLook) -> list[bool | None]:
    """Whether each answer keeps the givens and the rules; None where the rules are not known.

    A Sudoku has every digit once per row, column and box; a maze one shortest path.

    Args:
        tokens, inputs: [N, T] integers, answers and puzzles.
    """
    if look.is_sudoku:
        assert look.box_shape is not None
        digits = tokens.astype(np.int64) - look.symbols.index(".")
        kept = ~((tokens != inputs) & look.givens(inputs)).any(axis=1)
        return (is_valid_solution(digits, look.box_shape) & kept).tolist()
    if look.is_maze:
        symbols = np.array(list(look.symbols))
        return [
            maze.is_shortest_path(*(symbols[cells].reshape(look.shape) for cells in pair))
            for pair in zip(tokens, inputs, strict=True)
        ]
    return [None] * len(tokens)


def contradiction(inputs: np.ndarray, look: GridLook) -> Contradiction | None:
    """Which given a Sudoku has twice in a row, column or box; None where there is none.

    Args:
        inputs: [T] integers.
    """
    if not look.is_sudoku:
        return None
    assert look.box_shape is not None
    cells = np.arange(len(inputs))
    rows, columns = np.divmod(cells, look.shape[1])
    boxes_across = look.shape[1] // look.box_shape[1]
    boxes = rows // look.box_shape[0] * boxes_across + columns // look.box_shape[1]
    givens = look.givens(inputs)
    for name, units in (("row", rows), ("column", columns), ("box", boxes)):
        for unit in range(look.shape[0]):
            own = np.flatnonzero(givens & (units == unit))
            tokens, counts = np.unique(inputs[own], return_counts=True)
            if (counts > 1).any():
                token = tokens[counts > 1][0]
                second = int(own[inputs[own] == token][1])
                reason = f"{look.symbol(token)} is given {counts.max()} times in {name} {unit + 1}"
                return Contradiction(reason, second)
    return None


def refuse_contradictions(
    puzzles: Sequence[np.ndarray], look: GridLook, places: Sequence[str]
) -> None:
    """Raise `PuzzleError` for the first of the puzzles, N of [T], that contradicts itself."""
    for inputs, place in zip(puzzles, places, strict=True):
        if found := contradiction(inputs, look):
            raise PuzzleError(f"contradicts itself: {found.reason}", place, found.cell)
