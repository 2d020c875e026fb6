"""Symmetric versions and other starts: mapped back exactly, and only ever a better answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrm.data.grid import Grid
from hrm.errors import UserError
from hrm.inference.attempts import other_start, symmetries
from hrm.inference.solver import _keep_better
from hrm.tasks.sudoku.rules import is_valid_solution

from .test_solver import SOLVED, by_hand, make_solver

SUDOKU = Grid((4, 4), (2, 2), ".1234")
WIDE = Grid((6, 6), (2, 3), ".123456")
PADDED = Grid((4, 4), (2, 2), "_.1234")
MAZE = Grid((5, 5), None, "_# SGo")


@given(look=st.sampled_from([SUDOKU, WIDE, PADDED, MAZE]), seed=st.integers(0, 2**32))
def test_a_version_is_undone_exactly(look, seed):
    vocab_size, cells = len(look.symbols), look.shape[0] * look.shape[1]
    rng = np.random.default_rng(seed)
    puzzles = rng.integers(vocab_size, size=(3, cells)).astype(np.int32)
    probabilities = rng.random((3, cells, vocab_size))
    for symmetry in symmetries(look, 3, vocab_size, seed):
        version = symmetry.apply(puzzles)
        assert version.dtype == np.int32
        np.testing.assert_array_equal(symmetry.undo(version), puzzles)
        back = symmetry.undo_probabilities(probabilities)
        for cell in range(cells):
            for token in range(vocab_size):
                theirs = probabilities[:, cell, symmetry.tokens[token]]
                np.testing.assert_array_equal(back[:, symmetry.place[cell], token], theirs)
        np.testing.assert_array_equal(symmetry.undo_cells(probabilities.max(-1)), back.max(-1))


@given(seed=st.integers(0, 2**32))
def test_versions_of_a_solved_grid_are_solved(seed):
    grid = np.array([[int(c) for c in SOLVED]])
    for symmetry in symmetries(SUDOKU, 4, 5, seed):
        assert is_valid_solution(symmetry.apply(grid), (2, 2)).all()


def test_versions_of_a_maze_are_the_seven_others():
    places = {tuple(symmetry.place) for symmetry in symmetries(MAZE, 7, 6, 0)}
    assert len(places) == 7 and tuple(range(25)) not in places
    with pytest.raises(UserError, match="votes=9: a maze has 8"):
        symmetries(MAZE, 8, 6, 0)


def test_other_tasks_have_no_known_symmetry():
    with pytest.raises(UserError, match="votes: .* Sudoku and square mazes only"):
        symmetries(Grid((1, 7), None, "0123"), 1, 4, 0)


def test_another_start_state_is_used_and_put_back():
    solver = make_solver()
    inner = solver.model.model.inner
    puzzles = np.random.default_rng(0).integers(5, size=(4, 16))
    before = inner.H_init.clone(), inner.L_init.clone()
    random_state = torch.get_rng_state()
    with other_start(inner, seed=1):
        _, expected, _ = by_hand(solver, puzzles, identifier=0)
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
    for symmetry in symmetries(SUDOKU, 4, 5, seed=3):
        alone.append(solver.solve(symmetry.apply(puzzles), **options))
    versions = [None, *symmetries(SUDOKU, 4, 5, seed=3)]
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
        assert solution.answer == SUDOKU.text(solution.tokens)
        assert solution.total_steps == 20
    assert len(taken) > 1


def test_a_puzzle_does_not_depend_on_its_neighbours():
    solver = make_solver()
    puzzles = np.random.default_rng(0).integers(5, size=(6, 16))
    together = solver.solve(puzzles, votes=3, restarts=2)
    for row, solution in enumerate(together):
        [alone] = solver.solve(puzzles[row : row + 1], votes=3, restarts=2)
        assert alone.answer == solution.answer and alone.total_steps == solution.total_steps


def test_a_valid_answer_wins_and_ends_the_search():
    solver = make_solver()
    solved = np.array([[int(c) for c in SOLVED]])
    [answer] = solver.solve(solved)
    for valid, sure, expected in ((True, 0.1, 1), (False, 0.9, 1), (False, 0.1, 0)):
        best = [replace(answer, valid=False, halt_probability=0.5, steps=1)]
        other = replace(answer, valid=valid, halt_probability=sure, steps=3)
        _keep_better(best, np.array([0]), [other])
        assert best[0].steps == (3 if expected else 1)
        assert best[0].total_steps == answer.total_steps + 3
