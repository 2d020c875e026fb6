"""Minimal puzzles: of no matter how many guesses, or of wanted ones, found by walks.

Hard puzzles are rare among random ones, and lie near other hard ones. So a family of puzzles is a
walk: a step adds a few cells to the givens of a minimal puzzle and takes away what is superfluous
then. It stands where it leads no further away from the wanted guesses than the walk was before.

A family follows from its description alone, whichever process makes it. Importing this module
needs numba.
"""

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hrm.errors import UserError
from hrm.tasks.sudoku import generator, search
from hrm.tasks.sudoku.difficulty import MOST_GUESSES
from hrm.tasks.sudoku.generator import Puzzle, solved_grid
from hrm.tasks.sudoku.minimal import Band
from hrm.tasks.sudoku.rules import BoxShape

MOST_ADDED = 3  # givens in a step
MOVES = 3  # from one puzzle of a family to the next one
PATIENCE = 500  # steps that lead no nearer, before the walk goes on in another grid
BUDGET = 200_000  # guesses to make a puzzle minimal; seconds
REPORT_SECONDS = 0.25


@dataclass(frozen=True)
class Family:
    """`count` puzzles of one band, most of them with the same answer; without a band, each with
    an answer of its own. They follow from the text `stream`."""

    box_shape: BoxShape
    band: Band | None
    count: int
    stream: str


class Report(NamedTuple):
    """What was found since the last one, of so many puzzles that were looked at."""

    puzzles: list[Puzzle]
    tried: int


def make(family: Family) -> Iterator[Report]:
    """A family's puzzles, with a report a few times a second.

    Raises:
        UserError: the box shape is out of reach.
    """
    report, due = Report([], 0), time.monotonic() + REPORT_SECONDS
    for puzzle in _walk(family) if family.band else _unrelated(family):
        puzzles = [*report.puzzles, puzzle] if puzzle else report.puzzles
        report = Report(puzzles, report.tried + 1)
        if time.monotonic() >= due:
            yield report
            report, due = Report([], 0), time.monotonic() + REPORT_SECONDS
    yield report


def _unrelated(family: Family) -> Iterator[Puzzle]:
    rng = random.Random(family.stream)
    for _ in range(family.count):
        grid, given = _begin(family.box_shape, rng)
        yield grid.puzzle(given)


def _walk(family: Family) -> Iterator[Puzzle | None]:
    """Yields at each step: a puzzle of the family, or None."""
    assert family.band is not None
    rng = random.Random(family.stream)
    found: set[Puzzle] = set()
    stale = PATIENCE
    while len(found) < family.count:
        if stale == PATIENCE:
            grid, given = _begin(family.box_shape, rng)
            distance = _distance(grid.guesses(given), family.band)
            moves = stale = 0
        puzzle = None
        if distance == 0 and moves >= MOVES and grid.puzzle(given) not in found:
            puzzle = grid.puzzle(given)
            found.add(puzzle)
            moves = stale = 0
        yield puzzle
        stale += 1
        new = grid.neighbour(given, rng)
        if (new == given).all():
            continue
        new_distance = _distance(grid.guesses(new), family.band)
        if new_distance < distance:
            stale = 0
        if new_distance <= distance:
            given, distance, moves = new, new_distance, moves + 1


def _distance(guesses: int, band: Band) -> float:
    """How often guesses have to double, or to be halved, to be in the band."""
    fewest, most = band
    nearest = min(max(guesses, fewest), most)
    return abs(math.log2((1 + guesses) / (1 + nearest)))


def _begin(box_shape: BoxShape, rng: random.Random) -> tuple["_Grid", np.ndarray]:
    """A random grid and the givens, [cells] bool, of a minimal puzzle."""
    deadline = time.monotonic() + generator.PATIENCE_SECONDS
    while True:
        grid = _Grid(solved_grid(box_shape, rng), box_shape)
        order = list(range(len(grid.digits)))
        rng.shuffle(order)
        given = grid.made_minimal(np.ones(len(order), bool), order)
        if given is not None:
            return grid, given
        if time.monotonic() > deadline:
            box = f"{box_shape[0]}x{box_shape[1]}"
            raise UserError(
                f"--generate {box} --givens minimal: out of reach; no such puzzle was found in "
                f"{generator.PATIENCE_SECONDS} s; ask for more givens or smaller boxes"
            )


class _Grid:
    """A solved grid and the minimal puzzles that it is the answer of."""

    def __init__(self, digits: list[int], box_shape: BoxShape):
        self.digits = np.array(digits, np.uint8)
        self._box_shape = box_shape
        self._board = search.new_board(self.digits, box_shape)

    def puzzle(self, given: np.ndarray) -> Puzzle:
        return (self.digits * given).tobytes(), self.digits.tobytes()

    def guesses(self, given: np.ndarray) -> int:
        """As `count_guesses` counts them."""
        start = search.as_state(self.digits * given, self._box_shape)
        return search.solve(start, self._board, MOST_GUESSES)

    def neighbour(self, given: np.ndarray, rng: random.Random) -> np.ndarray:
        """The givens of a minimal puzzle near by, maybe of the same one."""
        order = np.flatnonzero(given).tolist()
        rng.shuffle(order)
        added = rng.sample(np.flatnonzero(~given).tolist(), rng.randint(1, MOST_ADDED))
        more = given.copy()
        more[added] = True
        fewer = self.made_minimal(more, order + added)
        return given if fewer is None else fewer

    def made_minimal(self, given: np.ndarray, order: list[int]) -> np.ndarray | None:
        """What is left of the givens; None where that would take too long to find out."""
        given = given.copy()
        done = search.make_minimal(given, np.array(order), self._board, BUDGET)
        return given if done else None
