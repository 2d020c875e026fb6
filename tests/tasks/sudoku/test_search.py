"""The compiled search: the guesses of `count_guesses`, and puzzles without a given to spare."""

import random

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hrm.tasks.sudoku import search
from hrm.tasks.sudoku.difficulty import MOST_GUESSES, count_guesses
from hrm.tasks.sudoku.generator import generate_puzzles, solved_grid
from hrm.tasks.sudoku.rules import BoxShape
from tests.tasks.sudoku.test_difficulty import EASY, EMPTY, HARD, tokens

BUDGET = 10**6


def guesses(questions: np.ndarray, box_shape: BoxShape, most: int = MOST_GUESSES) -> list[int]:
    found = []
    for question in questions:
        board = search.new_board(question, box_shape)
        found.append(search.solve(search.as_state(question, box_shape), board, most))
    return found


def board_and_answer(box_shape: BoxShape, seed: int) -> tuple[search.Board, np.ndarray]:
    answer = np.array(solved_grid(box_shape, random.Random(seed)), np.uint8)
    return search.new_board(answer, box_shape), answer


def assert_minimal(question: np.ndarray, answer: np.ndarray, box_shape: BoxShape) -> None:
    """With another digit than the answer's there is a solution at each given, and at no blank."""
    cells, side = len(answer), box_shape[0] * box_shape[1]
    assert ((question == 0) | (question == answer)).all()
    variants = np.repeat(question[None], cells * side, 0).reshape(cells, side, cells)
    variants[np.arange(cells), :, np.arange(cells)] = np.arange(1, side + 1)
    found, _ = count_guesses(variants.reshape(-1, cells), box_shape, most=10**6)
    solvable = (found >= 0).reshape(cells, side)
    assert solvable[np.arange(cells), answer - 1].all()
    solvable[np.arange(cells), answer - 1] = False
    assert (solvable.any(axis=1) == (question > 0)).all()


@pytest.mark.parametrize("box_shape", [(2, 2), (2, 3), (3, 2), (3, 3), (2, 5)])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=8, derandomize=True, phases=[Phase.generate])
def test_guesses_are_those_of_the_reference(box_shape, seed):
    """Of grids with any number of cells blanked: one solution, several, or none."""
    rng = np.random.default_rng(seed)
    side = box_shape[0] * box_shape[1]
    answers = np.stack([board_and_answer(box_shape, seed + row)[1] for row in range(6)])
    questions = answers * (rng.random(answers.shape) < rng.uniform(0, 0.6, (6, 1)))
    questions[0, rng.integers(side**2)] = rng.integers(1, side + 1)
    expected, _ = count_guesses(questions, box_shape)
    assert guesses(questions, box_shape) == expected.tolist()


@pytest.mark.parametrize("most", [3, MOST_GUESSES])
def test_guesses_of_known_puzzles(most):
    questions = np.concatenate(
        [tokens(EASY, HARD, EMPTY), generate_puzzles((3, 3), 2, (25, 27))[0]]
    )
    expected, _ = count_guesses(questions, (3, 3), most)
    assert guesses(questions, (3, 3), most) == expected.tolist()


def test_the_solution_is_left_on_the_stack():
    question = tokens(HARD)
    board = search.new_board(question[0], (3, 3))
    search.solve(search.as_state(question[0], (3, 3)), board, MOST_GUESSES)
    solution = count_guesses(question, (3, 3))[1][0]
    assert (board.stack[0] == search.as_state(solution, (3, 3))).all()


@pytest.mark.parametrize("box_shape", [(2, 2), (2, 3), (3, 3)])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=4, derandomize=True, phases=[Phase.generate])
def test_no_given_is_left_to_spare(box_shape, seed):
    """Nor where another puzzle of the same answer has been made before, which is remembered."""
    board, answer = board_and_answer(box_shape, seed)
    for _ in range(2):
        is_given = np.ones(len(answer), bool)
        order = np.random.default_rng(seed).permutation(len(answer))
        assert search.make_minimal(is_given, order, board, BUDGET)
        assert_minimal(answer * is_given, answer, box_shape)


def test_what_is_remembered_changes_nothing_but_the_time():
    fresh, answer = board_and_answer((3, 3), 0)
    used, _ = board_and_answer((3, 3), 0)
    for seed in range(search.REMEMBERED // 5):  # more than there is room for
        order = np.random.default_rng(seed).permutation(81)
        results = []
        for board in (used, fresh):
            is_given = np.ones(81, bool)
            search.make_minimal(is_given, order, board, BUDGET)
            results.append(is_given)
        fresh.remembered[:] = 0
        assert (results[0] == results[1]).all()
    assert used.remembered[0] > search.REMEMBERED


def test_too_many_guesses_are_given_up():
    board, _ = board_and_answer((3, 3), 0)
    assert not search.make_minimal(np.ones(81, bool), np.arange(81), board, 0)
