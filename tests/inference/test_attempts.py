"""Symmetric versions and other starts: asked for in order, and only ever a better answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hrm.errors import UserError
from hrm.inference.attempts import Attempt, best_of, plan_attempts
from hrm.tasks import task_of

from .test_solver import SOLVED, by_hand, make_solver, metadata

SUDOKU = task_of(metadata())


def test_another_start_state_is_used_and_the_own_one_stays():
    solver = make_solver()
    inner = solver.model.model.inner
    puzzles = np.random.default_rng(0).integers(5, size=(4, 16))
    before = inner.H_init.clone(), inner.L_init.clone()
    random_state = torch.get_rng_state()
    _, expected, _ = by_hand(solver, puzzles, identifier=0, start_seed=1)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(inner.H_init, before[0]) and torch.equal(inner.L_init, before[1])
    _, plain, _ = by_hand(solver, puzzles, identifier=0)
    assert np.abs(plain - expected).max() > 1e-3
    solutions = solver.solve(puzzles, halting="max_steps", restarts=1, seed=1, trace=True)
    q_halt = np.stack([s.trace.q_halt for s in solutions], 1)
    better = np.where(expected[-1] > plain[-1], expected, plain)
    np.testing.assert_allclose(q_halt, better, atol=1e-5)
    assert [s.total_steps for s in solutions] == [8] * 4 and solutions[0].steps == 4


def test_votes_give_the_answer_of_the_surest_version_mapped_back():
    solver = make_solver()
    puzzles = np.random.default_rng(0).integers(5, size=(6, 16)).astype(np.int32)
    options = {"halting": "max_steps", "trace": True, "seed": 3}
    voted = solver.solve(puzzles, votes=5, **options)
    alone = [solver.solve(puzzles, **options)]
    for symmetry in SUDOKU.symmetries(4, seed=3):
        alone.append(solver.solve(symmetry.apply(puzzles), **options))
    versions = [None, *SUDOKU.symmetries(4, seed=3)]
    taken = set()
    for row, solution in enumerate(voted):
        best = max(range(5), key=lambda k: alone[k][row].halt_probability)
        taken.add(best)
        expected = alone[best][row]
        undo = versions[best].undo if best else np.asarray
        np.testing.assert_array_equal(solution.inputs, puzzles[row])
        np.testing.assert_array_equal(solution.tokens, undo(expected.tokens))
        np.testing.assert_array_equal(solution.trace.tokens, undo(expected.trace.tokens))
        np.testing.assert_array_equal(solution.trace.tokens[-1], solution.tokens)
        np.testing.assert_array_equal(
            solution.trace.probabilities.argmax(-1), solution.trace.tokens
        )
        np.testing.assert_allclose(solution.confidence, solution.trace.probabilities[-1].max(-1))
        assert solution.answer == SUDOKU.grid.text(solution.tokens)
        assert solution.total_steps == 20
    assert len(taken) > 1


def test_a_puzzle_does_not_depend_on_its_neighbours():
    solver = make_solver()
    puzzles = np.random.default_rng(0).integers(5, size=(6, 16))
    together = solver.solve(puzzles, votes=3, restarts=2)
    for row, solution in enumerate(together):
        [alone] = solver.solve(puzzles[row : row + 1], votes=3, restarts=2)
        assert alone.answer == solution.answer and alone.total_steps == solution.total_steps


def test_a_valid_answer_wins_and_of_equals_the_first():
    [answer] = make_solver().solve(np.array([[int(c) for c in SOLVED]]))
    first = replace(answer, valid=False, halt_probability=0.5, steps=1)
    for valid, sure, expected in ((True, 0.1, 3), (False, 0.9, 3), (False, 0.5, 1), (None, 0.1, 1)):
        other = replace(answer, valid=valid, halt_probability=sure, steps=3)
        assert best_of([first, other]).steps == expected


def test_a_valid_answer_ends_the_search(monkeypatch):
    solver = make_solver()
    puzzles = np.random.default_rng(0).integers(5, size=(3, 16))
    asked = []

    def judged(answers: np.ndarray, inputs: np.ndarray) -> list[bool]:
        asked.append(len(answers))
        return [row == len(asked) - 1 for row in range(len(answers))]

    monkeypatch.setattr(solver.task, "are_valid", judged)
    solutions = solver.solve(puzzles, halting="max_steps", votes=2, restarts=2)
    assert asked == [3, 2, 1, 1]  # the first of 3, then the second of 2, then none of the last
    assert [s.total_steps for s in solutions] == [4, 16, 8]


def test_the_plan_begins_with_the_puzzle_and_ends_with_restarts():
    plan = plan_attempts(SUDOKU, votes=3, restarts=2, seed=5)
    assert plan[0] == Attempt() and len(plan) == 5
    assert all(attempt.symmetry and attempt.start_seed is None for attempt in plan[1:3])
    assert [attempt.start_seed for attempt in plan[3:]] == [5, 6]
    for wrong in ({"votes": 0, "restarts": 0}, {"votes": 1, "restarts": -1}):
        with pytest.raises(UserError, match="must be at least"):
            plan_attempts(SUDOKU, seed=0, **wrong)
