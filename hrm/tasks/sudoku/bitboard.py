"""9x9 Sudokus by sets of cells: solutions, superfluous givens, what assuming a candidate settles.

A state is [10, 3] int32: for each digit and each band of three rows the 27 cells in which the digit
may be, row by row, a bit each; the last row has the cells that are not settled. That is five times
as fast as `search.py`, which knows other boxes, and counts guesses as `difficulty.py` does.

Importing this module needs numba; compiled code is kept on disk.
"""

import numpy as np
from numba import njit

from hrm.tasks.sudoku.rules import units_of_cells

SIDE, CELLS = 9, 81
BAND = 27  # cells in a band
OPEN = 9  # row of the cells that are not settled
FULL = (1 << BAND) - 1
ROW, BOX = 0o777, 0o7007007  # cells of the first row and the first box of a band


def _as_words(cells: np.ndarray) -> list[int]:
    return [sum(1 << int(bit) for bit in np.flatnonzero(band)) for band in cells.reshape(3, BAND)]


def _peers() -> np.ndarray:
    units = units_of_cells((3, 3))
    alike = (units[:, :, None] == units[:, None]).any(0)
    return np.array([_as_words(of) for of in alike & ~np.eye(CELLS, dtype=bool)], np.int32)


PEERS = _peers()  # [cells, 3]
BIT_BY_REST = np.array([{(1 << bit) % 37: bit for bit in range(32)}.get(r, 0) for r in range(37)])


@njit(cache=True, inline="always")
def _lowest(word: int) -> int:
    """Number of the lowest bit."""
    return BIT_BY_REST[(word & -word) % 37]


@njit(cache=True)
def _count(word: int) -> int:
    word -= (word >> 1) & 0x55555555
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    return (((word + (word >> 4)) & 0x0F0F0F0F) * 0x01010101 & 0xFFFFFFFF) >> 24


@njit(cache=True)
def _unsettled(state: np.ndarray) -> int:
    return _count(state[OPEN, 0]) + _count(state[OPEN, 1]) + _count(state[OPEN, 2])


@njit(cache=True)
def _read(question: np.ndarray, state: np.ndarray) -> None:
    state[:] = FULL
    for cell in range(CELLS):
        if question[cell]:
            band, bit = cell // BAND, 1 << cell % BAND
            for digit in range(SIDE):
                if digit != question[cell] - 1:
                    state[digit, band] &= ~bit


@njit(cache=True)
def _strike_peers(state: np.ndarray, cell: int, digit: int) -> None:
    for band in range(3):
        state[digit, band] &= ~PEERS[cell, band]


@njit(cache=True)
def _place(state: np.ndarray, cell: int, digit: int) -> None:
    band, bit = cell // BAND, 1 << cell % BAND
    for other in range(SIDE):
        state[other, band] &= ~bit
    _strike_peers(state, cell, digit)
    state[digit, band] |= bit
    state[OPEN, band] &= ~bit


@njit(cache=True)
def _place_all(state: np.ndarray, band: int, cells: int, digit: int) -> bool:
    """Place a digit in some cells of a band; False where that contradicts itself."""
    while cells:
        bit = cells & -cells
        cells ^= bit
        if not state[digit, band] & bit:
            return False
        _place(state, band * BAND + _lowest(bit), digit)
    return True


@njit(cache=True)
def _settle(state: np.ndarray) -> bool:
    """Apply naked and hidden singles, in place, until nothing changes; False: a contradiction."""
    while True:
        changed = False
        for band in range(3):
            once = twice = 0
            for digit in range(SIDE):
                word = state[digit, band]
                twice |= once & word
                once |= word
            if once != FULL:
                return False
            naked = once & ~twice & state[OPEN, band]
            while naked:
                bit = naked & -naked
                naked ^= bit
                for digit in range(SIDE):
                    if state[digit, band] & bit:
                        break
                else:
                    return False
                _strike_peers(state, band * BAND + _lowest(bit), digit)
                state[OPEN, band] &= ~bit
                changed = True
        if changed:
            continue
        if not (state[OPEN, 0] | state[OPEN, 1] | state[OPEN, 2]):
            return True
        for digit in range(SIDE):
            once = twice = 0  # columns
            for band in range(3):
                word = state[digit, band]
                hidden = 0
                for place in range(3):
                    row = word & (ROW << SIDE * place)
                    column = row >> SIDE * place
                    twice |= once & column
                    once |= column
                    box = word & (BOX << 3 * place)
                    if not row or not box:
                        return False
                    if row & (row - 1) == 0:
                        hidden |= row
                    if box & (box - 1) == 0:
                        hidden |= box
                hidden &= state[OPEN, band]
                if hidden:
                    if not _place_all(state, band, hidden, digit):
                        return False
                    changed = True
            if once != ROW:
                return False
            columns = (once & ~twice) * 0o1001001
            for band in range(3):
                hidden = state[digit, band] & columns & state[OPEN, band]
                if hidden:
                    if not _place_all(state, band, hidden, digit):
                        return False
                    changed = True
        if not changed:
            return True


@njit(cache=True)
def _cell_to_guess(state: np.ndarray) -> int:
    """One with two candidates if there is one, else one with the fewest; -1: all are settled."""
    for band in range(3):
        once = twice = thrice = 0
        for digit in range(SIDE):
            word = state[digit, band]
            thrice |= twice & word
            twice |= once & word
            once |= word
        two = twice & ~thrice & state[OPEN, band]
        if two:
            return band * BAND + _lowest(two)
    best, fewest = -1, SIDE + 1
    for band in range(3):
        left = state[OPEN, band]
        while left:
            bit = left & -left
            left ^= bit
            count = 0
            for digit in range(SIDE):
                count += state[digit, band] & bit != 0
            if count < fewest:
                best, fewest = band * BAND + _lowest(bit), count
    return best


@njit(cache=True)
def solve(question: np.ndarray, solutions: np.ndarray) -> int:
    """As many different solutions as there are, or as there is room for.

    Args:
        question: [81] uint8, 0 is blank.
        solutions: [most, 81] uint8, in which they are written.

    Returns:
        How many were found.
    """
    stack = np.empty((CELLS + 1, OPEN + 1, 3), np.int32)
    _read(question, stack[0])
    top, count = 0, 0
    while top >= 0:
        state = stack[top]
        if not _settle(state):
            top -= 1
            continue
        guessed = _cell_to_guess(state)
        if guessed < 0:
            for cell in range(CELLS):
                for digit in range(SIDE):
                    if state[digit, cell // BAND] >> cell % BAND & 1:
                        solutions[count, cell] = digit + 1
            count += 1
            if count == len(solutions):
                return count
            top -= 1
            continue
        band, bit = guessed // BAND, 1 << guessed % BAND
        for digit in range(SIDE):
            if state[digit, band] & bit:
                break
        stack[top + 1] = state
        state[digit, band] ^= bit
        top += 1
        _place(stack[top], guessed, digit)
    return count


@njit(cache=True)
def make_minimal(question: np.ndarray, order: np.ndarray) -> None:
    """Take givens away, in place and in that order, while there is but one solution."""
    two = np.empty((2, CELLS), np.uint8)
    for cell in order:
        digit = question[cell]
        if digit:
            question[cell] = 0
            if solve(question, two) > 1:
                question[cell] = digit


@njit(cache=True)
def _candidates(state: np.ndarray) -> np.ndarray:
    """Digits and cells, [N, 2] int64, of the candidates of cells that are not settled."""
    found, count = np.empty((SIDE * CELLS, 2), np.int64), 0
    for digit in range(SIDE):
        for band in range(3):
            cells = state[digit, band] & state[OPEN, band]
            while cells:
                found[count] = digit, band * BAND + _lowest(cells)
                count += 1
                cells &= cells - 1
    return found[:count]


@njit(cache=True)
def settled_share(question: np.ndarray, most: float) -> float:
    """Of the cells that singles leave open, the share that assuming a candidate there settles.

    That is the mean over their candidates; one that singles then refute settles all.

    Args:
        question: [81] uint8, 0 is blank; it has a solution.
        most: 1 is returned where the mean is larger.

    Returns:
        The mean, 1 where singles solve the puzzle.
    """
    state, trial = np.empty((OPEN + 1, 3), np.int32), np.empty((OPEN + 1, 3), np.int32)
    _read(question, state)
    _settle(state)
    left, candidates, settled = _unsettled(state), _candidates(state), 0
    for digit, cell in candidates:
        trial[:] = state
        _place(trial, cell, digit)
        settled += left
        if _settle(trial):
            settled -= _unsettled(trial)
        if settled > most * len(candidates) * left:
            return 1.0
    return settled / (len(candidates) * left) if left else 1.0


@njit(cache=True)
def needs_nested_trials(question: np.ndarray) -> bool:
    """Whether candidates are left when all that assuming and singles refute are struck out.

    Such puzzles are beyond trial and error of depth 1 (Denis Berthier's T&E(1)): what refutes a
    candidate of theirs is an assumption within an assumption.

    Args:
        question: [81] uint8, 0 is blank; it has a solution.
    """
    state = np.empty((OPEN + 1, 3), np.int32)
    _read(question, state)
    while True:
        _settle(state)
        if not _unsettled(state):
            return False
        before, trial, struck = state.copy(), state.copy(), False
        for digit, cell in _candidates(before):
            trial[:] = before
            _place(trial, cell, digit)
            if not _settle(trial):
                state[digit, cell // BAND] ^= 1 << cell % BAND
                struck = True
        if not struck:
            return True
