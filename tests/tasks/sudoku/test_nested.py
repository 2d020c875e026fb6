"""Puzzles that need trials within trials, against slow references, and the climbs to them."""

import numpy as np
import pytest

from hrm.tasks.sudoku import bitboard, nested, search
from hrm.tasks.sudoku.difficulty import _apply_singles, count_guesses
from hrm.tasks.sudoku.minimal import generate_minimal_split
from hrm.tasks.sudoku.rules import units
from tests.tasks.sudoku.test_difficulty import EASY, EMPTY, HARD, tokens
from tests.tasks.sudoku.test_search import assert_minimal

BOX = (3, 3)
NESTED = (
    ".2..3.1..8........4..2....5..61.5..4..9..........2.6.1....1.3...7.6....8.5.8.....",
    "......5..9..54...2.....36....7..9.1..2.....8..19.2.........8..3..5..6..74...9....",
    "7.....48..96..........13.....4..216..6.......5..7....22...4...5..72...9....3.....",
)
FOUND_SOON = 5  # seed of a climb


def by_singles(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States, [M, 81] uint32, as the reference leaves them, and which are contradictions."""
    full, wrong = np.uint32(0o777), np.zeros(len(states), bool)
    while True:
        after, contradiction = _apply_singles(states, *units(BOX), full)
        wrong |= contradiction
        if (wrong[:, None] | (after == states)).all():
            return states, wrong
        states = np.where(wrong[:, None], states, after)


def trials_of(state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A state for each candidate of an open cell that is assumed; the cells, the candidates."""
    bits = np.uint32(1) << np.arange(9, dtype=np.uint32)
    is_open = np.bitwise_count(state) > 1
    cells, digits = np.nonzero((state[:, None] & bits != 0) & is_open[:, None])
    states = np.repeat(state[None], len(cells), 0)
    states[np.arange(len(cells)), cells] = bits[digits]
    return states, cells, bits[digits]


def start_of(question: np.ndarray) -> np.ndarray:
    return search.as_state(question, BOX)[None].astype(np.uint32)


def expected_share(question: np.ndarray) -> float:
    [state], _ = by_singles(start_of(question))
    states, wrong = by_singles(trials_of(state)[0])
    was_open = (np.bitwise_count(state) > 1).sum()
    left = np.where(wrong, 0, (np.bitwise_count(states) > 1).sum(1))
    return float(1 - left.mean() / was_open) if was_open else 1.0


def expected_nested(question: np.ndarray) -> bool:
    [state] = start_of(question)
    while True:
        [state], _ = by_singles(state[None])
        states, cells, bits = trials_of(state)
        if not len(cells):
            return False
        _, wrong = by_singles(states)
        if not wrong.any():
            return True
        np.bitwise_and.at(state, cells[wrong], ~bits[wrong])


def test_trials_are_those_of_a_slow_reference() -> None:
    minimal_ones = generate_minimal_split(BOX, 12, 0, 3, workers=1)[0][0]
    for question in np.concatenate([tokens(EASY, HARD, *NESTED), minimal_ones]):
        before, share = question.copy(), expected_share(question)
        assert bitboard.settled_share(question, 1.0) == pytest.approx(share, abs=1e-12)
        assert bitboard.settled_share(question, share + 1e-9) == pytest.approx(share, abs=1e-12)
        assert bitboard.settled_share(question, share - 1e-9) == 1
        assert bitboard.needs_nested_trials(question) is expected_nested(question)
        assert (question == before).all()


def test_puzzles_that_need_nested_trials_settle_little() -> None:
    for question, is_nested in zip(tokens(*NESTED, HARD, EASY), [*[True] * 4, False], strict=True):
        assert bitboard.needs_nested_trials(question) is is_nested
        assert (bitboard.settled_share(question, 1.0) < 0.15) == is_nested


def test_all_solutions_are_found_or_as_many_as_there_is_room_for() -> None:
    solutions = np.empty((300, 81), np.uint8)
    for question in tokens(EASY, HARD, *NESTED):
        assert bitboard.solve(question, solutions) == 1
        assert (solutions[0] == count_guesses(question[None], BOX)[1][0]).all()
    [answer] = count_guesses(tokens(EASY), BOX)[1]
    question = answer.copy()
    question[:30] = 0
    count = bitboard.solve(question, solutions)
    assert 1 < count < 300 and len(np.unique(solutions[:count], axis=0)) == count
    for solution in solutions[:count]:
        assert ((question == 0) | (question == solution)).all()
        grid = solution.reshape(9, 9)
        boxes = grid.reshape(3, 3, 3, 3).swapaxes(1, 2).reshape(9, 9)
        for lines in (grid, grid.T, boxes):
            assert (np.sort(lines, axis=1) == np.arange(1, 10)).all()
    expected = 0  # each solution has one of the digits in the first cell, which is blank
    for digit in range(1, 10):
        more = question.copy()
        more[0] = digit
        expected += bitboard.solve(more, np.empty((300, 81), np.uint8))
    assert count == expected
    assert bitboard.solve(question, solutions[:2]) == 2
    assert bitboard.solve(tokens(EMPTY)[0], solutions) == 300
    wrong = answer.copy()
    wrong[0] = wrong[1]
    assert bitboard.solve(wrong, solutions) == 0


def test_givens_go_in_the_order_asked_for() -> None:
    [answer] = count_guesses(tokens(HARD), BOX)[1]
    for order in (np.arange(81), np.arange(81)[::-1].copy()):
        question = answer.copy()
        bitboard.make_minimal(question, order)
        assert_minimal(question, answer, BOX)
        board, given = search.new_board(answer, BOX), np.ones(81, bool)
        search.make_minimal(given, order, board, 10**6)
        assert (given == (question > 0)).all()


def test_neighbours_are_minimal_and_keep_all_givens_but_one() -> None:
    rng, added = np.random.default_rng(0), set()
    for question in tokens(*NESTED):
        kept = 0
        for _ in range(12):
            before = question.copy()
            found = nested.neighbours(question, 0.3, rng)
            assert (question == before).all()
            for new, share in zip(found.questions, found.shares, strict=True):
                fewer = np.where(new == question, new, 0)
                assert (new == question).all() or (fewer > 0).sum() < (question > 0).sum()
                added.add(int((new > 0).sum() - (fewer > 0).sum()))
                assert share == bitboard.settled_share(new, 1.0) <= 0.3
            if len(found.shares):
                _, solutions = count_guesses(found.questions, BOX)
                assert (solutions == found.answers).all()
                assert_minimal(found.questions[0], found.answers[0], BOX)
            kept += len(found.shares)
        assert kept > 5
    assert {1, 2, 3} <= added


def test_a_population_keeps_the_hardest_and_few_alike() -> None:
    population = nested.Population(np.random.default_rng(1))
    for _ in range(nested.FIRST):
        population.step()
    assert len(population.members) == nested.FIRST
    hardest, full = [], False
    for _ in range(400):
        population.step()
        members = population.members
        assert members == sorted(members, key=lambda member: member[:2])
        answers = [member.answer.tobytes() for member in members]
        assert max(map(answers.count, answers)) <= nested.MOST_ALIKE
        assert len({member.question.tobytes() for member in members}) == len(members)
        assert len(members) <= nested.POPULATION
        full |= len(members) == nested.POPULATION
        hardest.append(members[0].share)
    assert full and hardest == sorted(hardest, reverse=True)
    assert hardest[-1] < 0.7 * hardest[0]


def test_a_climb_comes_to_puzzles_that_need_nested_trials() -> None:
    *steps, found = nested.climb(np.random.default_rng(FOUND_SOON))
    assert steps[0] == [] and len(found) == nested.MOST_RELATED
    questions = np.stack([member.question for member in found])
    assert len(np.unique(questions, axis=0)) == len(found)
    _, solutions = count_guesses(questions, BOX)
    assert (solutions == np.stack([member.answer for member in found])).all()
    for member in found:
        assert expected_nested(member.question)
        assert member.share == pytest.approx(expected_share(member.question))
    assert_minimal(found[-1].question, found[-1].answer, BOX)


def test_a_climb_ends_when_it_gets_no_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many steps in a row; many more where it does."""
    monkeypatch.setattr(nested, "PATIENCE", 60)
    longer = list(nested.climb(np.random.default_rng(2)))
    monkeypatch.setattr(nested, "neighbours", lambda *_: nested.Found(*np.empty((3, 0, 81))))
    steps = list(nested.climb(np.random.default_rng(2)))
    population = nested.Population(np.random.default_rng(2))
    for _ in range(nested.FIRST):
        population.step()
    stale = len(steps) - nested.PATIENCE / population.members[0].share
    assert longer[-1] == steps[-1] == []
    assert 0 <= stale <= nested.FIRST and len(longer) > 1.5 * len(steps)


def test_a_climb_goes_on_while_it_gets_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its patience begins anew with each gain that counts."""
    [question] = tokens(EASY)
    shares = [0.8] * 50 + [0.7] * 50 + [0.6] * 50 + [0.6 - nested.GAIN / 2] * 500

    class Steps:
        def __init__(self, _: np.random.Generator) -> None:
            self.taken = 0

        def step(self) -> None:
            self.taken += 1

        @property
        def members(self) -> list[nested.Member]:
            return [nested.Member(shares[self.taken - 1], 0, question, question)]

    monkeypatch.setattr(nested, "Population", Steps)
    monkeypatch.setattr(nested, "PATIENCE", 60)
    steps = list(nested.climb(np.random.default_rng(0)))
    assert not any(steps) and len(steps) == 101 + nested.PATIENCE / 0.6
