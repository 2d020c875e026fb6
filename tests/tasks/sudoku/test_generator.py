import numpy as np
import pytest

from hrm.errors import UserError
from hrm.tasks.sudoku import generator
from hrm.tasks.sudoku.generator import default_givens, generate_puzzles, generate_split
from hrm.tasks.sudoku.rules import BoxShape, is_valid_solution
from hrm.tasks.sudoku.symmetry import canonical_hash
from tests.tasks.sudoku.test_symmetry import canonical_form_4x4


def count_solutions(question: np.ndarray, box_shape: BoxShape, limit: int = 2) -> int:
    """Plain backtracking over the first blank cell, apart from the generator's own solver."""
    side = box_shape[0] * box_shape[1]
    blanks = np.flatnonzero(question == 0)
    if len(blanks) == 0:
        return 1
    grid = question.reshape(side, side)

    def free(place: int) -> list[int]:
        row, column = divmod(place, side)
        top, left = row - row % box_shape[0], column - column % box_shape[1]
        box = grid[top : top + box_shape[0], left : left + box_shape[1]]
        seen = {*grid[row].tolist(), *grid[:, column].tolist(), *box.ravel().tolist()}
        return [digit for digit in range(1, side + 1) if digit not in seen]

    options = {int(place): free(int(place)) for place in blanks}
    place = min(options, key=lambda place: len(options[place]))
    total = 0
    for digit in options[place]:
        trial = question.copy()
        trial[place] = digit
        total += count_solutions(trial, box_shape, limit - total)
        if total >= limit:
            break
    return total


CASES: list[tuple[BoxShape, tuple[int, int] | None, int]] = [
    ((2, 2), None, 25),
    ((2, 2), (4, 4), 10),
    ((2, 3), None, 10),
    ((3, 2), (12, 20), 5),
    ((3, 3), None, 4),
    ((3, 3), (27, 32), 2),
    ((2, 4), None, 2),
]


@pytest.mark.parametrize(("box_shape", "givens", "count"), CASES)
def test_puzzles_have_one_solution(
    box_shape: BoxShape, givens: tuple[int, int] | None, count: int
) -> None:
    questions, answers = generate_puzzles(box_shape, count, givens, seed=1)
    fewest, most = givens or default_givens(box_shape)
    assert len(questions) == len(answers) == count
    assert is_valid_solution(answers, box_shape).all()
    assert ((questions == 0) | (questions == answers)).all()
    assert ((questions != 0).sum(axis=1) >= fewest).all()
    assert ((questions != 0).sum(axis=1) <= most).all()
    assert all(count_solutions(question, box_shape) == 1 for question in questions)


def test_splits_of_4x4_share_no_class() -> None:
    (train, _), (test, _) = generate_split((2, 2), 1000, 500, (4, 7), seed=0)
    assert len(np.unique(train, axis=0)) == len(train) == 1000
    assert len(np.unique(test, axis=0)) == len(test) == 500
    train_classes = {canonical_form_4x4(question) for question in train}
    test_classes = {canonical_form_4x4(question) for question in test}
    assert not train_classes & test_classes
    assert len(test_classes) > 100


def test_splits_of_9x9_share_no_class() -> None:
    (train, _), (test, _) = generate_split((3, 3), 60, 30, seed=0)
    assert not np.isin(canonical_hash(train, (3, 3)), canonical_hash(test, (3, 3))).any()


@pytest.mark.parametrize(("num_train", "num_test"), [(300, 1), (1, 300), (1, 1), (5, 0)])
def test_lopsided_splits_are_filled(num_train: int, num_test: int) -> None:
    (train, _), (test, _) = generate_split((2, 2), num_train, num_test, seed=0)
    assert (len(train), len(test)) == (num_train, num_test)


def test_equal_seeds_equal_puzzles() -> None:
    first, again, other = (generate_puzzles((2, 3), 20, seed=seed) for seed in (4, 4, 5))
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert (first[0] != other[0]).any()


def test_solved_grids_are_spread_evenly() -> None:
    """All 288 solved 4x4 grids occur; the search is not uniform, but near to it."""
    answers = generate_puzzles((2, 2), 288, (16, 16), seed=0)[1]
    assert len(np.unique(answers, axis=0)) == 288


@pytest.mark.parametrize(
    ("box_shape", "num_train", "num_test", "givens", "option"),
    [
        ((2, 2), 10, 5, (2, 2), "--givens 2-2"),
        ((2, 2), 10, 5, (0, 3), "--givens 0-3"),
        ((3, 3), 10, 5, (16, 16), "--givens 16-16"),
        ((2, 2), 10, 5, (5, 17), "--givens 5-17"),
        ((2, 2), 10, 5, (7, 5), "--givens 7-5"),
        ((2, 2), 288, 5, (16, 16), "--num-train"),
        ((2, 4), 1, 0, (3, 3), "--givens 3-3"),
    ],
)
def test_impossible_requests_end_with_one_line(
    box_shape: BoxShape, num_train: int, num_test: int, givens: tuple[int, int], option: str
) -> None:
    with pytest.raises(UserError, match=option) as caught:
        generate_split(box_shape, num_train, num_test, givens, seed=0)
    assert "\n" not in str(caught.value)


def test_shapes_out_of_reach_are_named_and_the_search_ends(monkeypatch):
    monkeypatch.setattr(generator, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(UserError, match="--generate 5x5: out of reach; no filled grid of 25x25"):
        generate_puzzles((5, 5), 1)
    monkeypatch.setattr(generator, "PATIENCE_SECONDS", 1)
    with pytest.raises(UserError, match="--generate 3x3 --givens 17-17: out of reach; no such"):
        generate_puzzles((3, 3), 1, (17, 17))
