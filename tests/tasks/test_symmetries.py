"""Symmetric versions of every task: mapped back exactly, valid where the puzzle is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.tasks import task_of
from hrm.tasks.sudoku.rules import is_valid_solution

from ..inference.test_solver import SOLVED, metadata

SUDOKU = task_of(metadata())
WIDE = task_of(
    metadata(seq_len=36, vocab_size=7, grid_shape=(6, 6), box_shape=(2, 3), symbols=".123456")
)
PADDED = task_of(metadata(vocab_size=6))
MAZE = task_of(metadata(seq_len=25, vocab_size=6))


def test_these_are_the_tasks_that_they_are_taken_for():
    assert [task.name for task in (SUDOKU, WIDE, PADDED, MAZE)] == ["sudoku"] * 3 + ["maze"]


@given(task=st.sampled_from([SUDOKU, WIDE, PADDED, MAZE]), seed=st.integers(0, 2**32))
def test_a_version_is_undone_exactly(task, seed):
    vocab_size, cells = task.metadata.vocab_size, task.metadata.seq_len
    rng = np.random.default_rng(seed)
    puzzles = rng.integers(vocab_size, size=(3, cells)).astype(np.int32)
    probabilities = rng.random((3, cells, vocab_size))
    for symmetry in task.symmetries(3, seed):
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
    for symmetry in SUDOKU.symmetries(4, seed):
        assert is_valid_solution(symmetry.apply(grid), (2, 2)).all()


def test_versions_of_a_maze_are_the_seven_others():
    places = {tuple(symmetry.place) for symmetry in MAZE.symmetries(7, 0)}
    assert len(places) == 7 and tuple(range(25)) not in places
    assert MAZE.most_versions == 8
    with pytest.raises(UserError, match="votes=9: a maze of 5x5 cells has 8"):
        MAZE.symmetries(8, 0)
    oblong = task_of(metadata(seq_len=20, vocab_size=6, grid_shape=(4, 5)))
    assert len({tuple(symmetry.place) for symmetry in oblong.symmetries(3, 0)}) == 3
    with pytest.raises(UserError, match="votes=5: a maze of 4x5 cells has 4 symmetric versions"):
        oblong.symmetries(4, 0)


def test_other_tasks_have_no_known_symmetry():
    other = task_of(metadata(seq_len=7, vocab_size=4))
    assert other.most_versions == 1
    with pytest.raises(UserError, match="votes: no symmetric versions are known for grids"):
        other.symmetries(1, 0)
