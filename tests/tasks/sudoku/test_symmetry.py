from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.tasks.sudoku.generator import Puzzles, generate_puzzles
from hrm.tasks.sudoku.rules import BoxShape, is_valid_solution
from hrm.tasks.sudoku.symmetry import are_equivalent, augment, canonical_hash

BOX_SHAPES: list[BoxShape] = [(2, 2), (2, 3), (3, 2), (3, 3)]
COUNT = 30
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def puzzles() -> dict[BoxShape, Puzzles]:
    return {box_shape: generate_puzzles(box_shape, COUNT, seed=3) for box_shape in BOX_SHAPES}


def canonical_form_4x4(question: np.ndarray) -> tuple[int, ...]:
    """The least of all 128 rearrangements, digits renamed by first appearance."""
    lines = [
        [2 * band + line for band, own in zip(bands, inner, strict=True) for line in own]
        for bands in permutations(range(2))
        for inner in product(permutations(range(2)), repeat=2)
    ]
    forms = []
    for grid in (question.reshape(4, 4), question.reshape(4, 4).T):
        for rows, columns in product(lines, repeat=2):
            names: dict[int, int] = {0: 0}
            cells = grid[np.ix_(rows, columns)].ravel().tolist()
            forms.append(tuple(names.setdefault(cell, len(names)) for cell in cells))
    return min(forms)


@pytest.mark.parametrize("box_shape", BOX_SHAPES)
@settings(max_examples=25)
@given(seed=seeds)
def test_augmented_rows_are_puzzles(
    puzzles: dict[BoxShape, Puzzles], box_shape: BoxShape, seed: int
) -> None:
    questions, answers = puzzles[box_shape]
    new_questions, new_answers = augment(questions, answers, box_shape, np.random.default_rng(seed))
    assert new_questions.dtype == new_answers.dtype == np.uint8
    assert is_valid_solution(new_answers, box_shape).all()
    assert ((new_questions == 0) | (new_questions == new_answers)).all()
    assert ((new_questions != 0).sum(axis=1) == (questions != 0).sum(axis=1)).all()
    assert (new_answers != answers).any()


@pytest.mark.parametrize("box_shape", BOX_SHAPES)
@settings(max_examples=10)
@given(seed=seeds)
def test_hash_and_equivalence_survive_symmetries(
    puzzles: dict[BoxShape, Puzzles], box_shape: BoxShape, seed: int
) -> None:
    questions, answers = puzzles[box_shape]
    new_questions, _ = augment(questions, answers, box_shape, np.random.default_rng(seed))
    old_hashes = canonical_hash(questions, box_shape)
    assert (canonical_hash(new_questions, box_shape) == old_hashes).all()
    place = seed % COUNT
    assert are_equivalent(questions[place], new_questions[place], box_shape)


@settings(max_examples=20)
@given(seed=seeds)
def test_kept_rows_stay(puzzles: dict[BoxShape, Puzzles], seed: int) -> None:
    questions, answers = puzzles[3, 3]
    keep = np.arange(COUNT) % 3 == 0
    new = augment(questions, answers, (3, 3), np.random.default_rng(seed), keep)
    assert (new[0][keep] == questions[keep]).all()
    assert (new[1][keep] == answers[keep]).all()
    assert (new[1][~keep] != answers[~keep]).any(axis=1).all()


def test_all_128_arrangements_of_4x4_occur_equally_often() -> None:
    answers = np.tile(np.array(list(map(int, "1234341221434321")), np.uint8), (20_000, 1))
    givens = answers * np.isin(np.arange(16), [0, 1, 2, 4, 7, 8])  # a pattern without symmetry
    new, _ = augment(givens, answers, (2, 2), np.random.default_rng(0))
    patterns, counts = np.unique(new != 0, axis=0, return_counts=True)
    assert len(patterns) == 128
    expected = 20_000 / 128
    assert abs(counts - expected).max() < 5 * expected**0.5


def test_transposes_only_where_the_box_is_square() -> None:
    for box_shape, expected in (((3, 3), True), ((2, 3), False)):
        side = box_shape[0] * box_shape[1]
        questions, answers = generate_puzzles(box_shape, 1, seed=0)
        whole_row = np.zeros((side, side), np.uint8)
        whole_row[0] = answers[0, :side]
        tiled = [np.tile(grid.reshape(1, -1), (50, 1)) for grid in (whole_row, answers)]
        new, _ = augment(tiled[0], tiled[1], box_shape, np.random.default_rng(0))
        columns_full = (new.reshape(-1, side, side) != 0).all(axis=1).any(axis=1)
        assert columns_full.any() == expected


def test_equivalence_is_exact_on_4x4() -> None:
    questions, _ = generate_puzzles((2, 2), 600, (4, 7), seed=5)
    forms = [canonical_form_4x4(question) for question in questions]
    hashes = canonical_hash(questions, (2, 2)).tolist()
    assert len(set(zip(hashes, forms, strict=True))) == len(set(forms)) > 100
    assert len(set(hashes)) > 0.98 * len(set(forms))

    equal_hashes = [(i, j) for j in range(600) for i in range(j) if hashes[i] == hashes[j]]
    assert any(forms[i] != forms[j] for i, j in equal_hashes)  # the hash alone is not enough
    for i, j in equal_hashes[:500] + [(0, j) for j in range(100)]:
        assert are_equivalent(questions[i], questions[j], (2, 2)) == (forms[i] == forms[j])


@pytest.mark.parametrize("box_shape", BOX_SHAPES)
def test_small_changes_are_not_equivalent(
    puzzles: dict[BoxShape, Puzzles], box_shape: BoxShape
) -> None:
    questions, answers = puzzles[box_shape]
    hashes = canonical_hash(questions, box_shape)
    for question, answer, own_hash in zip(questions, answers, hashes, strict=True):
        changed = question.copy()
        changed[np.flatnonzero(question)[0]] = 0
        blank = np.flatnonzero(question == 0)[0]
        changed[blank] = answer[blank]
        if are_equivalent(question, changed, box_shape):
            assert canonical_hash(changed[None], box_shape)[0] == own_hash


def test_highly_symmetric_grids_are_told_apart_quickly() -> None:
    places = np.arange(9)
    shift = (3 * (places % 3) + places // 3)[:, None]
    grid = ((shift + places) % 9 + 1).astype(np.uint8)
    assert is_valid_solution(grid.reshape(1, 81), (3, 3)).all()
    for kept in (np.ones((9, 9), bool), np.eye(9, dtype=bool), np.zeros((9, 9), bool)):
        question = (grid * kept).reshape(1, 81)
        new, _ = augment(question, grid.reshape(1, 81), (3, 3), np.random.default_rng(1))
        assert are_equivalent(question[0], new[0], (3, 3))
    bands_only = np.repeat(np.arange(3), 3)
    in_one_band = (grid * (bands_only[:, None] == 0)).reshape(81)
    in_three = (grid * (places % 3 == 0)[:, None]).reshape(81)
    assert not are_equivalent(in_one_band, in_three, (3, 3))


def test_transposition_counts_only_where_the_box_is_square() -> None:
    for box_shape, expected in (((3, 3), True), ((2, 3), False)):
        side = box_shape[0] * box_shape[1]
        questions, _ = generate_puzzles(box_shape, 1, seed=2)
        turned = questions[0].reshape(side, side).T.reshape(-1)
        assert are_equivalent(questions[0], turned, box_shape) == expected
