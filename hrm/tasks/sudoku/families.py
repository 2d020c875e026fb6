"""Minimal puzzles: of no matter how many guesses, or of wanted ones, found by walks.

Hard puzzles are rare among random ones, and lie near other hard ones. So a family of puzzles is a
walk: a step adds a few cells to the givens of a minimal puzzle and takes away what is superfluous
then. It stands where it leads no further away from the wanted guesses than the walk was before.

How often the plain search guesses depends on where it begins, and a walk towards many guesses
finds puzzles in which it is unlucky, rather than hard ones. So where hardness counts, a family
comes from the climbs of `nested.py`, few puzzles from each, as puzzles near each other are hard for
the same reason and teach little more than one of them. Each is given in a version, with rows,
columns and digits exchanged, whose guesses are wanted.

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
from hrm.tasks.sudoku import generator, nested, search
from hrm.tasks.sudoku.difficulty import MOST_GUESSES
from hrm.tasks.sudoku.generator import Puzzle, solved_grid
from hrm.tasks.sudoku.minimal import ANY, Band
from hrm.tasks.sudoku.rules import BoxShape
from hrm.tasks.sudoku.symmetry import random_symmetries

MOST_ADDED = 3  # givens in a step
MOVES = 3  # from one puzzle of a family to the next one
PATIENCE = 500  # steps that lead no nearer, before the walk goes on in another grid
BUDGET = 200_000  # guesses to make a puzzle minimal; seconds
REPORT_SECONDS = 0.25

VERSIONS = 64  # of a puzzle from a climb, in which guesses may be as wanted


@dataclass(frozen=True)
class Family:
    """So many puzzles of each band, which follow from the text `stream`.

    Where any will do, each has an answer of its own; of the others several share one. There is one
    band, or, where they come from climbs, several.
    """

    box_shape: BoxShape
    wanted: tuple[tuple[Band, int], ...]
    stream: str
    climbs: bool = False


class Made(NamedTuple):
    puzzle: Puzzle
    band: Band


class Report(NamedTuple):
    """What was found since the last one, of so many puzzles that were looked at."""

    made: list[Made]
    tried: int


def make(family: Family) -> Iterator[Report]:
    """A family's puzzles, with a report a few times a second.

    Raises:
        UserError: the box shape is out of reach.
    """
    report, due = Report([], 0), time.monotonic() + REPORT_SECONDS
    for made in _steps(family):
        report = Report([*report.made, made] if made else report.made, report.tried + 1)
        if time.monotonic() >= due:
            yield report
            report, due = Report([], 0), time.monotonic() + REPORT_SECONDS
    yield report


def _steps(family: Family) -> Iterator[Made | None]:
    """Yields at each step: a puzzle of the family, or None."""
    rng = random.Random(family.stream)
    if family.climbs:
        yield from _climbs(family, rng)
        return
    [(band, count)] = family.wanted
    puzzles = (
        _walk(family.box_shape, band, rng) if band != ANY else _unrelated(family.box_shape, rng)
    )
    while count:
        puzzle = next(puzzles)
        count -= puzzle is not None
        yield Made(puzzle, band) if puzzle else None


def _unrelated(box_shape: BoxShape, rng: random.Random) -> Iterator[Puzzle]:
    while True:
        grid, given = _begin(box_shape, rng)
        yield grid.puzzle(given)


def _walk(box_shape: BoxShape, band: Band, rng: random.Random) -> Iterator[Puzzle | None]:
    found: set[Puzzle] = set()
    stale = PATIENCE
    while True:
        if stale == PATIENCE:
            grid, given = _begin(box_shape, rng)
            distance = nearest = _distance(grid.guesses(given), band)
            moves = stale = 0
        puzzle = grid.puzzle(given)
        if moves < MOVES or distance or puzzle in found:
            yield None
        else:
            found.add(puzzle)
            moves = stale = 0
            yield puzzle
        stale += 1
        new = grid.neighbour(given, rng)
        if (new != given).any():
            new_distance = _distance(grid.guesses(new), band)
            if new_distance < nearest:
                nearest, stale = new_distance, 0
            if new_distance <= distance:
                given, distance, moves = new, new_distance, moves + 1


def _climbs(family: Family, rng: random.Random) -> Iterator[Made | None]:
    missing = dict(family.wanted)
    while any(missing.values()):
        related: list[nested.Member] = []
        for found_so_far in nested.climb(np.random.default_rng(rng.getrandbits(64))):
            related = found_so_far
            yield None
        for found in related:
            grid = _Grid(found.answer.tolist(), family.box_shape)
            bands = [band for band, count in missing.items() if count]
            made = grid.version_in(bands, found.question > 0, rng) if bands else None
            if made:
                missing[made.band] -= 1
            yield made


def _distance(guesses: int, band: Band) -> float:
    """How often the guesses have to double, or to be halved, until they are in the band.

    One is added, so that there is a distance from none.
    """
    fewest, own, most = (math.log2(1 + count) for count in (band[0], guesses, band[1]))
    return max(fewest - own, own - most, 0.0)


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

    def version_in(self, bands: list[Band], given: np.ndarray, rng: random.Random) -> Made | None:
        """A version of the puzzle in the band that has fewest of its versions, if it has any."""
        generator = np.random.default_rng(rng.getrandbits(64))
        symmetries = random_symmetries(generator, VERSIONS, self._box_shape)
        found: dict[Band, list[Puzzle]] = {band: [] for band in bands}
        for place, digits in zip(*symmetries, strict=True):
            question, answer = digits[self.digits * given][place], digits[self.digits][place]
            start = search.as_state(question, self._box_shape)
            guesses = search.solve(start, self._board, MOST_GUESSES)
            for band in bands:
                if band[0] <= guesses <= band[1]:
                    found[band].append((question.tobytes(), answer.tobytes()))
        rare = min(bands, key=lambda band: len(found[band]) or math.inf)
        return Made(found[rare][0], rare) if found[rare] else None

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
