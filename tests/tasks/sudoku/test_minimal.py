"""Minimal puzzles: one solution, no given to spare, the wanted difficulty, the same for a seed."""

import csv
import itertools
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.progress import Progress
from hrm.tasks.sudoku import families, minimal, nested
from hrm.tasks.sudoku.difficulty import MOST_GUESSES, count_guesses
from hrm.tasks.sudoku.generator import Puzzles, classes
from hrm.tasks.sudoku.minimal import (
    EXTREME,
    MOST_OF_A_FAMILY,
    Bands,
    generate_minimal_split,
    parse_difficulty,
    shares,
)
from hrm.tasks.sudoku.rules import BoxShape
from hrm.tasks.sudoku.symmetry import are_equivalent, canonical_hash, random_symmetries
from tests.conftest import ROOT
from tests.tasks.sudoku.test_difficulty import HARD, tokens
from tests.tasks.sudoku.test_nested import NESTED
from tests.tasks.sudoku.test_search import assert_minimal

BOX = (3, 3)
MIXED: Bands = ((3, 0, 0), (1, 4, 9))
NUMBERS = 2 * MOST_OF_A_FAMILY, 10


@lru_cache
def generated(
    box_shape: BoxShape = BOX,
    difficulty: Bands | None = MIXED,
    seed: int = 0,
    workers: int = 1,
) -> tuple[Puzzles, Puzzles]:
    return generate_minimal_split(box_shape, *NUMBERS, seed, difficulty, workers)


def assert_same(one: tuple[Puzzles, Puzzles], other: tuple[Puzzles, Puzzles]) -> None:
    for first, second in zip(one, other, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("box_shape", [(2, 2), (2, 3), (3, 3)])
def test_puzzles_are_minimal_and_distinct(box_shape: BoxShape) -> None:
    for (questions, answers), wanted in zip(generated(box_shape, None), NUMBERS, strict=True):
        assert len(questions) == len(np.unique(questions, axis=0)) == wanted
        for question, answer in zip(questions[:3], answers, strict=False):
            assert_minimal(question, answer, box_shape)


def test_a_large_minimal_puzzle_is_made() -> None:
    (questions, answers), _ = generate_minimal_split((3, 4), 1, 0, workers=1)
    assert questions.shape == (1, 144) and count_guesses(questions, (3, 4))[0][0] >= 0
    assert ((questions == 0) | (questions == answers)).all()


def test_each_split_has_its_share_of_each_band() -> None:
    for (questions, answers), wanted in zip(generated(), NUMBERS, strict=True):
        assert len(np.unique(questions, axis=0)) == wanted
        guesses, solutions = count_guesses(questions, BOX)
        assert np.array_equal(solutions, answers)
        in_bands = [((low <= guesses) & (guesses <= high)).sum() for _, low, high in MIXED]
        assert in_bands == shares(wanted, [3, 1])
        for question, answer in zip(questions[:3], answers, strict=False):
            assert_minimal(question, answer, BOX)


def test_bands_are_mixed_in_a_split() -> None:
    guesses, _ = count_guesses(generated()[0][0], BOX)
    assert 1 < np.count_nonzero(np.diff(guesses > 0))


def test_a_band_of_hard_puzzles_is_reached() -> None:
    wanted = parse_difficulty("32-1000")
    (questions, answers), _ = generate_minimal_split(BOX, 2, 0, 1, wanted, workers=1)
    guesses, _ = count_guesses(questions, BOX)
    assert ((guesses >= 32) & (guesses <= MOST_GUESSES)).all()
    assert_minimal(questions[0], answers[0], BOX)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_processes_changes_nothing(workers: int) -> None:
    assert_same(generated(), generated(workers=workers))


@pytest.mark.parametrize(("box_shape", "difficulty"), [((2, 2), None), (BOX, MIXED)])
def test_equal_seeds_give_equal_puzzles(box_shape: BoxShape, difficulty: Bands | None) -> None:
    first = generated(box_shape, difficulty)
    generated.cache_clear()
    assert_same(first, generated(box_shape, difficulty))
    (questions, _), (others, _) = first[0], generated(box_shape, difficulty, seed=1)[0]
    assert not np.array_equal(questions, others)


def test_a_family_follows_from_its_description_alone() -> None:
    family, other = (families.Family(BOX, (((0, 3), 3),), stream) for stream in "ab")
    first = made_by(family)
    assert not set(first) & set(made_by(other)) and first == made_by(family)
    assert len(set(first)) == 3


BANDS = ((8, 31), 4), ((32, 1000), 4)


def made_by(family: families.Family) -> list[families.Made]:
    return [made for report in families.make(family) for made in report.made]


def test_climbs_give_versions_whose_guesses_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each climb's puzzles once, the next climb's after them, from another random state."""
    questions = tokens(*NESTED)
    answers, seeds = count_guesses(questions, BOX)[1], []

    def climb(rng: np.random.Generator) -> Iterator[list[nested.Member]]:
        seeds.append(rng.integers(2**32))
        row = len(seeds) % 4
        found = zip(questions[row : row + 1], answers[row : row + 1], strict=True)
        yield []
        yield [nested.Member(0.1, 0, question, answer) for question, answer in found]

    monkeypatch.setattr(nested, "climb", climb)
    made = made_by(families.Family(BOX, BANDS, "a", climbs=True))
    assert Counter(one.band for one in made) == dict(BANDS)
    assert len(set(seeds)) == len(seeds) >= len(made)
    versions = np.array([np.frombuffer(one.puzzle[0], np.uint8) for one in made])
    guesses, solutions = count_guesses(versions, BOX)
    assert [one.puzzle[1] for one in made] == [solution.tobytes() for solution in solutions]
    assert all(low <= count <= high for (_, (low, high)), count in zip(made, guesses, strict=True))
    assert len(np.unique(versions, axis=0)) == len(made)
    assert set(canonical_hash(versions, BOX)) == set(canonical_hash(questions, BOX))
    count, seeds[:] = len(seeds), []
    assert made == made_by(families.Family(BOX, BANDS, "a", climbs=True)) and len(seeds) == count
    assert made != made_by(families.Family(BOX, BANDS, "b", climbs=True))


def test_a_version_is_in_the_band_that_has_fewest() -> None:
    [question] = tokens(HARD)
    grid = families._Grid(count_guesses(question[None], BOX)[1][0].tolist(), BOX)
    bands = [(0, 15), (16, 63), (64, 1000), (5000, 5000)]
    found = Counter()
    for seed in range(6):
        made = grid.version_in(bands, question > 0, random.Random(seed))
        assert made is not None and made.band != (5000, 5000)
        guesses, _ = count_guesses(np.frombuffer(made.puzzle[0], np.uint8)[None], BOX)
        assert made.band[0] <= guesses[0] <= made.band[1]
        found[made.band] += 1
    rng = np.random.default_rng(0)
    symmetries = zip(*random_symmetries(rng, 200, BOX), strict=True)
    versions = np.stack([digits[question][place] for place, digits in symmetries])
    guesses, _ = count_guesses(versions, BOX)
    rarest = min(bands[:3], key=lambda band: ((band[0] <= guesses) & (guesses <= band[1])).sum())
    assert found.most_common(1)[0] == (rarest, max(found.values())) and found[rarest] >= 5
    assert grid.version_in([(0, 1000)], question > 0, random.Random(0)) is not None
    assert grid.version_in([(5000, 5000)], question > 0, random.Random(0)) is None


def count_of(family: families.Family) -> int:
    return sum(count for _, count in family.wanted)


@pytest.mark.parametrize("text", ["like-extreme", "0-255"])
def test_like_extreme_asks_for_climbs(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[families.Family] = []

    def ask(make: object, jobs: list[families.Family], *_: object) -> Iterator[families.Report]:
        asked.extend(jobs)
        raise UserError("enough")

    ready: list[bool] = []
    monkeypatch.setattr(minimal, "in_order", ask)
    monkeypatch.setattr(nested, "get_ready", lambda: ready.append(True))
    with pytest.raises(UserError, match="enough"):
        generate_minimal_split(BOX, 4000, 400, 0, parse_difficulty(text), workers=1)
    assert len(ready) == (text == "like-extreme")  # here, before there are processes
    climbed = [family for family in asked if family.climbs]
    if text == "like-extreme":
        bands = {band for family in climbed for band, _ in family.wanted}
        assert bands == {(low, high) for _, low, high in EXTREME if low >= 8}
        share = sum(weight for weight, low, _ in EXTREME if low >= 8) / 1000
        assert sum(map(count_of, climbed)) == pytest.approx(4400 * share, abs=6)
        assert max(map(count_of, climbed)) <= minimal.MOST_FROM_CLIMBS + len(bands)
    else:
        assert not climbed
    assert len({family.stream for family in asked}) == len(asked)
    assert sum(map(count_of, asked)) == 4000 + 400


def test_splits_share_no_puzzle_and_no_answer() -> None:
    (train, train_answers), (test, test_answers) = generated()
    assert not np.isin(canonical_hash(train, BOX), canonical_hash(test, BOX)).any()
    assert not (train_answers[:, None] == test_answers).all(-1).any()
    assert len(np.unique(train_answers, axis=0)) < len(train)


def test_what_the_other_split_has_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where training and test families come out alike in the first round."""
    make, calls = families.make, itertools.count()

    def alike(family: families.Family) -> Iterator[families.Report]:
        in_first_round = next(calls) in (1, 2)  # 0 gets the search ready
        return make(replace(family, stream="same") if in_first_round else family)

    monkeypatch.setattr(families, "make", alike)
    (train, train_answers), (test, test_answers) = generate_minimal_split(
        BOX, 6, 6, 0, ((1, 0, 0),), workers=1
    )
    assert len(train) == len(test) == 6 and next(calls) > 3
    assert not (train_answers[:, None] == test_answers).all(-1).any()


def test_what_the_other_split_has_is_left_out() -> None:
    """By answer alone, by class alone, and what is there already."""
    questions, answers = generated(BOX, None)[0]
    puzzles = [(questions[row].tobytes(), answers[row].tobytes()) for row in range(4)]
    made = [families.Made(puzzle, minimal.ANY) for puzzle in puzzles]
    [puzzle_class] = classes(puzzles[1:2], BOX)
    split_of: dict[int | bytes, int] = {puzzles[0][1]: 0, puzzle_class: 0}
    assert minimal._new_ones(made, 1, split_of) == made[2:]
    assert split_of[puzzles[3][1]] == split_of[classes(puzzles[3:], BOX)[0]] == 1
    assert minimal._new_ones([*made[:2], made[0]], 0, {}) == made[:2]
    assert minimal._new_ones(made[1:2], 0, split_of) == []


def test_too_few_different_puzzles_end_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hrm.tasks.sudoku.generator.MAX_REPEATS_IN_A_ROW", 0)
    with pytest.raises(UserError, match="--givens minimal: too few different puzzles") as caught:
        generate_minimal_split((2, 2), 10**5, 0, workers=1)
    assert "\n" not in str(caught.value)


def test_boxes_out_of_reach_end_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hrm.tasks.sudoku.generator.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(families, "BUDGET", 1)
    with pytest.raises(UserError, match="--generate 3x4 --givens minimal: out of reach"):
        generate_minimal_split((3, 4), 1, 0, workers=1)


@given(total=st.integers(0, 10**5), weights=st.lists(st.integers(1, 500), min_size=1, max_size=12))
def test_shares_are_exact_to_less_than_one_puzzle(total: int, weights: list[int]) -> None:
    found = shares(total, weights)
    assert sum(found) == total
    for share, weight in zip(found, weights, strict=True):
        assert abs(share - total * weight / sum(weights)) < 1


def test_the_largest_remainders_get_what_is_left() -> None:
    assert shares(10, [1, 1, 1]) == [4, 3, 3] and shares(5, [10, 29, 11]) == [1, 3, 1]


def test_like_extreme_is_the_distribution_of_sudoku_extreme() -> None:
    weights = [105, 75, 64, 88, 85, 105, 164, 193, 88, 29, 4]
    assert shares(1000, [weight for weight, *_ in EXTREME]) == weights
    ends = [band for _, *band in EXTREME]
    assert ends[0] == [0, 0] and ends[-1] == [512, MOST_GUESSES]
    assert all(low == before + 1 for (_, before), (low, _) in zip(ends, ends[1:], strict=False))
    assert parse_difficulty("like-extreme") == EXTREME and parse_difficulty("7") == ((1, 7, 7),)


@pytest.mark.parametrize("text", ["abc", "5-2", "-3", "3-", "0-1001", "like", ""])
def test_what_is_no_difficulty_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_difficulty(text)


@pytest.mark.parametrize("missing", ["numba", "cache"])
def test_what_numba_lacks_is_said_in_one_line(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("families", "search"):
        monkeypatch.delitem(sys.modules, f"hrm.tasks.sudoku.{module}")
        monkeypatch.delattr(f"hrm.tasks.sudoku.{module}")
    if missing == "numba":
        monkeypatch.setitem(sys.modules, "numba", None)
    else:
        monkeypatch.setattr("numba.core.caching.FunctionCache._impl_class", _NoPlace)
    words = {"numba": r"pip install 'recursive-reasoning\[generate\]'", "cache": "NUMBA_CACHE_DIR"}
    with pytest.raises(UserError, match=words[missing]) as caught:
        generate_minimal_split((2, 2), 1, 0)
    assert "\n" not in str(caught.value)


class _NoPlace:
    def __init__(self, function: object):
        raise RuntimeError(f"cannot cache function {function}: no locator available")


def test_numba_is_imported_only_where_it_is_needed() -> None:
    code = "import sys, hrm.tasks.sudoku.builder; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_remains_is_told_where_puzzles_come_in_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    class Seen(Progress):
        def __init__(self, *words: Any, **options: Any) -> None:
            asked.append(options)
            super().__init__(*words, **options)

    monkeypatch.setattr(minimal, "Progress", Seen)
    generate_minimal_split((2, 2), 1, 0, workers=1)
    assert asked == [{"in_bursts": True}]


def test_long_compiling_says_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    class AtOnce(threading.Timer):
        def start(self) -> None:
            self.function(*self.args)

    monkeypatch.setattr("hrm.tasks.sudoku.minimal.threading.Timer", AtOnce)
    generate_minimal_split((2, 2), 1, 0, workers=1)
    assert "the first time" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sudoku-hard-blend/test.csv", "sudoku-extreme-1k/train.csv"])
def test_no_puzzle_is_one_of_the_public_ones(name: str) -> None:
    path = ROOT.parent / "shared" / "data" / name
    if not path.exists():
        pytest.skip(f"{name} is no part of the project")
    with path.open() as file:
        rows = [row["question"].replace(".", "0") for row in csv.DictReader(file)]
    public = np.array([list(map(int, row)) for row in rows], np.uint8)
    public_hashes = canonical_hash(public, BOX)
    for questions, _ in generated():
        for question, own in zip(questions, canonical_hash(questions, BOX), strict=True):
            for row in np.flatnonzero(public_hashes == own):
                assert not are_equivalent(question, public[row], BOX)
