"""Guesses: which partial puzzles are asked, in which order, and what comes of it."""

import math
from itertools import pairwise

import numpy as np
import pytest

from hrm.attempts import plan_attempts
from hrm.errors import UserError
from hrm.guesses import AT_ONCE, LEAST_LIKELY, Guess, Guesses
from hrm.inference import Solver
from hrm.tasks import task_of
from hrm.tasks.sudoku.task import SudokuTask
from tests.inference.test_solver import make_solver, metadata

SUDOKU = task_of(metadata())
PUZZLE = np.array([int(c) for c in "1...............".replace(".", "0")], np.int32)
SURE = np.eye(5, dtype=np.float32)


def taken(waiting: Guesses) -> list[Guess]:
    return [guess for _, guess in waiting.take()]


def known(**cells: list[float]) -> np.ndarray:
    """Probabilities [16, 5]: of some cells, and everything else as if it were certain."""
    table = np.tile(SURE[1], (16, 1))
    for name, row in cells.items():
        table[int(name[1:])] = row
    return table


def test_a_guess_is_made_where_the_model_knows_least():
    table = known(_5=[0, 0.1, 0.9, 0, 0], _6=[0, 0, 0.6, 0.4, 0], _0=[0.2] * 5)  # 0 is given
    first, second = taken(Guesses(SUDOKU, PUZZLE, table, 9))
    for guess, token, probability in ((first, 2, 0.6), (second, 3, 0.4)):
        wanted = PUZZLE.copy()
        wanted[6] = token
        np.testing.assert_array_equal(guess.tokens, wanted)
        assert guess.surprise == pytest.approx(-math.log(probability))


def test_what_contradicts_or_is_hardly_likely_or_blank_is_no_guess():
    table = known(_1=[0.3, 0.3, LEAST_LIKELY / 2, 0.2, 0.19])  # 1 stands in the same row
    assert [guess.tokens[1] for guess in taken(Guesses(SUDOKU, PUZZLE, table, 9))] == [3, 4]


def test_the_likeliest_partial_puzzle_comes_first():
    waiting = Guesses(SUDOKU, PUZZLE, known(_6=[0, 0, 0.7, 0.3, 0]), 9)
    [(_, likely), (_, other)] = waiting.take()
    assert likely < other
    waiting.branch(other, known(_9=[0, 0, 0, 0.2, 0.8], _6=[0.2] * 5))
    waiting.branch(likely, known(_9=[0, 0, 0, 0.2, 0.8], _6=[0.2] * 5))
    asked = taken(waiting)
    chances = [math.exp(-guess.surprise) for guess in asked]
    assert chances == pytest.approx([0.7 * 0.8, 0.3 * 0.8, 0.7 * 0.2, 0.3 * 0.2])
    assert [(guess.tokens[6], guess.tokens[9]) for guess in asked] == [
        (2, 4),
        (3, 4),
        (2, 3),
        (3, 3),
    ]
    assert waiting.take() == []


def test_no_more_are_asked_than_may_be():
    table = known(_6=[0, 0, 0.4, 0.3, 0.3])
    waiting = Guesses(SUDOKU, PUZZLE, table, AT_ONCE + 1)
    for number, guess in waiting.take():
        assert number <= 3
        waiting.branch(guess, known(_9=[0, 0.25, 0.25, 0.25, 0.25]))
    assert [number for number, _ in waiting.take()] == [4, 5]
    assert waiting.take() == []


def test_a_full_puzzle_has_no_guess():
    full = Guess(0.5, 7, np.array([1, 2, 3, 4] * 4, np.int32))
    waiting = Guesses(SUDOKU, PUZZLE, known(), 9)
    waiting.take()
    waiting.branch(full, known(_6=[0.2] * 5))
    assert waiting.take() == []


class KnowsEnough(SudokuTask):
    """An answer is valid where so many cells are given that do not lie in the first row."""

    cells = 2

    def are_valid(self, answers: np.ndarray, inputs: np.ndarray) -> list[bool | None]:
        return ((inputs[:, 4:] > 0).sum(1) >= self.cells).tolist()


def unsure_solver() -> Solver:
    solver = make_solver()
    solver.task = KnowsEnough(solver.metadata)
    return solver


def best_first(
    solver: Solver, puzzle: np.ndarray, most: int, steps: int
) -> tuple[list[np.ndarray], int]:
    """Partial puzzles that are asked, in their order, and all steps; each asked alone."""

    def asked(tokens: np.ndarray, limit: int) -> tuple[bool, np.ndarray, int]:
        [answer] = solver.solve([tokens], trace=True, steps=limit)
        return bool(answer.valid), answer.trace.probabilities[-1].astype(float), answer.steps

    order, total = [], 0
    waiting = [(1.0, puzzle)]
    is_first = True
    while waiting and len(order) - 1 < most:
        waiting.sort(key=lambda pair: -pair[0])  # stable: earlier ones first
        count = 1 if is_first else min(AT_ONCE, most - len(order) + 1)
        now, waiting = waiting[:count], waiting[count:]
        limit = steps if is_first else min(steps, solver.max_steps)
        is_first = False
        solved = False
        for chance, tokens in now:
            valid, table, taken = asked(tokens, limit)
            order.append(tokens)
            total += taken
            solved = solved or valid
            blank = np.flatnonzero(tokens == 0)
            if valid or not len(blank):
                continue
            entropy = -(table * np.log(table + 1e-9)).sum(1)
            cell = blank[entropy[blank].argmax()]
            for token in range(1, 5):
                more = tokens.copy()
                more[cell] = token
                if table[cell, token] >= LEAST_LIKELY and solver.task.contradiction(more) is None:
                    waiting.append((chance * table[cell, token], more))
        if solved:
            break
    return order, total


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 4), (3, 9), (64, 2), (64, 9)])
@pytest.mark.parametrize("most", [1, 6, 40])
def test_puzzles_are_guessed_as_if_each_were_asked_alone(batch_size, steps, most, monkeypatch):
    solver = unsure_solver()
    puzzles = [np.roll(PUZZLE, n) for n in range(4)]
    asked: list[np.ndarray] = []
    judge = solver.task.are_valid
    expected = [best_first(solver, puzzle, most, steps) for puzzle in puzzles]
    monkeypatch.setattr(
        solver.task, "are_valid", lambda a, inputs: (asked.extend(inputs), judge(a, inputs))[1]
    )
    found = solver.solve(puzzles, guesses=most, steps=steps, batch_size=batch_size)
    assert len(asked) == sum(len(order) for order, _ in expected)
    for (order, total), solution, puzzle in zip(expected, found, puzzles, strict=True):
        assert solution.total_steps == total
        np.testing.assert_array_equal(solution.inputs, puzzle)
        right = [n for n, tokens in enumerate(order) if (tokens[4:] > 0).sum() >= 2]
        assert solution.valid == bool(right)
        if right:
            guessed = order[solution.attempt - 1] != puzzle
            assert solution.attempt - 1 in right
            assert solution.guessed == tuple(np.flatnonzero(guessed).tolist())
        else:
            assert solution.attempt == 1 and solution.guessed == ()
    if most != 6:  # which is enough for some
        assert any(solution.valid for solution in found) == (most > 6)
    for here, there in pairwise([found, solver.solve(puzzles, guesses=most, steps=steps)]):
        assert [(a.answer, a.attempt) for a in here] == [(b.answer, b.attempt) for b in there]


def test_guesses_come_after_all_other_attempts():
    solver = unsure_solver()
    [plain] = solver.solve([PUZZLE], votes=3, halting="max_steps")
    [found] = solver.solve([PUZZLE], votes=3, guesses=40, halting="max_steps")
    assert not plain.valid and found.valid and found.attempt > 3
    assert found.total_steps > plain.total_steps == 3 * 4 and found.total_steps % 4 == 0


def test_what_is_solved_is_not_guessed():
    solver = make_solver()
    solver.task = KnowsEnough(solver.metadata)
    solver.task.cells = 0
    [found] = solver.solve([PUZZLE], guesses=40)
    assert found.valid and found.attempt == 1 and found.total_steps == found.steps


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"guesses": -1}, "guesses=-1: must be at least 0"),
        ({"guesses": 2, "select": "majority"}, "guesses=2: they end with a valid answer"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        plan_attempts(SUDOKU, **wrong)


def test_tasks_whose_cells_cannot_be_given_refuse():
    grids = task_of(metadata(task="grids"))
    with pytest.raises(UserError, match="guesses=3: none can be written into puzzles of grids"):
        plan_attempts(grids, guesses=3)
