"""Guesses of the plain search: by hand, against known answers, and under symmetries."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hrm.tasks.sudoku.difficulty import count_guesses
from hrm.tasks.sudoku.generator import generate_puzzles
from hrm.tasks.sudoku.rules import SYMBOLS
from hrm.tasks.sudoku.symmetry import augment

EASY = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
HARD = "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."  # 2012
EMPTY = "." * 81


def tokens(*puzzles: str) -> np.ndarray:
    return np.array([[SYMBOLS.index(c) for c in puzzle] for puzzle in puzzles], np.uint8)


def test_easy_needs_no_guess_and_hard_needs_many():
    guesses, solutions = count_guesses(tokens(EASY, HARD), (3, 3))
    assert guesses[0] == 0 and 10 < guesses[1] < 1000
    assert "".join(SYMBOLS[t] for t in solutions[0][:9]) == "534678912"
    assert "".join(SYMBOLS[t] for t in solutions[1][:9]) == "812753649"


def test_two_independent_choices_are_two_guesses_of_the_lowest_digit():
    guesses, solutions = count_guesses(tokens("1.3.3.1..1.3.3.1"), (2, 2))
    assert guesses.tolist() == [2]
    assert solutions[0].tolist() == [1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1]


def plain_guesses(question: np.ndarray, box: tuple[int, int]) -> int:
    """The same search with sets, one puzzle at a time."""
    side = box[0] * box[1]
    place = [(c // side, c % side) for c in range(side * side)]
    units = [[c for c, (r, _) in enumerate(place) if r == i] for i in range(side)]
    units += [[c for c, (_, k) in enumerate(place) if k == i] for i in range(side)]
    boxes = [r // box[0] * box[0] + k // box[1] for r, k in place]
    units += [[c for c, b in enumerate(boxes) if b == i] for i in range(side)]

    def settle(state: list[set[int]]) -> bool:
        before = None
        while before != state:
            before = [set(s) for s in state]
            for unit in units:
                for cell in unit:
                    if len(state[cell]) == 1:
                        for other in unit:
                            if other != cell:
                                state[other] = state[other] - state[cell]
                for digit in range(1, side + 1):
                    cells = [c for c in unit if digit in state[c]]
                    if not cells:
                        return False
                    if len(cells) == 1:
                        state[cells[0]] = {digit}
            if not all(state):
                return False
        return True

    guesses = 0
    stack = [[{int(t)} if t else set(range(1, side + 1)) for t in question]]
    while stack:
        state = stack.pop()
        if not settle(state):
            continue
        if all(len(s) == 1 for s in state):
            return guesses
        cell = min((c for c, s in enumerate(state) if len(s) > 1), key=lambda c: len(state[c]))
        digit = min(state[cell])
        guesses += 1
        for candidates in (state[cell] - {digit}, {digit}):
            stack.append([set(s) for s in state])
            stack[-1][cell] = candidates
    return -1


def test_guesses_are_those_of_a_plain_search():
    questions, _ = generate_puzzles((3, 3), 8, (25, 27), seed=1)
    questions = np.concatenate([questions, tokens(HARD)])
    guesses = count_guesses(questions, (3, 3))[0].tolist()
    assert guesses == [plain_guesses(q, (3, 3)) for q in questions] and max(guesses) > 1


def test_the_search_is_given_up_at_its_bound():
    needed = int(count_guesses(tokens(HARD), (3, 3))[0][0])
    assert count_guesses(tokens(HARD), (3, 3), most=needed)[0].tolist() == [needed]
    guesses, solutions = count_guesses(tokens(HARD, EASY), (3, 3), most=needed - 1)
    assert guesses.tolist() == [needed, 0] and not solutions[0].any() and solutions[1].all()


@pytest.mark.parametrize("puzzle", ["11..............", "123....4........"])
def test_without_a_solution_there_are_minus_one_guesses(puzzle):
    guesses, solutions = count_guesses(tokens(puzzle), (2, 2))
    assert guesses.tolist() == [-1] and not solutions.any()


def test_no_puzzles_and_an_empty_grid():
    assert count_guesses(np.zeros((0, 81), np.uint8), (3, 3))[0].shape == (0,)
    guesses, solutions = count_guesses(tokens(EMPTY), (3, 3))
    assert guesses[0] > 0 and (solutions > 0).all()


@pytest.mark.parametrize("box_shape", [(2, 2), (2, 3), (3, 2), (3, 3)])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=5, derandomize=True, phases=[Phase.generate])
def test_solutions_are_the_known_answers_and_singles_survive_symmetries(box_shape, seed):
    givens = (26, 30) if box_shape == (3, 3) else None
    questions, answers = generate_puzzles(box_shape, 4, givens, seed=seed)
    guesses, solutions = count_guesses(questions, box_shape)
    assert (solutions == answers).all()
    versions, version_answers = augment(questions, answers, box_shape, np.random.default_rng(seed))
    again, found = count_guesses(versions, box_shape)
    assert (found == version_answers).all()
    assert ((again == 0) == (guesses == 0)).all()
