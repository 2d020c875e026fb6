"""The plain search of `difficulty.py` for one puzzle at a time, compiled by numba.

`solve` is `count_guesses` of one puzzle, and its guesses are the same: naked and hidden singles
lead to the same state in whatever order they are applied. `make_minimal` asks it over and over
again whether a second solution is left. Where a solution differed from the answer, one cell at
least must be given, which is remembered: most givens that are needed are known at once.

A state is [cells] int32 with a bit for each candidate of a cell, the lowest for digit 1. Only here
is numba needed; compiled code is kept on disk, for other processes and later runs.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from hrm.tasks.sudoku.rules import BoxShape, units

REMEMBERED = 512  # solutions that differed
WORD = 60  # cells in an integer that is a set of cells


class Board(NamedTuple):
    """A solved grid, and room for one search at a time in what is left of it."""

    answer: np.ndarray  # [cells] int32, a state

    units: np.ndarray  # [3 * side, side] int32, the cells of each row, column and box
    units_of: np.ndarray  # [cells, 3] int32, the units of each cell
    stack: np.ndarray  # [cells + 1, cells] int32, states that remain to be tried
    settled: np.ndarray  # [3 * side] int32, digits of a unit whose cell is known
    once: np.ndarray  # [3 * side] int32, digits with one place in a unit
    differing: np.ndarray  # [REMEMBERED, words] int64, sets of cells of which one must be given
    remembered: np.ndarray  # [1] int64, how many sets there have been


def new_board(answer: np.ndarray, box_shape: BoxShape) -> Board:
    """A board for puzzles with that answer, [cells] uint8."""
    side = math.prod(box_shape)
    cells = side * side
    members, units_of = units(box_shape)
    return Board(
        as_state(answer, box_shape),
        members.astype(np.int32),
        units_of.astype(np.int32),
        np.zeros((cells + 1, cells), np.int32),
        np.zeros(3 * side, np.int32),
        np.zeros(3 * side, np.int32),
        np.zeros((REMEMBERED, cells // WORD + 1), np.int64),
        np.zeros(1, np.int64),
    )


def as_state(grid: np.ndarray, box_shape: BoxShape) -> np.ndarray:
    """The state of a grid, [cells] uint8, in which 0 is blank."""
    side = math.prod(box_shape)
    candidates = np.append((1 << side) - 1, 1 << np.arange(side)).astype(np.int32)
    return candidates[grid]


@njit(cache=True)
def solve(start: np.ndarray, board: Board, most: int) -> int:
    """Guesses until the first solution; the search is given up at `most + 1`.

    The solution is left in `board.stack[0]`.

    Args:
        start: a state.

    Returns:
        The guesses, or -1 where there is no solution.
    """
    stack = board.stack
    stack[0] = start
    top = guesses = 0
    while top >= 0:
        state = stack[top]
        if not _settle(state, board):
            top -= 1
            continue
        cell = _cell_to_guess(state)
        if cell < 0:
            stack[0] = state
            return guesses
        guesses += 1
        if guesses > most:
            return guesses
        lowest = state[cell] & -state[cell]
        stack[top + 1] = state
        state[cell] ^= lowest
        top += 1
        stack[top, cell] = lowest
    return -1


@njit(cache=True)
def make_minimal(given: np.ndarray, order: np.ndarray, board: Board, most: int) -> bool:
    """Take givens away, in place and in that order, while the answer stays the only solution.

    Args:
        given: [cells] bool; the answer must be the only solution with them.
        order: [n] integers, cells that are given.
        most: guesses in all.

    Returns:
        Whether all of `order` was tried; False where that would have taken more guesses.
    """
    answer = board.answer
    blank = (1 << board.units.shape[1]) - 1
    state = np.where(given, answer, blank).astype(np.int32)
    cells = np.zeros(board.differing.shape[1], np.int64)  # that are given, as a set
    for cell in np.flatnonzero(given):
        cells[cell // WORD] |= 1 << cell % WORD
    for cell in order:
        bit = 1 << cell % WORD
        cells[cell // WORD] ^= bit
        needed = _are_too_few(cells, board)
        if not needed:
            state[cell] = blank ^ answer[cell]
            guesses = solve(state, board, most)
            most -= max(guesses, 0)
            if most < 0:
                return False
            needed = guesses >= 0
            if needed:
                _remember(board)
        given[cell] = needed
        state[cell] = answer[cell] if needed else blank
        if needed:
            cells[cell // WORD] ^= bit
    return True


@njit(cache=True)
def _are_too_few(cells: np.ndarray, board: Board) -> bool:
    """Whether a solution is remembered that does not differ from the answer in these cells."""
    for index in range(min(board.remembered[0], REMEMBERED)):
        for word in range(len(cells)):
            if board.differing[index, word] & cells[word]:
                break
        else:
            return True
    return False


@njit(cache=True)
def _remember(board: Board) -> None:
    """Where the last solution differs from the answer; the oldest one is forgotten for it."""
    index = board.remembered[0] % REMEMBERED
    board.differing[index] = 0
    for cell in range(len(board.answer)):
        if board.stack[0, cell] != board.answer[cell]:
            board.differing[index, cell // WORD] |= 1 << cell % WORD
    board.remembered[0] += 1


@njit(cache=True)
def _settle(state: np.ndarray, board: Board) -> bool:
    """Apply both rules, in place, until nothing changes; False: the state contradicts itself."""
    count, side = board.units.shape
    full = (1 << side) - 1
    changed = True
    while changed:
        for unit in range(count):
            present = twice = known = known_twice = 0
            for place in range(side):
                digits = state[board.units[unit, place]]
                twice |= present & digits
                present |= digits
                if digits & (digits - 1) == 0:
                    known_twice |= known & digits
                    known |= digits
            if present != full or known_twice:
                return False
            board.settled[unit] = known
            board.once[unit] = present & ~twice
        changed = False
        for cell in range(len(state)):
            before = state[cell]
            if before & (before - 1) == 0:
                continue
            row, column, box = board.units_of[cell]
            settled, once = board.settled, board.once
            digits = before & ~(settled[row] | settled[column] | settled[box])
            hidden = digits & (once[row] | once[column] | once[box])
            if hidden:
                if hidden & (hidden - 1):
                    return False
                digits = hidden
            if digits == 0:
                return False
            if digits != before:
                state[cell] = digits
                changed = True
    return True


@njit(cache=True)
def _cell_to_guess(state: np.ndarray) -> int:
    """The first of the cells with the fewest candidates, but more than one; -1: none is left."""
    best, fewest = -1, 64
    for cell in range(len(state)):
        rest = state[cell] & (state[cell] - 1)
        if rest == 0:
            continue
        count = 1
        while rest and count < fewest:
            rest &= rest - 1
            count += 1
        if count < fewest:
            best, fewest = cell, count
            if count == 2:
                break
    return best
