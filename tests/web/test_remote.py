"""Models in processes of their own, behind the server."""

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Thread

import httpx
import pytest

from hrm.inference.remote import RemoteBatcher

from ..inference.test_batcher import eventually
from ..inference.test_remote import is_there
from .serving import client_of, serve

PUZZLE = "1" + "." * 15
ASKED = {"checkpoint": "tests/patient", "halting": "max_steps", "steps": 256}
LASTING = ASKED | {"puzzle": PUZZLE, "votes": 64, "restarts": 16}  # 20,480 steps
SHORT = {"checkpoint": "tests/patient", "puzzles": [PUZZLE], "steps": 2}
FAILED = {"error": "the model failed at this puzzle"}


class Hosted:
    """A server, and the models that it has loaded."""

    def __init__(self, client: httpx.Client, loaded: list[RemoteBatcher]) -> None:
        self.client, self.loaded = client, loaded

    def kill(self) -> None:
        """End the model's process as the system does where memory is short."""
        os.kill(self.loaded[-1].pid, signal.SIGKILL)

    def health(self) -> dict[str, object]:
        return self.client.get("/health").json()


@pytest.fixture(scope="module")
def hosted(runs, data_4x4) -> Iterator[Hosted]:
    loaded: list[RemoteBatcher] = []
    load = partial(RemoteBatcher, device="cpu", max_batch=2)

    def host(path: Path) -> RemoteBatcher:
        loaded.append(load(path))
        return loaded[-1]

    with serve(runs, data_4x4.parent, host=host) as url:
        with client_of(url) as client:
            yield Hosted(client, loaded)
    assert not any(is_there(model.pid) for model in loaded)


def test_it_answers_step_by_step_and_at_once(hosted):
    lines = hosted.client.post("/api/think", json=ASKED | {"puzzle": PUZZLE, "steps": 5}).text
    assert [json.loads(line)["step"] for line in lines.splitlines()] == [1, 2, 3, 4, 5]
    answer = hosted.client.post("/api/solve", json=SHORT | {"votes": 2}).json()["solutions"][0]
    assert (answer["attempts"], answer["total_steps"]) == (2, 4)
    checked = {"checkpoint": "tests/patient", "data": "sudoku-4x4", "split": "test", "count": 3}
    assert hosted.client.post("/api/check", json=checked).json()["checked"] == 3
    assert hosted.health() == {
        "status": "ok",
        "running": 0,
        "waiting": 0,
        "models": ["tests/patient"],
    }
    assert len(hosted.loaded) == 1


def test_who_leaves_frees_the_place(hosted):
    for _ in range(2):
        with hosted.client.stream("POST", "/api/think", json=LASTING) as stream:
            lines = stream.iter_lines()  # which closes the connection when nothing holds it
            assert json.loads(next(lines))["step"] == 1
            eventually(lambda: hosted.health()["running"] == 1)
    eventually(lambda: hosted.health()["running"] == 0)


def test_a_process_that_is_killed_is_told_and_replaced(hosted, caplog):
    told: list[httpx.Response] = []
    waiting = Thread(
        target=lambda: told.append(
            hosted.client.post("/api/solve", json=ASKED | {"puzzles": [PUZZLE] * 100})
        )
    )
    with hosted.client.stream("POST", "/api/think", json=LASTING) as stream:
        lines = stream.iter_lines()
        next(lines)
        waiting.start()
        eventually(lambda: hosted.health()["waiting"] > 0)
        hosted.kill()
        assert json.loads(list(lines)[-1]) == FAILED
    waiting.join()
    assert (told[0].status_code, told[0].json()) == (500, FAILED)
    assert "the process of the model ended by SIGKILL" in caplog.text
    assert hosted.health()["models"] == []
    before = len(hosted.loaded)
    assert hosted.client.post("/api/solve", json=SHORT).status_code == 200
    assert len(hosted.loaded) == before + 1
    assert hosted.health()["models"] == ["tests/patient"]


def test_one_that_ends_while_it_is_idle_is_replaced_too(hosted):
    assert hosted.client.post("/api/solve", json=SHORT).status_code == 200
    before = len(hosted.loaded)
    hosted.kill()
    eventually(lambda: hosted.health()["models"] == [])
    assert hosted.client.post("/api/solve", json=SHORT).status_code == 200
    assert len(hosted.loaded) == before + 1
