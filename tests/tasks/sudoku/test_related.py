"""Puzzles found around given ones."""

import os
import signal
import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hrm.errors import UserError
from hrm.signals import Interrupted, handled_by, interrupt
from hrm.tasks.sudoku import families, nested
from hrm.tasks.sudoku.bitboard import needs_nested_trials, settled_share
from hrm.tasks.sudoku.difficulty import count_guesses
from hrm.tasks.sudoku.generator import Puzzles
from hrm.tasks.sudoku.related import with_related
from hrm.tasks.sudoku.symmetry import augment, canonical_hash
from tests.tasks.sudoku.test_difficulty import EASY, HARD, tokens
from tests.tasks.sudoku.test_nested import BOX, NESTED
from tests.tasks.sudoku.test_search import assert_minimal

COUNT = 4


@pytest.fixture(scope="module")
def origins() -> Puzzles:
    questions = tokens(EASY, HARD, *NESTED[:2])
    return questions, count_guesses(questions, BOX)[1]


@pytest.fixture(scope="module")
def both(origins: Puzzles) -> Puzzles:
    return with_related(origins, None, COUNT, workers=1)


def test_they_stand_behind_the_given_ones_are_minimal_and_as_hard(
    origins: Puzzles, both: Puzzles
) -> None:
    count = len(origins[0])
    for given, joined in zip(origins, both, strict=True):
        assert (joined[:count] == given).all() and len(joined) == count * (COUNT + 1)
    _, solutions = count_guesses(both[0], BOX)
    assert (solutions == both[1]).all()
    for number, origin in enumerate(origins[0]):
        most = max(settled_share(origin, 1.0), nested.EASIEST_NESTED)
        places = slice(count + number * COUNT, count + (number + 1) * COUNT)
        for question, answer in zip(both[0][places], both[1][places], strict=True):
            assert_minimal(question, answer, BOX)
            assert settled_share(question, 1.0) <= most
            assert needs_nested_trials(question) or not needs_nested_trials(origin)
    assert needs_nested_trials(both[0][-1])


def test_they_are_near_what_they_were_found_around(origins: Puzzles, both: Puzzles) -> None:
    """The first of each has all givens of its origin but one, and of those added few are left."""
    count = len(origins[0])
    for number in range(2, count):
        new = both[0][count + number * COUNT]
        assert ((new == origins[0][number]) & (new > 0)).sum() >= 0.6 * (new > 0).sum()


def test_none_is_another_one_up_to_symmetry(origins: Puzzles, both: Puzzles) -> None:
    count = len(origins[0])
    versions = augment(*both, BOX, np.random.default_rng(0))
    test = tuple(of[count + 1 : count + 3] for of in versions)
    fewer = with_related(origins, test, COUNT, workers=1)
    left = np.delete(both[0], [count + 1, count + 2], axis=0)
    assert (fewer[0] == left).all()

    twice = tuple(
        np.concatenate([of[:count], more[:count]]) for of, more in zip(both, versions, strict=True)
    )
    found = with_related(twice, None, COUNT, workers=1)[0][2 * count :]
    classes = canonical_hash(np.concatenate([origins[0], found]), BOX)
    assert len(np.unique(classes)) == len(classes) and len(found) > COUNT * count


def test_seed_and_place_decide_and_the_number_of_processes_does_not(
    origins: Puzzles, both: Puzzles
) -> None:
    again = with_related(origins, None, COUNT, workers=2)
    assert all((one == other).all() for one, other in zip(both, again, strict=True))
    other = with_related(origins, None, COUNT, seed=1, workers=1)[0]
    assert other.shape != both[0].shape or (other != both[0]).any()
    count = len(origins[0])
    fewer = with_related(tuple(of[:2] for of in origins), None, COUNT, workers=1)
    assert (fewer[0][2:] == both[0][count : count + 2 * COUNT]).all()


def test_none_at_all(origins: Puzzles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a search comes to nothing, the puzzles are as they were."""
    monkeypatch.setattr(nested, "neighbours", lambda *_: nested.Found(*np.empty((3, 0, 81))))
    for given, joined in zip(origins, with_related(origins, None, COUNT, workers=1), strict=True):
        assert (given == joined).all()


def test_nothing_is_found_around_an_empty_grid(origins: Puzzles) -> None:
    empty = np.zeros_like(origins[0][:1]), origins[1][:1]
    assert len(with_related(empty, None, COUNT, workers=1)[0]) == 1


@pytest.mark.parametrize(
    ("module", "name"),
    [(nested, "settled_share"), (nested, "_neighbours"), (nested, "needs_nested_trials")]
    + [(families, "make")],
)
def test_interruptions_wait_while_numba_compiles(
    origins: Puzzles, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    """What it had begun was freed twice where an exception came."""
    compiled, ended = getattr(module, name), []

    def compile_under_a_signal(*args: Any) -> Any:
        if not ended:
            os.kill(os.getpid(), signal.SIGTERM)
        result = compiled(*args)
        ended.append(True)
        return result

    monkeypatch.setattr(module, name, compile_under_a_signal)
    with handled_by(interrupt), pytest.raises(Interrupted):
        with_related(origins, None, COUNT, workers=1)
    assert ended


def test_a_search_in_this_process_bears_interruptions(origins: Puzzles) -> None:
    """Numba crashed where a signal's exception came while it read the generator's address."""
    for _ in range(20):
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        with handled_by(interrupt), pytest.raises(Interrupted):
            timer.start()
            with_related(origins, None, 10**4, workers=1)


def test_what_is_missing_is_said(origins: Puzzles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("nested", "families"):
        monkeypatch.delitem(sys.modules, f"hrm.tasks.sudoku.{name}")
        monkeypatch.delattr(f"hrm.tasks.sudoku.{name}")
    with pytest.raises(UserError, match="--num-related needs numba"):
        with_related(origins, None, COUNT)
