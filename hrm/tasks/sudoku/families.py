"""Minimal puzzles: of no matter how many guesses, or of wanted ones, found by walks.

Hard puzzles are rare among random ones, and lie near other hard ones. So a family of puzzles is a
walk: a step adds a few cells to the givens of a minimal puzzle and takes away what is superfluous
then. It stands where it leads no further away from the wanted guesses than the walk was before.

How often the plain search guesses depends on where it begins, and a walk towards many guesses
finds puzzles in which it is unlucky, rather than hard ones. So the guesses of several versions of a
puzzle, with rows, columns and digits exchanged, may count instead; the puzzle is then given in a
version that needs as many as are wanted itself. Such puzzles are rarer: that walk is longer, takes
some steps away from them, and its families are larger.

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
PATIENCE_FOR_VERSIONS = 3000  # likewise, where the guesses of versions count
STRAY = 0.15  # mean of how much further away such a walk's step may lead, in doublings
SHORT = 0.5  # doublings by which the mean of the versions may be short of the wanted guesses
MOST_DEMANDED = (
    48  # guesses of the mean at most; of 64 and more a walk takes minutes to find the first
)


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
    patience, short = (PATIENCE_FOR_VERSIONS, SHORT) if several else (PATIENCE, 0.0)
    fewest, most = family.band
    wanted = (min(fewest, MOST_DEMANDED), most) if several else family.band
    found: set[Puzzle] = set()
    stale = patience
    while len(found) < family.count:
        if stale == patience:
            grid, given = _begin(family.box_shape, rng, family.versions)
            guesses = grid.guesses(given)
            distance = nearest = _distance(guesses, wanted, short)
            moves = stale = 0
        puzzle = None
        if distance == 0 and moves >= MOVES and grid.puzzle(given) not in found:
            fitting = [n for n, count in enumerate(guesses) if not _distance([count], family.band)]
            if fitting:
                puzzle = grid.puzzle(given, fitting[0])
                found.add(grid.puzzle(given))
                moves = stale = 0
        yield puzzle
        stale += 1
        new = grid.neighbour(given, rng)
        if (new == given).all():
            continue
        new_guesses = grid.guesses(new)
        new_distance = _distance(new_guesses, wanted, short)
        if new_distance < nearest:
            nearest, stale = new_distance, 0
        if new_distance <= distance + (STRAY * rng.expovariate(1) if several else 0):
            given, guesses, distance, moves = new, new_guesses, new_distance, moves + 1


def _distance(guesses: Sequence[int], band: Band, short: float = 0.0) -> float:
    """How often guesses have to double, or to be halved, until their geometric mean is in the band.

    One is added to each, so that there is a mean where none is needed.

    Args:
        short: doublings that may be missing.
    """
    mean = sum(math.log2(1 + count) for count in guesses) / len(guesses)
    fewest, most = (math.log2(1 + count) for count in band)
    return max(fewest - short - mean, mean - most, 0.0)


def _begin(
    box_shape: BoxShape, rng: random.Random, versions: int = 1
) -> tuple["_Grid", np.ndarray]:
    """A random grid and the givens, [cells] bool, of a minimal puzzle."""
    deadline = time.monotonic() + generator.PATIENCE_SECONDS
    while True:
        grid = _Grid(solved_grid(box_shape, rng), box_shape)
        if versions > 1:
            grid.add_versions(versions, rng.getrandbits(64))
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

    def add_versions(self, count: int, seed: int) -> None:
        """Until there are so many, the grid as it is among them."""
        rng = np.random.default_rng(seed)
        places, names = random_symmetries(rng, count - 1, self._box_shape)
        self._places = np.concatenate([self._places, places])
        self._names = np.concatenate([self._names, names])

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
