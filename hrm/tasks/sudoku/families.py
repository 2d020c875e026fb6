"""Minimal puzzles: of no matter how many guesses, or of wanted ones, found by walks.

Hard puzzles are rare among random ones, and lie near other hard ones. So a family of puzzles is a
walk: a step adds a few cells to the givens of a minimal puzzle and takes away what is superfluous
then. It stands where it leads no further away from the wanted guesses than the walk was before.

How often the plain search guesses depends on where it begins, and a walk towards many guesses
finds puzzles in which it is unlucky, rather than hard ones: almost all of them are solved where
each candidate is assumed in turn and singles refute it. Those of Sudoku-Extreme that need several
guesses are not: they need trials within trials. As walks hardly ever come to one, such puzzles are
looked for around others, at first those of `nested.txt`, which `seeds.py` found: in their solved
grids as above, and in others, where a given is dropped, another solution taken, and the puzzle that
has this one made minimal. Each is given in a version, with rows, columns and digits exchanged,
whose guesses are wanted.

A family follows from its description alone, whichever process makes it. Importing this module
needs numba.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hrm.errors import UserError
from hrm.tasks.sudoku import generator, search
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

# Puzzles that need nested trials
OTHER_ANSWER = 0.5  # of the steps
OPEN = 0.12  # the largest settled share of such a puzzle
MOST_ALIKE = 8  # puzzles of a family with the same answer
VERSIONS = 16  # of a puzzle, in which guesses may be as wanted
MOST_TO_ANSWER = 300  # guesses to another solution


@dataclass(frozen=True)
class Family:
    """So many puzzles of each band, which follow from the text `stream`.

    Where any will do, each has an answer of its own; of the others several share one. There is one
    band, or, with `seeds`, which are questions, several: then all need nested trials.
    """

    box_shape: BoxShape
    wanted: tuple[tuple[Band, int], ...]
    stream: str
    seeds: tuple[str, ...] = ()


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
    if family.seeds:
        yield from _nested(family, rng)
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
        grid, given = begin(box_shape, rng)
        yield grid.puzzle(given)


def _walk(box_shape: BoxShape, band: Band, rng: random.Random) -> Iterator[Puzzle | None]:
    found: set[Puzzle] = set()
    stale = PATIENCE
    while True:
        if stale == PATIENCE:
            grid, given = begin(box_shape, rng)
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


def _nested(family: Family, rng: random.Random) -> Iterator[Made | None]:
    missing = dict(family.wanted)
    pool = [_read(question, family.box_shape, rng) for question in family.seeds]
    known = {grid.puzzle(given) for grid, given in pool}
    alike: Counter[bytes] = Counter()
    while any(missing.values()):
        newer_more_often = int(math.sqrt(rng.random()) * len(pool))
        grid, given = near(pool[newer_more_often], rng)
        question, answer = puzzle = grid.puzzle(given)
        made = None
        if puzzle not in known and alike[answer] < MOST_ALIKE and grid.is_nested(given):
            pool.append((grid, given))
            known.add(puzzle)
            alike[answer] += 1
            made = grid.version_in([band for band in missing if missing[band]], given, rng)
        if made:
            missing[made.band] -= 1
        yield made


def near(spot: "Spot", rng: random.Random) -> "Spot":
    """Another one or the same, with the same answer or another one."""
    grid, given = spot
    if rng.random() < OTHER_ANSWER:
        return grid.other_answer(given, rng) or spot
    return grid, grid.neighbour(given, rng)


def _read(question: str, box_shape: BoxShape, rng: random.Random) -> "Spot":
    """A version of a puzzle."""
    puzzle = np.array([int(character) for character in question.replace(".", "0")], np.uint8)
    board = search.new_board(puzzle, box_shape)
    search.solve(search.as_state(puzzle, box_shape), board, MOST_GUESSES)
    answer = np.log2(board.stack[0]).astype(np.uint8) + 1
    grid = Grid(answer.tolist(), box_shape)
    [version] = grid.versions(puzzle > 0, 1, rng)
    return version


def _distance(guesses: int, band: Band) -> float:
    """How often the guesses have to double, or to be halved, until they are in the band.

    One is added, so that there is a distance from none.
    """
    fewest, own, most = (math.log2(1 + count) for count in (band[0], guesses, band[1]))
    return max(fewest - own, own - most, 0.0)


def begin(box_shape: BoxShape, rng: random.Random) -> tuple["Grid", np.ndarray]:
    """A random grid and the givens, [cells] bool, of a minimal puzzle."""
    deadline = time.monotonic() + generator.PATIENCE_SECONDS
    while True:
        grid = Grid(solved_grid(box_shape, rng), box_shape)
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


class Grid:
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

    def is_nested(self, given: np.ndarray) -> bool:
        """Whether it needs nested trials, and few cells are settled by others."""
        if self.settled_share(given, OPEN) > OPEN:
            return False
        start = search.as_state(self.digits * given, self._box_shape)
        return search.needs_nested_trials(start, self._board)

    def settled_share(self, given: np.ndarray, most: float) -> float:
        start = search.as_state(self.digits * given, self._box_shape)
        return search.settled_share(start, self._board, most)

    def version_in(self, bands: list[Band], given: np.ndarray, rng: random.Random) -> Made | None:
        """A version of the puzzle whose guesses are in one of the bands, if there is one soon."""
        for grid, new in self.versions(given, VERSIONS, rng):
            guesses = grid.guesses(new)
            for band in bands:
                if band[0] <= guesses <= band[1]:
                    return Made(grid.puzzle(new), band)
        return None

    def versions(self, given: np.ndarray, count: int, rng: random.Random) -> Iterator["Spot"]:
        for place, digits in self._symmetries(count, rng):
            grid = Grid(digits[self.digits][place].tolist(), self._box_shape)
            yield grid, given[place]

    def other_answer(self, given: np.ndarray, rng: random.Random) -> "Spot | None":
        """A minimal puzzle with other answer that has all of the givens but one, and some more."""
        fewer = given.copy()
        fewer[rng.choice(np.flatnonzero(given).tolist())] = False
        [(place, digits)] = self._symmetries(1, rng)  # a search elsewhere comes to other solutions
        start = search.as_state(digits[self.digits * fewer][place], self._box_shape)
        if not 0 <= search.solve(start, self._board, MOST_TO_ANSWER) <= MOST_TO_ANSWER:
            return None
        solution = np.log2(self._board.stack[0]).astype(np.uint8) + 1
        answer = np.argsort(digits).astype(np.uint8)[solution[np.argsort(place)]]
        if (answer == self.digits).all():
            return None
        grid = Grid(answer.tolist(), self._box_shape)
        kept, added = np.flatnonzero(fewer).tolist(), np.flatnonzero(~fewer).tolist()
        rng.shuffle(kept)
        rng.shuffle(added)
        new = grid.made_minimal(np.ones(len(answer), bool), added + kept)
        return None if new is None else (grid, new)

    def _symmetries(self, count: int, rng: random.Random) -> Iterator[tuple[np.ndarray, ...]]:
        generator = np.random.default_rng(rng.getrandbits(64))
        return zip(*random_symmetries(generator, count, self._box_shape), strict=True)

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


Spot = tuple[Grid, np.ndarray]  # a minimal puzzle: its answer and its givens, [cells] bool
