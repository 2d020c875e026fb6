"""Minimal puzzles: of no matter how many guesses, or of wanted ones, found by walks.

Hard puzzles are rare among random ones, and lie near other hard ones. So a family of puzzles is a
walk: a step adds a few cells to the givens of a minimal puzzle and takes away what is superfluous
then. It stands where it leads no further away from the wanted guesses than the walk was before.

How often the plain search guesses depends on where it begins, and a walk towards many guesses
finds puzzles in which it is unlucky, rather than hard ones. So the guesses of several versions of a
puzzle, with rows, columns and digits exchanged, may count instead, others after each step, since a
walk also finds what is hard in those that it looks at alone; the puzzle is then given in a version
that needs as many as are wanted itself. Such puzzles are rarer: that walk is longer, takes some
steps away from them, and its families are larger. Where many guesses are wanted it climbs on as
far as it gets, since what is just hard enough by the versions at hand is easier by others.

A family follows from its description alone, whichever process makes it. Importing this module
needs numba.
"""

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hrm.errors import UserError
from hrm.tasks.sudoku import generator, search
from hrm.tasks.sudoku.difficulty import MOST_GUESSES
from hrm.tasks.sudoku.generator import Puzzle, solved_grid
from hrm.tasks.sudoku.minimal import Band
from hrm.tasks.sudoku.rules import BoxShape
from hrm.tasks.sudoku.symmetry import random_symmetries

MOST_ADDED = 3  # givens in a step
MOVES = 3  # from one puzzle of a family to the next one
PATIENCE = 500  # steps that lead no nearer, before the walk goes on in another grid
BUDGET = 200_000  # guesses to make a puzzle minimal; seconds
REPORT_SECONDS = 0.25
PATIENCE_FOR_VERSIONS = 5_000  # likewise, where the guesses of versions count
STRAY = 0.1  # mean of how much further away such a walk's step may lead, in doublings
LUCK = 500  # steps that are not taken, before other versions are looked at
HARD = 16  # where so many guesses are wanted or more, the mean of versions is at least
LEAST_OF_HARD = 32  # and the walk climbs on from there


@dataclass(frozen=True)
class Family:
    """`count` puzzles of one band, most of them with the same answer; without a band, each with
    an answer of its own. They follow from the text `stream`.

    Where there are `versions`, the geometric mean of the guesses of so many counts.
    """

    box_shape: BoxShape
    band: Band | None
    count: int
    stream: str
    versions: int = 1


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
    rng, several = random.Random(family.stream), family.versions > 1
    patience = PATIENCE_FOR_VERSIONS if several else PATIENCE
    climbs = several and family.band[0] >= HARD
    wanted = (LEAST_OF_HARD, MOST_GUESSES) if climbs else family.band
    aim = (MOST_GUESSES, MOST_GUESSES) if climbs else wanted
    found: set[Puzzle] = set()
    stale = patience
    while len(found) < family.count:
        if stale == patience:
            grid, given = _begin(family.box_shape, rng)
            guesses = grid.guesses(given)
            distance = nearest = _distance(guesses, aim)
            moves = stale = stands = 0
        puzzle = None
        if moves >= MOVES and not _distance(guesses, wanted) and grid.puzzle(given) not in found:
            fitting = [n for n, count in enumerate(guesses) if not _distance([count], family.band)]
            if fitting:
                puzzle = grid.puzzle(given, fitting[0])
                found.add(grid.puzzle(given))
                moves = stale = 0
        yield puzzle
        stale += 1
        stands += 1
        new = grid.neighbour(given, rng)
        stray = STRAY * rng.expovariate(1) if several else 0.0
        if (new != given).any():
            new_guesses = grid.guesses(new)
            new_distance = _distance(new_guesses, aim)
            if new_distance < nearest:
                nearest, stale = new_distance, 0
            if new_distance <= distance + stray:
                given, guesses, distance = new, new_guesses, new_distance
                moves, stands = moves + 1, 0
        if several and stands % LUCK == 0:
            grid.draw_versions(family.versions, rng.getrandbits(64))
            guesses = grid.guesses(given)
            distance = _distance(guesses, aim)


def _distance(guesses: Sequence[int], band: Band) -> float:
    """How often guesses have to double, or to be halved, until their geometric mean is in the band.

    One is added to each, so that there is a mean where none is needed.
    """
    mean = sum(math.log2(1 + count) for count in guesses) / len(guesses)
    fewest, most = (math.log2(1 + count) for count in band)
    return max(fewest - mean, mean - most, 0.0)


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
        self._places = np.arange(len(digits))[None]
        self._names = np.arange(math.prod(box_shape) + 1, dtype=np.uint8)[None]

    def draw_versions(self, count: int, seed: int) -> None:
        """So many other ones; the first is always the grid as it is."""
        places, names = random_symmetries(np.random.default_rng(seed), count - 1, self._box_shape)
        self._places = np.concatenate([self._places[:1], places])
        self._names = np.concatenate([self._names[:1], names])

    def puzzle(self, given: np.ndarray, version: int = 0) -> Puzzle:
        names, place = self._names[version], self._places[version]
        return names[self.digits * given][place].tobytes(), names[self.digits][place].tobytes()

    def guesses(self, given: np.ndarray) -> list[int]:
        """Of each version, as `count_guesses` counts them."""
        puzzle, found = self.digits * given, []
        for names, place in zip(self._names, self._places, strict=True):
            start = search.as_state(names[puzzle][place], self._box_shape)
            found.append(search.solve(start, self._board, MOST_GUESSES))
        return found

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
