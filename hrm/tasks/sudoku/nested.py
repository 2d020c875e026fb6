"""9x9 Sudokus that need trials within trials, found by populations that climb.

What makes a puzzle hard wherever one begins is that assuming a candidate settles few other cells.
A population of minimal puzzles climbs towards that: a step takes a given away from one of them,
lists the solutions that there are then, and adds what makes one of these the only one again.
Importing this module needs numba; compiled code is kept on disk.
"""

import random
from bisect import insort
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numba import njit

from hrm.signals import holding_signals
from hrm.tasks.sudoku.bitboard import (
    CELLS,
    SIDE,
    make_minimal,
    needs_nested_trials,
    settled_share,
    solve,
)
from hrm.tasks.sudoku.generator import Puzzle, solved_grid

MOST_SOLUTIONS = 200  # with a given less; puzzles that have more are left alone
TARGETS = 30  # solutions that more than one given is added for
MOST_FOUND = 64  # puzzles of a step

POPULATION, FIRST = 50, 5  # puzzles at most, and random ones to begin with
MOST_ALIKE = 8  # of them with the same answer
EASIEST = 0.99  # the largest settled share while there is room
GOAL = 0.045  # settled share at which a climb ends
PATIENCE = 400  # steps that lead no higher, before it ends, times the settled share
GAIN = 0.001  # of the settled share, that is higher

MOST_RELATED = 8  # puzzles around one that needs nested trials
EASIEST_NESTED = 0.12  # the largest settled share of theirs
RELATED_PATIENCE = 400  # steps that find none
ORIGIN_PATIENCE = 100  # the same, around a puzzle that was given


class Found(NamedTuple):
    """N puzzles that a step found, or room for them."""

    shares: np.ndarray  # [N] float64, their settled shares
    questions: np.ndarray  # [N, 81] uint8, 0 is blank
    answers: np.ndarray  # [N, 81] uint8


def neighbours(question: np.ndarray, most: float, rng: np.random.Generator) -> Found:
    """Minimal puzzles with all givens of another one but one, random, and some more.

    Args:
        question: [81] uint8, 0 is blank.
        most: the largest settled share of theirs.
    """
    with holding_signals():
        return _neighbours(question, most, rng)


@njit(cache=True)
def _neighbours(question: np.ndarray, most: float, rng: np.random.Generator) -> Found:
    fewer, givens = question.copy(), np.flatnonzero(question)
    room = Found(
        np.empty(MOST_FOUND),
        np.empty((MOST_FOUND, CELLS), np.uint8),
        np.empty((MOST_FOUND, CELLS), np.uint8),
    )
    if len(givens) == 0:
        return _first(0, room)
    dropped = givens[rng.integers(0, len(givens))]
    fewer[dropped] = 0
    solutions = np.empty((MOST_SOLUTIONS, CELLS), np.uint8)
    count = solve(fewer, solutions)
    if count == MOST_SOLUTIONS:
        return _first(0, room)
    times = np.zeros((CELLS, SIDE + 1), np.int32)
    last = np.zeros((CELLS, SIDE + 1), np.int32)
    for number in range(count):
        for cell in range(CELLS):
            digit = solutions[number, cell]
            times[cell, digit] += 1
            last[cell, digit] = number
    kept = 0
    for cell in range(CELLS):
        for digit in range(1, SIDE + 1):
            if times[cell, digit] == 1 and (cell != dropped or digit != question[cell]):
                new = fewer.copy()
                new[cell] = digit
                kept = _keep(new, solutions[last[cell, digit]], most, rng, room, kept)
    for target in rng.integers(0, count, TARGETS):
        new = fewer.copy()
        if _single_out(target, solutions[:count], new, rng) > 1:
            kept = _keep(new, solutions[target], most, rng, room, kept)
    return _first(kept, room)


@njit(cache=True)
def _first(count: int, room: Found) -> Found:
    return Found(room.shares[:count], room.questions[:count], room.answers[:count])


@njit(cache=True)
def _single_out(
    number: int, solutions: np.ndarray, question: np.ndarray, rng: np.random.Generator
) -> int:
    """Add givens, in place, until one of the solutions is the only one; how many?"""
    others, target = np.arange(len(solutions)), solutions[number]
    others[number] = len(solutions) - 1
    left, added = len(solutions) - 1, 0
    while left:
        differing = np.flatnonzero(solutions[others[rng.integers(0, left)]] != target)
        cell = differing[rng.integers(0, len(differing))]
        question[cell] = target[cell]
        added += 1
        still = 0
        for place in range(left):
            if solutions[others[place], cell] == target[cell]:
                others[still] = others[place]
                still += 1
        left = still
    return added


@njit(cache=True)
def _keep(
    question: np.ndarray,
    answer: np.ndarray,
    most: float,
    rng: np.random.Generator,
    room: Found,
    kept: int,
) -> int:
    """Write a puzzle, made minimal, behind those kept, if it is hard enough and there is room."""
    if kept == MOST_FOUND or settled_share(question, most) > most:
        return kept
    make_minimal(question, rng.permutation(CELLS))
    share = settled_share(question, most)
    if share > most:
        return kept
    room.shares[kept], room.questions[kept], room.answers[kept] = share, question, answer
    return kept + 1


class Member(NamedTuple):
    """A puzzle of a population; the harder, the smaller."""

    share: float  # settled
    number: int  # in the order in which they came
    question: np.ndarray
    answer: np.ndarray


class Population:
    """The hardest minimal puzzles of a climb, the hardest first."""

    def __init__(self, rng: np.random.Generator):
        self.members: list[Member] = []
        self._rng = rng
        self._known: set[bytes] = set()

    def step(self) -> None:
        """Another random puzzle, or what is near one of the members."""
        if len(self.members) < FIRST:
            answer = np.array(solved_grid((3, 3), random.Random(self._rng.bytes(8))), np.uint8)
            question = answer.copy()
            make_minimal(question, self._rng.permutation(CELLS))
            self._join(settled_share(question, 1.0), question, answer)
            return
        harder_more_often = int(self._rng.random() ** 2 * len(self.members))
        full = len(self.members) == POPULATION
        most = self.members[-1].share if full else EASIEST
        question = self.members[harder_more_often].question
        for found in zip(*neighbours(question, most, self._rng), strict=True):
            self._join(*found)

    def _join(self, share: float, question: np.ndarray, answer: np.ndarray) -> None:
        if question.tobytes() in self._known:
            return
        self._known.add(question.tobytes())
        new = Member(share, len(self._known), question, answer)
        alike = [place for place, other in enumerate(self.members) if _have_same_answer(new, other)]
        full = len(self.members) == POPULATION
        if len(alike) == MOST_ALIKE or full:
            easiest = alike[-1] if len(alike) == MOST_ALIKE else -1
            if self.members[easiest].share <= share:
                return
            del self.members[easiest]
        insort(self.members, new, key=lambda member: member[:2])


def _have_same_answer(one: Member, other: Member) -> bool:
    return one.answer.tobytes() == other.answer.tobytes()


def climb(rng: np.random.Generator) -> Iterator[list[Member]]:
    """Yields after each step the puzzles found so far that need nested trials: none for long.

    When it gets no higher, others are looked for around the hardest one, if it needs such trials,
    until there are MOST_RELATED.
    """
    population = Population(rng)
    lowest, stale = 1.0, 0
    while lowest > GOAL and stale < PATIENCE / lowest:
        population.step()
        yield []
        stale += 1
        if population.members[0].share < lowest - GAIN:
            lowest, stale = population.members[0].share, 0
    nested = (member for member in population.members if needs_nested_trials(member.question))
    for hardest in islice(nested, 1):
        yield from related(hardest, MOST_RELATED, EASIEST_NESTED, RELATED_PATIENCE, rng)


def related(
    origin: Member, count: int, most: float, patience: int, rng: np.random.Generator
) -> Iterator[list[Member]]:
    """Yields after each step a puzzle and those found around it, until there are `count`.

    They need nested trials if it does.

    Args:
        most: the largest settled share of theirs.
        patience: steps in a row that find none, before it ends.
    """
    nested = needs_nested_trials(origin.question)
    found, stale = [origin], 0
    while len(found) < count and stale < patience:
        stale += 1
        one = found[rng.integers(0, len(found))]
        near = neighbours(one.question, most, rng)
        for place in rng.permutation(len(near.shares)):
            share, question, answer = (of[place] for of in near)
            is_new = not any((question == other.question).all() for other in found)
            if is_new and (not nested or needs_nested_trials(question)):
                found.append(Member(share, len(found), question, answer))
                stale = 0
                break
        yield found


class Origin(NamedTuple):
    """A puzzle to look around for others."""

    puzzle: Puzzle
    most: int  # are to be found
    stream: tuple[int, int]  # random numbers of its own


def around(origin: Origin) -> Iterator[list[Puzzle]]:
    """One list of minimal puzzles around one, as hard or harder: nested trials if it needs them."""
    question, answer = (np.frombuffer(grid, np.uint8).copy() for grid in origin.puzzle)
    member = Member(settled_share(question, 1.0), 0, question, answer)
    most, rng = max(member.share, EASIEST_NESTED), np.random.default_rng(origin.stream)
    [found] = deque(related(member, origin.most + 1, most, ORIGIN_PATIENCE, rng), maxlen=1)
    yield [(one.question.tobytes(), one.answer.tobytes()) for one in found[1:]]


def get_ready() -> None:
    """Have what a climb needs compiled, once for all processes. Signals wait for up to seconds."""
    population = Population(np.random.default_rng(0))
    with holding_signals():
        for _ in range(FIRST):
            population.step()
    question = population.members[0].question
    neighbours(question, 0.0, np.random.default_rng(0))
    with holding_signals():
        needs_nested_trials(question)
