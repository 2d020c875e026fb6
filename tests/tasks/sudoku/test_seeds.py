"""Puzzles that need nested trials, found from nothing, and those of the package."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from hrm.tasks.sudoku import minimal, seeds
from hrm.tasks.sudoku.difficulty import count_guesses
from hrm.tasks.sudoku.families import MOST_ALIKE, Grid, Spot
from hrm.tasks.sudoku.symmetry import canonical_hash
from tests.tasks.sudoku.test_difficulty import tokens
from tests.tasks.sudoku.test_search import assert_minimal, expected_nested

BOX = (3, 3)


def share(spot: Spot) -> float:
    return spot[0].settled_share(spot[1], 1.0)


def test_a_population_climbs() -> None:
    """Its puzzles are new; once it is full, each that joins is better than the worst."""
    joined = list(itertools.islice(seeds.climb(random.Random(0)), 3 * seeds.POPULATION))
    assert len({grid.puzzle(given) for grid, given in joined}) == len(joined)
    shares = [share(spot) for spot in joined]
    worst = sorted(shares[: seeds.POPULATION])[-1]
    assert max(shares[seeds.POPULATION + MOST_ALIKE :]) <= worst
    assert np.mean(shares[-20:]) < 0.75 * np.mean(shares[:20])
    for grid, given in joined[-2:]:
        assert_minimal(grid.digits * given, grid.digits, BOX)


def test_it_follows_from_its_seed() -> None:
    one, same, other = (
        [
            grid.puzzle(given)
            for grid, given in itertools.islice(seeds.climb(random.Random(seed)), 20)
        ]
        for seed in (0, 0, 1)
    )
    assert one == same and not set(one) & set(other)


def test_few_of_a_population_share_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "POPULATION", 10**6)
    monkeypatch.setattr(seeds, "MOST_ALIKE", 1)
    joined = list(itertools.islice(seeds.climb(random.Random(0)), 60))
    best: dict[bytes, float] = {}
    for spot in joined:
        answer, own = spot[0].digits.tobytes(), share(spot)
        assert own < best.get(answer, 2.0)
        best[answer] = own
    assert max(Counter(grid.digits.tobytes() for grid, _ in joined).values()) > 1


def test_what_is_found_is_the_first_that_needs_nested_trials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    questions = tokens(*minimal.SEEDS.read_text().split()[:2])
    answers = count_guesses(questions, BOX)[1]
    spots = [
        (Grid(answer.tolist(), BOX), question > 0)
        for question, answer in zip(questions, answers, strict=True)
    ]
    easy = spots[0][0], np.ones(81, bool)
    monkeypatch.setattr(seeds, "climb", lambda _: iter([easy, *spots]))
    assert tokens(seeds.find("a")).tolist() == questions[:1].tolist()


@pytest.mark.slow
def test_one_is_found() -> None:
    [question] = tokens(seeds.find("0 0"))
    assert expected_nested(question, BOX)


def test_those_of_the_package() -> None:
    questions = tokens(*minimal.SEEDS.read_text().split())
    assert len(set(canonical_hash(questions, BOX).tolist())) == len(questions) >= 64
    guesses, answers = count_guesses(questions, BOX)
    assert (guesses > 0).all()
    for question, answer in zip(questions, answers, strict=True):
        assert Grid(answer.tolist(), BOX).is_nested(question > 0)
    for row in range(2):
        assert_minimal(questions[row], answers[row], BOX)
