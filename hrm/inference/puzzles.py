"""Puzzles as people write them, and whether an answer keeps the rules.

Shapes: N puzzles, T tokens per puzzle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hrm.data import maze
from hrm.data.format import DatasetMetadata
from hrm.data.sudoku import is_valid_solution, units_of_cells
from hrm.errors import UserError
from hrm.viz import PAD_SYMBOL, GridLook

UNITS = ("row", "column", "box")
CHUNK = 4096  # puzzles checked at a time


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
    look, token_of = _reading(metadata)
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


@lru_cache
def _reading(metadata: DatasetMetadata) -> tuple[GridLook, dict[str, int]]:
    """How a data set's puzzles look, and the token of each character that may be written."""
    look = GridLook.from_metadata(metadata)
    token_of = {symbol: token for token, symbol in enumerate(look.symbols)}
    if look.is_sudoku:
        token_of |= {s.lower(): token for s, token in token_of.items()}
        token_of |= dict.fromkeys(f"0{PAD_SYMBOL}", token_of["."])
    return look, token_of


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
    counts = _counts_in_units(inputs[None], look)[0]
    if not len(found := np.argwhere(counts > 1)):
        return None
    assert look.box_shape is not None
    kind, unit, token = found[0]
    own = (units_of_cells(look.box_shape)[kind] == unit) & (inputs == token)
    times, name = counts[kind, unit, token], UNITS[kind]
    reason = f"{look.symbol(token)} is given {times} times in {name} {unit + 1}"
    return Contradiction(reason, int(np.flatnonzero(own)[1]))


def _counts_in_units(puzzles: np.ndarray, look: GridLook) -> np.ndarray:
    """How often each token is given in each row, column and box of Sudokus.

    Args:
        puzzles: [N, T] integers.

    Returns:
        [N, 3, side, V] int64.
    """
    assert look.box_shape is not None
    shape = (len(puzzles), len(UNITS), look.shape[0], len(look.symbols))
    number, cell = np.nonzero(look.givens(puzzles))
    units = units_of_cells(look.box_shape)[:, cell]
    kinds = np.arange(len(UNITS))[:, None]
    places = np.ravel_multi_index((number, kinds, units, puzzles[number, cell]), shape)
    return np.bincount(places.ravel(), minlength=math.prod(shape)).reshape(shape)


def refuse_contradictions(
    puzzles: Sequence[np.ndarray], look: GridLook, places: Sequence[str]
) -> None:
    """Raise `PuzzleError` for the first of the puzzles, N of [T], that contradicts itself."""
    if not look.is_sudoku:
        return
    for start in range(0, len(puzzles), CHUNK):
        counts = _counts_in_units(np.stack(puzzles[start : start + CHUNK]), look)
        if (bad := (counts > 1).any(axis=(1, 2, 3))).any():
            number = start + int(bad.argmax())
            found = contradiction(puzzles[number], look)
            assert found is not None
            raise PuzzleError(f"contradicts itself: {found.reason}", places[number], found.cell)
