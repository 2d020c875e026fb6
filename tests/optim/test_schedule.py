"""The learning rate, by numbers."""

import math

import pytest

from hrm.optim.schedule import learning_rate, total_steps


@pytest.mark.parametrize(
    "step, expected",
    [
        (1, 0.01),  # the first update: not zero
        (50, 0.5),
        (99, 0.99),
        (100, 1.0),
        (101, 0.1 + 0.45 * (1 + math.cos(math.pi / 900))),
        (325, 0.1 + 0.45 * (1 + math.sqrt(0.5))),
        (550, 0.55),
        (1000, 0.1),
        (1001, 0.1),
        (10**6, 0.1),
    ],
)
def test_warmup_then_cosine(step, expected):
    for base in (1.0, 7e-5):
        rate = learning_rate(step, base, warmup_steps=100, total_steps=1000, min_ratio=0.1)
        assert rate == pytest.approx(base * expected, rel=1e-12)


def test_without_warmup():
    assert learning_rate(0, 2.0, 0, 10, 0.0) == 2.0
    assert learning_rate(5, 2.0, 0, 10, 0.0) == pytest.approx(1.0)
    assert learning_rate(10, 2.0, 0, 10, 0.0) == pytest.approx(0.0, abs=1e-15)


def test_constant_at_ratio_one():
    assert {learning_rate(s, 0.3, 0, 100, 1.0) for s in range(1, 120)} == {0.3}


@pytest.mark.parametrize("total", [1, 50, 100])
def test_runs_shorter_than_the_warmup(total):
    rates = [learning_rate(step, 1.0, 100, total, 0.1) for step in range(1, 121)]
    assert rates[:99] == [step / 100 for step in range(1, 100)]
    assert rates[99] == 1.0 and rates[-1] == pytest.approx(0.1)


def test_never_rises_after_the_warmup():
    rates = [learning_rate(step, 1.0, 10, 200, 0.2) for step in range(10, 260)]
    assert rates == sorted(rates, reverse=True) and min(rates) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "epochs, groups, examples, batch, expected",
    [
        (20000, 1000, 1.0, 384, 52083),  # 52083.33
        (10, 100, 1.0, 100, 10),
        (10, 100, 1.0, 101, 9),  # 9.9
        (3, 400, 2.5, 64, 46),  # 46.875
        (1, 10, 1.0, 384, 1),  # a run has one step at least
    ],
)
def test_total_steps(epochs, groups, examples, batch, expected):
    assert total_steps(epochs, groups, examples, batch) == expected
