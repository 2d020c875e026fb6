"""Votes and restarts: the server tries as the solver does, and tells each attempt as it runs."""

import re
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from hrm.attempts import plan_attempts
from hrm.data.format import read_split
from hrm.inference import Solver
from hrm.models.act import Carry
from hrm.rollout import rollout
from hrm.web import schemas

from ..inference.test_batcher import ThirdsAreValid, eventually
from .serving import LOAD, client_of, serve

PUZZLE = "1" + "." * 15
TRIES = [(1, 0, 0), (5, 0, 3), (1, 3, 7), (4, 2, 2**53 - 1)]  # votes, restarts, seed


def load(path: Path) -> Solver:
    """A third of its answers is held to be valid."""
    solver = LOAD(path)
    solver.task = ThirdsAreValid(solver.metadata)
    return solver


@pytest.fixture(scope="module")
def solver(runs) -> Solver:
    return load(runs / "tests/patient")


@pytest.fixture(scope="module")
def client(runs, data_4x4) -> Iterator[httpx.Client]:
    with serve(runs, data_4x4.parent, load) as url, client_of(url) as one:
        yield one


def think(client: httpx.Client, **asked: object) -> list[schemas.StepAnswer]:
    body = {"checkpoint": "tests/patient", "puzzle": PUZZLE, **asked}
    answer = client.post("/api/think", json=body)
    assert answer.status_code == 200, answer.text
    return [schemas.StepAnswer.model_validate_json(line) for line in answer.text.splitlines()]


def solved_alike(client, solver, inputs, expected, tries: dict[str, object]) -> list[dict]:
    """The server's answers, which are the solver's, at the same cost."""
    puzzles = [solver.task.grid.text(row) for row in inputs]
    asked = {"checkpoint": "tests/patient", "puzzles": puzzles, **tries}
    answered = client.post("/api/solve", json=asked).json()["solutions"]
    for one, alone in zip(answered, expected, strict=True):
        assert (one["answer"], one["valid"]) == (alone.answer, alone.valid)
        assert (one["steps"], one["total_steps"]) == (alone.steps, alone.total_steps)
        assert one["attempts"] == alone.total_steps / 4
    return answered


@pytest.mark.parametrize(("votes", "restarts", "seed"), TRIES)
def test_solve_tries_as_the_solver_does(client, data_4x4, solver, votes, restarts, seed):
    inputs = read_split(data_4x4 / "test")[1]["test"].inputs
    tries = {"votes": votes, "restarts": restarts, "seed": seed}
    expected = solver.solve(inputs, **tries)
    answered = solved_alike(client, solver, inputs, expected, tries)
    for one, alone in zip(answered, expected, strict=True):
        assert one["halt_probability"] == pytest.approx(alone.halt_probability, abs=1e-4)
        np.testing.assert_allclose(one["confidence"], alone.confidence, atol=1e-4)
    assert len({one["attempts"] for one in answered}) > 1 or votes + restarts == 1


def test_guesses_are_those_of_the_solver(client, data_4x4, solver):
    inputs = read_split(data_4x4 / "test")[1]["test"].inputs[:20]
    tries = {"votes": 2, "guesses": 12}
    expected = solver.solve(inputs, **tries)
    answered = solved_alike(client, solver, inputs, expected, tries)
    assert max(one["attempts"] for one in answered) > 2
    row = next(n for n, one in enumerate(answered) if one["attempts"] > 2)
    lines = think(client, puzzle=solver.task.grid.text(inputs[row]), **tries)
    assert lines[0].guessed is None and lines[-1].best == expected[row].attempt
    best = next(line for line in lines if line.attempt == lines[-1].best)
    assert best.guessed == (list(expected[row].guessed) or None)
    for line in lines:
        assert (line.guessed is not None) == (line.attempt > 2)
        assert all(inputs[row][cell] == 0 for cell in line.guessed or ())


@pytest.mark.parametrize("select", ["valid", "q_halt", "majority"])
def test_rollouts_are_those_of_the_solver(client, data_4x4, solver, select):
    inputs = read_split(data_4x4 / "test")[1]["test"].inputs[:20]
    tries = {"restarts": 1, "noise": 0.5, "rollouts": 7, "select": select, "seed": 2}
    expected = solver.solve(inputs, **tries)
    answered = solved_alike(client, solver, inputs, expected, tries)
    first = think(client, puzzle=solver.task.grid.text(inputs[0]), **tries)
    assert first[-1].last and first[-1].best == expected[0].attempt
    if select == "valid":
        assert len({one["attempts"] for one in answered}) > 2
        assert sum(alone.attempt > 2 for alone in expected) > 3


def test_rollouts_are_refused_where_they_make_no_sense_or_are_too_many(client):
    for tries, reason in (
        ({"rollouts": 2}, "rollouts=2: all would be equal; give noise, too"),
        ({"noise": 0.5}, "noise=0.5: the first rollout is without; give rollouts=2 or more"),
        ({"noise": -1, "rollouts": 2}, "noise: Input should be greater than or equal to 0"),
        ({"noise": 1, "rollouts": 64, "select": "q_halt"}, "are more than the 256 that may wait"),
    ):
        asked = {"checkpoint": "tests/patient", "puzzles": [PUZZLE] * 5, **tries}
        answer = client.post("/api/solve", json=asked)
        assert answer.status_code == 422 and reason in answer.json()["error"], answer.text


def test_the_page_asks_for_as_much_as_the_server_allows():
    page = (files("hrm.web") / "static/index.html").read_text("utf-8")
    fields = re.findall(r'id="solve-(\w+)" type="number".* min="(\d+)" max="(\d+)"', page)
    known = schemas.Trying.model_json_schema()["properties"]
    known["steps"] = known["steps"]["anyOf"][0]
    names = {"steps", "votes", "restarts", "rollouts", "noise", "guesses"}
    assert {name: (float(least), float(most)) for name, least, most in fields} == {
        name: (known[name]["minimum"], known[name]["maximum"]) for name in names
    }


@pytest.mark.parametrize(("votes", "restarts", "seed"), TRIES)
def test_think_tells_the_steps_of_each_attempt(client, solver, votes, restarts, seed):
    tries = {"votes": votes, "restarts": restarts, "seed": seed}
    attempts = plan_attempts(solver.task, **tries).attempts
    for puzzle in (PUZZLE, PUZZLE[::-1], "." * 16):
        tokens = solver.task.read_all([puzzle])
        steps = think(client, puzzle=puzzle, halting="max_steps", steps=3, **tries)
        ends = steps[2::3]
        assert [(s.attempt, s.step, s.halted) for s in steps] == [
            (end.attempt, step, step == 3) for end in ends for step in (1, 2, 3)
        ]
        assert [s.last for s in steps] == [False] * (len(steps) - 1) + [True]
        for number, end in enumerate(ends):
            asked = torch.from_numpy(attempts[number].apply(tokens))
            names = torch.full((1,), solver.unseen_identifier, dtype=torch.int32)
            batch = {"inputs": asked, "puzzle_identifiers": names}
            with torch.inference_mode():
                *_, alone = rollout(
                    solver.model, [batch], max_steps=3, start_seed=attempts[number].start_seed
                )
            answer = attempts[number].undo(alone.outputs["logits"].argmax(-1).numpy())
            assert end.attempt == number + 1 and end.answer == solver.task.grid.text(answer[0])
            assert end.valid == solver.task.are_valid(answer, tokens)[0]
        assert [end.valid for end in ends[:-1]] == [False] * (len(ends) - 1)
        assert ends[-1].valid or len(ends) == votes + restarts
        best = max(ends, key=lambda end: (end.valid, end.halt_probability))
        assert [s.best for s in steps] == [None] * (len(steps) - 1) + [best.attempt]


def test_the_seed_decides_which_versions_are_tried(runs, data_4x4):
    tries = {"votes": 4, "halting": "max_steps", "steps": 1}
    with serve(runs, data_4x4.parent) as url, client_of(url) as client:
        first, again, other = (think(client, seed=seed, **tries) for seed in (1, 1, 2))
    assert first == again != other and len(first) == 4


class Slow:
    """Loads models whose ACT steps take a while, and counts them."""

    def __init__(self) -> None:
        self.steps = 0

    def load(self, path: Path) -> Solver:
        solver = LOAD(path)
        act, step = solver.model.model, solver.model.model.step

        def slowly(carry: Carry) -> tuple[Carry, dict[str, torch.Tensor]]:
            self.steps += 1
            time.sleep(0.05)
            return step(carry)

        act.step = slowly  # type: ignore[method-assign]
        return solver

    def is_at_rest(self) -> bool:
        before = self.steps
        time.sleep(0.3)
        return self.steps == before


def test_the_time_of_a_request_is_that_of_all_attempts(runs, data_4x4):
    slow = Slow()
    many = {"checkpoint": "tests/patient", "steps": 1, "votes": 64, "restarts": 16}
    with (
        serve(runs, data_4x4.parent, slow.load, think_seconds=3.0) as url,
        client_of(url) as client,
    ):
        assert client.post("/api/think", json=many | {"puzzle": PUZZLE, "votes": 1, "restarts": 0})
        lines = client.post("/api/think", json=many | {"puzzle": PUZZLE}).text.splitlines()
        assert 1 < len(lines) < 80 and "time for this puzzle is over" in lines[-1]
        refused = client.post("/api/solve", json=many | {"puzzles": [PUZZLE]})
        assert refused.status_code == 503 and "ask for less" in refused.json()["error"]
        eventually(slow.is_at_rest)


def test_who_leaves_in_a_later_attempt_gives_up_the_place(runs, data_4x4):
    slow = Slow()
    many = {"checkpoint": "tests/patient", "steps": 1, "votes": 64, "restarts": 16}
    with serve(runs, data_4x4.parent, slow.load) as url, client_of(url) as client:
        with client.stream("POST", "/api/think", json=many | {"puzzle": PUZZLE}) as answer:
            lines = answer.iter_lines()
            first, second = next(lines), next(lines)
            assert '"attempt":1' in first and '"attempt":2' in second
        eventually(lambda: slow.is_at_rest() and at_rest(client.get("/health").json()))
        assert slow.steps < 64


def at_rest(health: dict[str, int]) -> bool:
    return (health["running"], health["waiting"]) == (0, 0)
