"""How hard a Sudoku is for a plain search: how often it must guess.

Two rules are applied until nothing changes: a cell with one candidate is settled (naked single),
and a digit with one place in a row, column or box belongs there (hidden single). Where that does
not end in a solution, the search guesses: in the cell with the fewest candidates (the first of
them, row by row) the lowest digit; if that leads to a contradiction the digit is struck out there
and the rules go on. All puzzles take their steps side by side.

Shapes: N puzzles, M of them still running, U units (rows, columns, boxes) of `side` cells each.
"""

import numpy as np

from hrm.progress import Progress
from hrm.tasks.sudoku.rules import BoxShape, units

MOST_GUESSES = 1000

Stacks = list[list[np.ndarray]]  # of each puzzle: what remains to be tried, newest last


def count_guesses(
    questions: np.ndarray, box_shape: BoxShape, most: int = MOST_GUESSES
) -> tuple[np.ndarray, np.ndarray]:
    """Guesses until the first solution, wrong ones included; 0: singles alone solve the puzzle.

    Args:
        questions: [N, cells] integers, 0 is blank, 1..side the digits.
        most: the search is given up where it would need more.

    Returns:
        guesses: [N] int32; `most + 1` where it was given up, -1 where there is no solution.
        solutions: [N, cells] uint8; 0 everywhere where none was found.
    """
    members, units_of = units(box_shape)
    side = members.shape[1]
    full = np.uint32((1 << side) - 1)
    bits = np.append(full, np.uint32(1) << np.arange(side, dtype=np.uint32)).astype(np.uint32)
    guesses = np.zeros(len(questions), np.int32)
    solutions = np.zeros(questions.shape, np.uint8)
    stacks: Stacks = [[] for _ in questions]
    running = np.arange(len(questions))
    states = bits[questions]
    progress = Progress("puzzles rated", len(questions))
    while len(running):
        settled, contradiction = _apply_singles(states, members, units_of, full)
        stable = ~contradiction & (settled == states).all(axis=1)
        solved = stable & (_count_bits(settled) == 1).all(axis=1)
        solutions[running[solved]] = np.log2(settled[solved]).astype(np.uint8) + 1
        going = ~solved
        for row in np.flatnonzero(contradiction):
            stack = stacks[running[row]]
            if stack:
                settled[row] = stack.pop()
            else:
                guesses[running[row]], going[row] = -1, False
        to_guess = np.flatnonzero(stable & ~solved)
        guesses[running[to_guess]] += 1
        going[to_guess] = guesses[running[to_guess]] <= most
        _guess(settled, to_guess, [stacks[p] for p in running[to_guess]])
        running, states = running[going], settled[going]
        progress.update(len(going) - len(running))
    progress.close()
    return guesses, solutions


def _apply_singles(
    states: np.ndarray, units: np.ndarray, units_of: np.ndarray, full: np.uint32
) -> tuple[np.ndarray, np.ndarray]:
    """One round of both rules.

    Args:
        states: [M, cells] uint32, a bit for each candidate.

    Returns:
        The new states, and which of them contradict themselves, [M] bool.
    """
    singles = np.where(states & (states - np.uint32(1)), np.uint32(0), states)
    _, taken_once, taken_twice = _digits_in_units(singles, units)
    present, once, _ = _digits_in_units(states, units)
    contradiction = (present != full).any(axis=1) | taken_twice.any(axis=1)
    taken = np.bitwise_or.reduce(taken_once[:, units_of], axis=2)
    result = np.where(singles, singles, states & ~taken)
    hidden = result & np.bitwise_or.reduce(once[:, units_of], axis=2)
    contradiction |= (hidden & (hidden - np.uint32(1))).any(axis=1)
    result = np.where(hidden, hidden, result)
    return result, contradiction | (result == 0).any(axis=1)


def _digits_in_units(
    states: np.ndarray, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits that occur in a unit's cells at all, exactly once, and more often: [M, U] each."""
    present = np.zeros((len(states), len(units)), np.uint32)
    twice = np.zeros_like(present)
    for cells in units.T:
        here = states[:, cells]
        twice |= present & here
        present |= here
    return present, present & ~twice, twice


def _guess(states: np.ndarray, rows: np.ndarray, stacks: Stacks) -> None:
    """Settle one cell of each of `rows` in place; what is left if that is wrong goes on a stack."""
    candidates = _count_bits(states[rows])
    cells = np.where(candidates > 1, candidates, np.uint8(255)).argmin(axis=1)
    chosen = states[rows, cells]
    lowest = chosen & (~chosen + np.uint32(1))
    states[rows, cells] = chosen ^ lowest
    for row, stack in zip(rows, stacks, strict=True):
        stack.append(states[row].copy())
    states[rows, cells] = lowest


def _count_bits(states: np.ndarray) -> np.ndarray:
    counts: np.ndarray = np.bitwise_count(states)
    return counts
