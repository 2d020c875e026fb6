"""Symmetric versions, other starts and noise: which are asked for, and which answer counts."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hrm.attempts import Attempt, Plan, RolloutOptions, plan_attempts, run_wave
from hrm.errors import UserError
from hrm.inference import Solver
from hrm.models.act import add_noise
from hrm.tasks import task_of
from hrm.tasks.sudoku.task import SudokuTask
from tests.inference.test_batcher import PUZZLES, ThirdsAreValid
from tests.inference.test_solver import halting_solver, make_solver, metadata
from tests.watching import rows_of_steps

SUDOKU = task_of(metadata())


class AllAreValid(SudokuTask):
    def are_valid(self, answers: np.ndarray, inputs: np.ndarray) -> list[bool | None]:
        return [True] * len(answers)


@dataclass(frozen=True)
class End:
    """An attempt's end, as answers are compared by."""

    attempt: int
    steps: int
    valid: bool | None
    halt_probability: float
    text: str = "a"

    @property
    def tokens(self) -> np.ndarray:
        return np.array([ord(self.text)], np.int32)


@pytest.mark.parametrize(
    ("select", "ends", "expected"),
    [
        ("valid", [End(1, 9, False, 0.9), End(2, 9, True, 0.1)], 2),
        ("valid", [End(3, 4, True, 0.1), End(2, 5, True, 0.9), End(1, 1, False, 1)], 3),
        ("valid", [End(3, 4, True, 0.9), End(2, 4, True, 0.1)], 2),
        ("valid", [End(2, 4, False, 0.5), End(1, 4, False, 0.5)], 1),
        ("valid", [End(1, 4, False, 0.5), End(2, 4, False, 0.6)], 2),
        ("q_halt", [End(1, 4, True, 0.5), End(2, 4, False, 0.6)], 2),
        ("q_halt", [End(1, 4, None, 0.5), End(2, 4, None, 0.5)], 1),
        ("majority", [End(1, 4, True, 0.5, "b"), End(2, 4, False, 0.6), End(3, 4, False, 0.7)], 3),
        ("majority", [End(1, 4, True, 0.5, "b"), End(2, 4, False, 0.6, "c")], 2),
        ("majority", [End(n, 4, None, 0.1 * n, "abbaa"[n]) for n in range(1, 5)], 4),
    ],
)
def test_the_answer_that_counts(select, ends, expected):
    for order in (ends, ends[::-1]):
        assert Plan(select=select).choose(order).attempt == expected


def test_attempts_side_by_side_cost_what_they_take_until_one_counts():
    plan = plan_attempts(SUDOKU, votes=2, noise=1, rollouts=7, select="valid")
    assert [len(wave) for wave in plan.waves] == [1, 1, 1, 2, 3]
    failed = [End(n, 8, False, 0) for n in range(1, 4)]
    assert plan.cost(failed[:1]) == (1, 8) and plan.cost(failed) == (3, 24)
    assert plan.cost([*failed, End(4, 8, False, 0), End(5, 3, True, 0)]) == (5, 24 + 3 + 3)
    assert plan.cost([*failed, End(5, 3, True, 0)]) == (5, 24 + 3 + 3)
    assert plan.cost([*failed, End(4, 2, False, 0), End(5, 3, True, 0)]) == (5, 24 + 2 + 3)
    all_ended = [End(n, n, n == 1, 0) for n in range(1, 9)]
    every = replace(plan, select="q_halt")
    assert every.cost(all_ended) == (8, sum(range(1, 9)))


@cache
def thirds() -> tuple[Solver, np.ndarray]:
    """A solver that halts about half of the puzzles at the first step, and holds a third right."""
    solver = halting_solver(PUZZLES)
    solver.task = ThirdsAreValid(solver.metadata)
    return solver, PUZZLES


@torch.inference_mode()
def ends_alone(solver: Solver, tokens: np.ndarray, position: int, plan: Plan, steps: int):
    """The end of every attempt at a puzzle, [attempts], none of them given up."""
    inner, attempts = solver.model.model.inner, plan.attempts
    rows = len(attempts)
    starts = [inner.initial_states(attempt.start_seed) for attempt in attempts]
    blank = inner.blank_states(rows, torch.device("cpu"))
    states = {
        name: torch.stack([start[name] for start in starts])
        .view(rows, 1, -1)
        .expand_as(blank[name])
        for name in blank
    }
    inputs = torch.from_numpy(np.stack([attempt.apply(tokens) for attempt in attempts])).int()
    names = torch.zeros(rows, dtype=torch.int32)
    prepared = inner.prepare(inputs, inner.look_up(names))
    scale = torch.tensor([attempt.noise for attempt in attempts], dtype=torch.float32)
    seed = torch.tensor([attempt.noise_seed for attempt in attempts])
    counters = torch.full((rows,), position), torch.tensor([a.rollout for a in attempts])
    ends: dict[int, tuple[int, np.ndarray, float]] = {}
    for step in range(steps):
        states = add_noise(states, scale, seed, *counters, torch.full((rows,), step))
        states, logits, q_halt, q_continue = inner.step(states, prepared)
        assume((q_halt - q_continue).abs().min() > 1e-4)  # else rounding decides
        for n, attempt in enumerate(attempts):
            if n not in ends and (q_halt[n] > q_continue[n] or step == steps - 1):
                answer = attempt.undo(logits[n].argmax(-1).numpy().astype(np.int32))
                ends[n] = step + 1, answer, float(q_halt[n].sigmoid())
    return [ends[n] for n in range(rows)]


def chosen_alone(solver: Solver, ends, plan: Plan) -> tuple[int, int]:
    """Which attempt counts, from 0, and the ACT steps of all, from the ends of every attempt."""
    valid = solver.task.are_valid(np.stack([tokens for _, tokens, _ in ends]), None)
    cost, begin = 0, 0
    for wave in plan.waves if plan.select == "valid" else ():
        here = range(begin, begin + len(wave))
        right = [(ends[n][0], n) for n in here if valid[n]]
        last = min(right)[0] if right else 10**9
        cost += sum(min(ends[n][0], last) for n in here)
        if right:
            return min(right)[1], cost
        begin += len(wave)
    sure = np.array([halt for *_, halt in ends])
    if plan.select == "majority":
        texts = [tokens.tobytes() for _, tokens, _ in ends]
        counts = np.array([texts.count(text) for text in texts])
        sure = np.where(counts == counts.max(), sure, -1)
    return int(sure.argmax()), sum(taken for taken, *_ in ends)


tries = st.fixed_dictionaries(
    {
        "votes": st.sampled_from([1, 1, 3]),
        "restarts": st.sampled_from([0, 0, 2]),
        "rollouts": st.sampled_from([14, 8, 3]),
        "noise": st.sampled_from([0.3, 1.0]),
        "select": st.sampled_from(["valid"] * 4 + ["q_halt", "majority"]),
        "seed": st.integers(0, 2**40),
    }
)


@given(
    tries,
    st.sampled_from([1, 2, 3, 64]),
    st.sampled_from([2, 3, 7]),
    st.integers(0, 11),
    st.integers(1, 4),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_puzzle_is_answered_as_if_each_attempt_ran_alone(tries, batch_size, steps, first, count):
    """Whatever else is asked, and however many attempts think side by side."""
    solver, puzzles = thirds()
    rows = range(first, min(first + count, 12))
    plan = plan_attempts(solver.task, **tries)
    expected = [ends_alone(solver, puzzles[row], row, plan, steps) for row in rows]
    found = solver.solve(
        puzzles[rows], steps=steps, batch_size=batch_size, offset=first, trace=count > 2, **tries
    )
    for ends, solution in zip(expected, found, strict=True):
        best, cost = chosen_alone(solver, ends, plan)
        taken, tokens, halt = ends[best]
        if tries["select"] != "valid":  # halting probabilities may be equal but for rounding
            others = [h for n, (*_, h) in enumerate(ends) if n != best]
            assume(min(abs(h - halt) for h in others) > 1e-5)
        assert (solution.attempt, solution.steps) == (best + 1, taken)
        np.testing.assert_array_equal(solution.tokens, tokens)
        assert solution.halt_probability == pytest.approx(halt, abs=1e-5)
        assert solution.total_steps == cost
        if solution.trace is not None:
            assert len(solution.trace.tokens) == taken
            np.testing.assert_array_equal(solution.trace.tokens[-1], tokens)


def test_attempts_that_cannot_count_are_given_up():
    """Of a wave without an end, the steps that are computed are those that it costs."""
    solver = make_solver()
    with torch.no_grad():
        solver.model.model.inner.q_head.bias.copy_(torch.tensor([0.0, 3.0]))
    rows = rows_of_steps(solver.model.model)
    plan = Plan((tuple(Attempt(noise=1.0, rollout=n) for n in range(1, 16)),), "valid")
    how = RolloutOptions("learned", 0.0, 50, 15)
    inputs = torch.from_numpy(PUZZLES[:1])
    batch = {"inputs": inputs, "puzzle_identifiers": torch.zeros(1, dtype=torch.int32)}
    arguments = (batch, torch.tensor([0]), plan, plan.waves[0], how, torch.device("cpu"))
    with torch.inference_mode():
        steps = list(run_wave(solver.model, AllAreValid(solver.metadata), *arguments))
    assert steps[-1].halting.any() and not any(step.halting.any() for step in steps[:-1])
    assert 1 < len(steps) < 50 and sum(rows) == 15 * len(steps)


def test_a_valid_answer_ends_the_search(monkeypatch):
    solver = make_solver()
    puzzles = np.random.default_rng(0).integers(5, size=(3, 16))
    asked = []

    def judged(answers: np.ndarray, inputs: np.ndarray) -> list[bool]:
        asked.append(len(answers))
        return [row == len(asked) - 1 for row in range(len(answers))]

    monkeypatch.setattr(solver.task, "are_valid", judged)
    solutions = solver.solve(puzzles, halting="max_steps", votes=2, restarts=2)
    assert asked == [3, 2, 1, 1]  # the first of 3, then the second of 2, then none of the last
    assert [s.total_steps for s in solutions] == [4, 16, 8]


def test_the_plan_begins_with_the_puzzle_and_ends_with_noise():
    plan = plan_attempts(SUDOKU, votes=3, restarts=2, noise=0.5, rollouts=6, seed=5)
    assert plan.select == "valid" and plan.width == 2
    assert [len(wave) for wave in plan.waves] == [1] * 5 + [1, 2, 2]
    asked = plan.attempts
    assert asked[0] == Attempt() and len(asked) == 10
    assert all(attempt.symmetry and attempt.start_seed is None for attempt in asked[1:3])
    assert [attempt.start_seed for attempt in asked[3:5]] == [5, 6]
    assert asked[5:] == tuple(Attempt(noise=0.5, noise_seed=5, rollout=n) for n in range(1, 6))
    for select in ("q_halt", "majority"):
        all_at_once = plan_attempts(SUDOKU, noise=0.5, rollouts=6, select=select)
        assert [len(wave) for wave in all_at_once.waves] == [1, 5]


def test_where_no_rules_are_known_the_surest_answer_counts():
    grids = task_of(metadata(task="grids"))
    assert plan_attempts(grids).select == "q_halt"
    assert plan_attempts(grids, select="majority").select == "majority"
    with pytest.raises(UserError, match="select=valid: no rules are known for grids; use q_halt"):
        plan_attempts(grids, select="valid")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"votes": 0}, "votes=0: must be at least 1"),
        ({"restarts": -1}, "restarts=-1: must be at least 0"),
        ({"rollouts": 0}, "rollouts=0: must be at least 1"),
        ({"noise": -0.5}, "noise=-0.5: must be a number of at least 0"),
        ({"noise": float("nan")}, "noise=nan: must be"),
        ({"rollouts": 2}, "rollouts=2: all would be equal; give noise, too"),
        ({"noise": 0.5}, "noise=0.5: the first rollout is without; give rollouts=2 or more"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        plan_attempts(SUDOKU, **wrong)


def test_guesses_take_few_steps():
    guess = Attempt(is_guess=True)
    limits = [guess.steps_at_most(*given) for given in ((100, 64), (100, 8), (5, 64))]
    assert limits == [16, 8, 5] and Attempt().steps_at_most(100, 64) == 100
