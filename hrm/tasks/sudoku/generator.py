"""Random Sudoku puzzles with one solution, made from random solved grids by taking cells away."""

import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hrm.errors import UserError
from hrm.progress import Progress
from hrm.tasks.sudoku.rules import BoxShape, units
from hrm.tasks.sudoku.symmetry import canonical_hash

DEFAULT_GIVENS = {(2, 2): (4, 7), (2, 3): (18, 18), (3, 2): (18, 18), (3, 3): (40, 40)}
FEWEST_GIVENS = {(2, 2): 4, (2, 3): 8, (3, 2): 8, (3, 3): 17}  # known to be the least
MAX_FAILURES_IN_A_ROW = 500
MAX_REPEATS_IN_A_ROW = 20_000
BATCH = 64
PATIENCE_SECONDS = 30  # for one puzzle; where that is not enough, many are out of reach
_NODES_PER_SIDE = 200

Unit = tuple[int, int, int]
Split = dict[bytes, bytes]  # answer by question
Puzzle = tuple[bytes, bytes]  # question and answer
Puzzles = tuple[np.ndarray, np.ndarray]  # questions and answers, [N, cells] uint8 each


class _OutOfTime(Exception):
    """The search for a puzzle takes too long."""


@dataclass(frozen=True)
class _Geometry:
    side: int
    units: tuple[Unit, ...]  # of each cell: its row, column and box among 3 * side units
    members: tuple[tuple[int, ...], ...]  # of each unit: its cells

    @property
    def all_digits(self) -> int:
        return (1 << self.side) - 1


@lru_cache
def _geometry(box_shape: BoxShape) -> _Geometry:
    members, units_of = (tuple(map(tuple, numbers.tolist())) for numbers in units(box_shape))
    return _Geometry(math.prod(box_shape), units_of, members)


def default_givens(box_shape: BoxShape) -> tuple[int, int]:
    half = math.prod(box_shape) ** 2 // 2
    return DEFAULT_GIVENS.get(box_shape, (half, half))


def generate_split(
    box_shape: BoxShape,
    num_train: int,
    num_test: int,
    givens: tuple[int, int] | None = None,
    seed: int = 0,
) -> tuple[Puzzles, Puzzles]:
    """Training and test puzzles; no test puzzle is equivalent to a training puzzle.

    Each class of equivalent puzzles belongs to one split, chosen at random when it first turns up.
    Questions within a split are distinct, but may be equivalent.

    Raises:
        UserError: `givens` cannot be met, or there are not enough different puzzles.
    """
    fewest, most = _checked_givens(box_shape, givens)
    rng = random.Random(f"{seed} {box_shape} {fewest}-{most}")
    what = f"--generate {box_shape[0]}x{box_shape[1]} --givens {fewest}-{most}"

    def batches() -> Iterator[list[Puzzle]]:
        while True:
            batch = []
            for _ in range(BATCH):
                batch.append(_one_puzzle(box_shape, fewest, most, rng))
                progress.update()
            yield batch

    with Progress("puzzles generated", num_train + num_test) as progress:
        return fill_splits(batches(), (num_train, num_test), box_shape, rng, progress, what)


def fill_splits(
    batches: Iterable[list[Puzzle]],
    wanted: tuple[int, int],
    box_shape: BoxShape,
    rng: random.Random,
    progress: Progress,
    what: str,
) -> tuple[Puzzles, Puzzles]:
    """Training and test puzzles out of batches, as `generate_split` describes them.

    Args:
        batches: without end.
        wanted: numbers of training and test puzzles.
        rng: chooses the split of a class.
        progress: is set to the number of puzzles that are taken.
        what: was asked for; of the message where there are not enough different puzzles.

    Raises:
        UserError: there are not enough different puzzles.
    """
    splits: tuple[Split, Split] = ({}, {})
    split_of_class: dict[int, int] = {}
    repeats = 0
    for batch in batches:
        for (question, answer), puzzle_class in zip(batch, classes(batch, box_shape), strict=True):
            missing = [want - len(split) for split, want in zip(splits, wanted, strict=True)]
            if sum(missing) == 0:
                break
            if puzzle_class not in split_of_class:
                split_of_class[puzzle_class] = _choose_split(missing, splits, rng)
            own = split_of_class[puzzle_class]
            if missing[own] == 0 or question in splits[own]:
                repeats += 1
            else:
                splits[own][question] = answer
                repeats = 0
        progress.set(sum(map(len, splits)))
        progress.update(0)
        if all(len(split) == want for split, want in zip(splits, wanted, strict=True)):
            break
        if repeats > MAX_REPEATS_IN_A_ROW:
            raise UserError(
                f"{what}: too few different puzzles for {wanted[0]} training and {wanted[1]} test "
                f"puzzles (found {len(splits[0])} and {len(splits[1])}); lower --num-train or "
                "--num-test, or widen --givens"
            )
    train, test = (as_arrays(split.items(), box_shape) for split in splits)
    return train, test


def classes(puzzles: Sequence[Puzzle], box_shape: BoxShape) -> list[int]:
    """A number for each puzzle, the same for all that are equal up to symmetry."""
    return canonical_hash(as_arrays(puzzles, box_shape)[0], box_shape).tolist()


def as_arrays(puzzles: Iterable[Puzzle], box_shape: BoxShape) -> Puzzles:
    """Questions and answers, [N, cells] uint8 each."""
    pairs = list(puzzles)
    questions, answers = (
        np.frombuffer(b"".join(pair[side] for pair in pairs), np.uint8).reshape(
            -1, math.prod(box_shape) ** 2
        )
        for side in range(2)
    )
    return questions, answers


def generate_puzzles(
    box_shape: BoxShape, count: int, givens: tuple[int, int] | None = None, seed: int = 0
) -> Puzzles:
    """`count` distinct puzzles: questions and answers, [count, cells] uint8.

    Raises:
        UserError: `givens` cannot be met, or there are not enough different puzzles.
    """
    return generate_split(box_shape, count, 0, givens, seed)[0]


def _checked_givens(box_shape: BoxShape, givens: tuple[int, int] | None) -> tuple[int, int]:
    fewest, most = default_givens(box_shape) if givens is None else givens
    box, cells = f"{box_shape[0]}x{box_shape[1]}", math.prod(box_shape) ** 2
    if not 0 <= fewest <= most <= cells:
        raise UserError(f"--givens {fewest}-{most}: must be MIN-MAX within 0-{cells} for {box}")
    least = FEWEST_GIVENS.get(box_shape, 0)
    if most < least:
        raise UserError(
            f"--givens {fewest}-{most}: no puzzle of {box} boxes with fewer than {least} givens "
            "has just one solution; ask for more"
        )
    return fewest, most


def _choose_split(missing: list[int], splits: tuple[Split, Split], rng: random.Random) -> int:
    """A new class goes where more is missing; a split that has nothing yet comes first."""
    empty = [own for own in range(2) if missing[own] and not splits[own]]
    if len(empty) == 1 and splits[1 - empty[0]]:
        return empty[0]
    return int(rng.randrange(sum(missing)) >= missing[0])


def _one_puzzle(box_shape: BoxShape, fewest: int, most: int, rng: random.Random) -> Puzzle:
    geometry = _geometry(box_shape)
    box = f"{box_shape[0]}x{box_shape[1]}"
    deadline = time.monotonic() + PATIENCE_SECONDS
    for _ in range(MAX_FAILURES_IN_A_ROW):
        answer = solved_grid(box_shape, rng)
        try:
            question = _take_away(geometry, answer, rng.randint(fewest, most), rng, deadline)
        except _OutOfTime:
            raise UserError(
                f"--generate {box} --givens {fewest}-{most}: out of reach; no such puzzle with one "
                f"solution was found in {PATIENCE_SECONDS} s; ask for more givens or smaller boxes"
            ) from None
        if sum(map(bool, question)) <= most:
            return bytes(question), bytes(answer)
    raise UserError(
        f"--givens {fewest}-{most}: found no such puzzle of {box} boxes with one solution in "
        f"{MAX_FAILURES_IN_A_ROW} attempts; ask for more givens"
    )


def solved_grid(box_shape: BoxShape, rng: random.Random) -> list[int]:
    """The digits of a random solved grid.

    Raises:
        UserError: none was found in time.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        return _solved_grid(_geometry(box_shape), rng, deadline)
    except _OutOfTime:
        side = math.prod(box_shape)
        raise UserError(
            f"--generate {box_shape[0]}x{box_shape[1]}: out of reach; no filled grid of "
            f"{side}x{side} cells was found in {PATIENCE_SECONDS} s; choose smaller boxes, such as "
            "4x4, or give your puzzles with --source-dir"
        ) from None


def _solved_grid(geometry: _Geometry, rng: random.Random, deadline: float) -> list[int]:
    budget = _NODES_PER_SIDE * geometry.side
    while True:
        if time.monotonic() > deadline:
            raise _OutOfTime
        blanks = list(range(geometry.side**2))
        rng.shuffle(blanks)
        grid = [0] * len(blanks)
        if _fill(geometry, grid, blanks, [0] * (3 * geometry.side), rng, [budget]):
            return grid


def _fill(
    geometry: _Geometry,
    grid: list[int],
    blanks: list[int],
    used: list[int],
    rng: random.Random,
    budget: list[int],
) -> bool:
    """Solve `grid` at random in place; False when impossible or the budget of nodes is spent."""
    if not blanks:
        return True
    budget[0] -= 1
    if budget[0] < 0:
        return False
    index, free = _most_constrained(geometry, blanks, used)
    cell = blanks[index]
    blanks[index] = blanks[-1]
    blanks.pop()
    row, column, box = geometry.units[cell]
    digits = [digit for digit in range(geometry.side) if free >> digit & 1]
    rng.shuffle(digits)
    for digit in digits:
        bit = 1 << digit
        used[row] |= bit
        used[column] |= bit
        used[box] |= bit
        grid[cell] = digit + 1
        if _fill(geometry, grid, blanks, used, rng, budget):
            return True
        used[row] ^= bit
        used[column] ^= bit
        used[box] ^= bit
    grid[cell] = 0
    blanks.append(cell)
    return False


def _most_constrained(geometry: _Geometry, blanks: list[int], used: list[int]) -> tuple[int, int]:
    """Index in `blanks` of a cell with the fewest possible digits, and those as bits."""
    units, all_digits = geometry.units, geometry.all_digits
    best, best_free, fewest = 0, 0, geometry.side + 1
    for index, cell in enumerate(blanks):
        row, column, box = units[cell]
        free = all_digits & ~(used[row] | used[column] | used[box])
        count = free.bit_count()
        if count < fewest:
            best, best_free, fewest = index, free, count
            if count <= 1:
                break
    return best, best_free


def _take_away(
    geometry: _Geometry, answer: list[int], target: int, rng: random.Random, deadline: float
) -> list[int]:
    """Blank cells in random order while the solution stays the only one, down to `target`."""
    question = answer.copy()
    used = [geometry.all_digits] * (3 * geometry.side)
    order = list(range(len(answer)))
    rng.shuffle(order)
    left = len(answer)
    blanks: list[int] = []
    for cell in order:
        if left <= target:
            break
        bit = 1 << (answer[cell] - 1)
        for unit in geometry.units[cell]:
            used[unit] ^= bit
        if _is_forced(geometry, question, cell, bit, used) or not _has_other(
            geometry, cell, bit, blanks, used, deadline
        ):
            question[cell] = 0
            blanks.append(cell)
            left -= 1
        else:
            for unit in geometry.units[cell]:
                used[unit] |= bit
    return question


def _is_forced(
    geometry: _Geometry, question: list[int], cell: int, bit: int, used: list[int]
) -> bool:
    """Whether the digit is the only one for its cell, or the cell the only one for its digit."""
    units = geometry.units
    row, column, box = units[cell]
    if geometry.all_digits & ~(used[row] | used[column] | used[box]) == bit:
        return True
    for unit in (row, column, box):
        for other in geometry.members[unit]:
            if not question[other] and other != cell:
                a, b, c = units[other]
                if not (used[a] | used[b] | used[c]) & bit:
                    break
        else:
            return True
    return False


def _has_other(
    geometry: _Geometry, cell: int, bit: int, blanks: list[int], used: list[int], deadline: float
) -> bool:
    """Whether `cell` may hold a digit other than `bit` in some solution."""
    row, column, box = geometry.units[cell]
    free = geometry.all_digits & ~(used[row] | used[column] | used[box] | bit)
    return _try_digits(geometry, cell, free, blanks.copy(), used, deadline)


def _try_digits(
    geometry: _Geometry, cell: int, free: int, blanks: list[int], used: list[int], deadline: float
) -> bool:
    row, column, box = geometry.units[cell]
    while free:
        bit = free & -free
        free ^= bit
        used[row] |= bit
        used[column] |= bit
        used[box] |= bit
        solvable = _is_solvable(geometry, blanks, used, deadline)
        used[row] ^= bit
        used[column] ^= bit
        used[box] ^= bit
        if solvable:
            return True
    return False


def _is_solvable(geometry: _Geometry, blanks: list[int], used: list[int], deadline: float) -> bool:
    if not blanks:
        return True
    if time.monotonic() > deadline:
        raise _OutOfTime
    index, free = _most_constrained(geometry, blanks, used)
    if not free:
        return False
    cell = blanks[index]
    blanks[index] = blanks[-1]
    blanks.pop()
    solvable = _try_digits(geometry, cell, free, blanks, used, deadline)
    blanks.append(cell)
    return solvable
