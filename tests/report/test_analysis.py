"""Tables of solved puzzles, against cases counted by hand and laws that always hold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrm.report import analysis
from hrm.report.analysis import Rate

# 3 puzzles of 4 cells, 2 steps; the last cell of the second answer is not known
ANSWERS = np.array([[1, 2, 3, 4], [1, 2, 3, -100], [4, 3, 2, 1]])
TOKENS = np.array(
    [
        [[1, 2, 4, 3], [1, 2, 3, 4]],
        [[1, 2, 3, 9], [1, 2, 9, 9]],
        [[1, 1, 1, 1], [4, 3, 2, 2]],
    ]
)

probabilities = arrays(np.float32, st.integers(1, 60), elements=st.floats(0, 1, width=32))


def test_wrong_cells_and_accuracy_by_step():
    wrong = analysis.wrong_by_step(TOKENS, ANSWERS)
    assert wrong.tolist() == [[2, 0], [0, 1], [3, 1]]
    first, second = analysis.accuracy_by_step(wrong == 0)
    assert first == Rate("1", 1, 3) and second == Rate("2", 1, 3)
    assert first.value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("right", "total", "interval"),
    [  # published: Wilson 1927 without continuity correction
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (29, 29, (0.8830, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_interval(right, total, interval):
    assert Rate("", right, total).interval == pytest.approx(interval, abs=5e-5)
    assert math.isnan(Rate("", right, total).value) == (total == 0)


@given(total=st.integers(1, 10**6), data=st.data())
def test_wilson_interval_holds_its_share_and_is_symmetric(total, data):
    right = data.draw(st.integers(0, total))
    low, high = Rate("", right, total).interval
    assert 0 <= low <= right / total <= high <= 1 and low < high
    other_low, other_high = Rate("", total - right, total).interval
    assert (1 - other_high, 1 - other_low) == pytest.approx((low, high), abs=1e-9)


def test_halting_histogram():
    steps, right = np.array([1, 3, 3, 3]), np.array([True, True, False, True])
    of_right, of_wrong = analysis.halting_histogram(steps, right, 4)
    assert of_right.tolist() == [1, 0, 2, 0] and of_wrong.tolist() == [0, 0, 1, 0]


def test_calibration_by_hand():
    probability = np.array([[0.0, 0.2], [0.4, 1.0]])
    right = np.array([[False, True], [False, True]])
    result = analysis.calibration(probability, right, bins=2)
    assert result.counts.tolist() == [3, 1] and result.right.tolist() == [1, 1]
    assert result.mean_probability == pytest.approx([0.2, 1.0])
    assert result.accuracy == pytest.approx([1 / 3, 1.0])
    assert result.expected_error == pytest.approx(3 / 4 * (1 / 3 - 0.2))
    assert result.edges.tolist() == [0, 0.5, 1]


def test_an_empty_bin_is_nan_and_counts_nothing():
    result = analysis.calibration(np.array([0.95, 1.0]), np.array([True, True]))
    assert np.isnan(result.accuracy[:9]).all()
    assert result.expected_error == pytest.approx(0.025)


@given(probability=probabilities, seed=st.integers(0, 99), bins=st.integers(1, 20))
def test_calibration_counts_everything_once(probability, seed, bins):
    right = np.random.default_rng(seed).random(probability.shape) < probability
    result = analysis.calibration(probability, right, bins)
    assert result.counts.sum() == len(probability) and result.right.sum() == right.sum()
    assert 0 <= result.expected_error <= 1
    filled = result.counts > 0
    inside = result.mean_probability[filled]
    assert (inside >= result.edges[:-1][filled] - 1e-6).all()
    assert (inside <= result.edges[1:][filled] + 1e-6).all()


def test_by_givens_one_group_each_or_ranges():
    right = np.array([True, False, True])
    assert analysis.by_givens(right, np.array([5, 4, 5])) == [Rate("4", 0, 1), Rate("5", 2, 2)]
    assert analysis.by_givens(right, np.array([17, 18, 40])) == [
        Rate("17–18", 1, 2),
        Rate("39–40", 1, 1),
    ]
    assert analysis.by_givens(right[:0], np.array([], np.int64)) == []


def test_by_difficulty():
    guesses = np.array([0, 0, 1, 3, 2, 900, 1001, -1])
    right = np.array([True, False, True, True, False, True, False, False])
    assert analysis.by_difficulty(right, guesses, 1000) == [
        Rate("0", 1, 2),
        Rate("1", 1, 1),
        Rate("2–3", 1, 2),
        Rate("512–1000", 1, 1),
        Rate("more than 1,000", 0, 1),
        Rate("no solution", 0, 1),
    ]


@given(
    values=st.lists(st.tuples(st.integers(0, 625), st.booleans()), min_size=1, max_size=50),
)
def test_groups_hold_every_puzzle_once(values):
    numbers, right = (np.array(column) for column in zip(*values, strict=True))
    for rates in (
        analysis.by_givens(right, numbers),
        analysis.by_difficulty(right, numbers - 1, 500),
    ):
        assert sum(r.total for r in rates) == len(values)
        assert sum(r.right for r in rates) == right.sum()
        assert len(rates) <= analysis.MOST_GROUPS + 2


def test_worst_are_most_wrong_then_surest():
    wrong = np.array([0, 5, 1, 5, 2, 1])
    sure = np.array([1.0, 0.1, 0.9, 0.3, 0.2, 0.95])
    most, surest = analysis.worst(wrong, sure, 2)
    assert most.tolist() == [3, 1] and surest.tolist() == [5, 2]
    most, surest = analysis.worst(np.zeros(3, int), sure[:3], 2)
    assert not len(most) and not len(surest)


@given(
    pairs=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=30),
    count=st.integers(1, 5),
)
@settings(max_examples=50)
def test_worst_shows_no_puzzle_twice_and_none_that_is_solved(pairs, count):
    wrong, sure = (np.array(column) for column in zip(*pairs, strict=True))
    most, surest = analysis.worst(wrong, sure, count)
    shown = [*most, *surest]
    assert len(set(shown)) == len(shown) == min(2 * count, int((wrong > 0).sum()))
    assert (wrong[shown] > 0).all()


def test_one_right_one_wrong():
    wrong = np.array([[3, 0, 0], [4, 5, 0], [9, 9, 1], [9, 9, 2], [9, 0, 0]])
    assert analysis.one_right_one_wrong(wrong, np.zeros(5)) == [1, 3]
    assert analysis.one_right_one_wrong(wrong[:2], np.zeros(2)) == [1]
    assert analysis.one_right_one_wrong(wrong[2:4], np.zeros(2)) == [1]
