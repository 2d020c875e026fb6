"""Answers that take a while: who leaves gives up the places, what fails or lasts is told."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hrm.inference import Solver
from hrm.web.hosting import MOST_MODELS

from ..inference.test_batcher import Gate, eventually
from .serving import LOAD, client_of, save_runs, serve

PUZZLE = "1" + "." * 15
ASKED = {"checkpoint": "tests/patient", "halting": "max_steps", "steps": 256}


class Held:
    """A server whose models are held before each ACT step."""

    def __init__(self, address: str, gates: list[Gate]) -> None:
        self.client = client_of(address)
        self.address, self.gates = address, gates
        self._connections: list[socket.socket] = []

    def close(self) -> None:
        self.client.close()
        for connection in self._connections:
            connection.close()
        for gate in self.gates:
            gate.open()

    def counts(self) -> tuple[int, int]:
        """Puzzles that run and wait."""
        health = self.client.get("/health").json()
        return health["running"], health["waiting"]

    def step(self) -> None:
        for gate in self.gates:
            gate.let_through()

    def connect(self, path: str, body: dict[str, object]) -> socket.socket:
        """Send a request, and leave its answer unread."""
        host, port = self.address.removeprefix("http://").split(":")
        text = json.dumps(body)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection = socket.create_connection((host, int(port)), timeout=60)
        self._connections.append(connection)
        connection.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())
        return connection


@pytest.fixture
def hold(runs, data_4x4) -> Callable:
    @contextmanager
    def hold(checkpoints: Path = runs, **options) -> Iterator[Held]:
        gates: list[Gate] = []

        def load(path: Path) -> Solver:
            solver = LOAD(path)
            gates.append(Gate(solver))
            return solver

        with serve(checkpoints, data_4x4.parent, load, **options) as address:
            held = Held(address, gates)
            try:
                yield held
            finally:
                held.close()

    return hold


def bodies() -> list[tuple[str, dict[str, object]]]:
    return [
        ("/api/think", {**ASKED, "puzzle": PUZZLE}),
        ("/api/solve", {**ASKED, "puzzles": [PUZZLE] * 2}),
        ("/api/check", {**ASKED, "data": "sudoku-4x4", "split": "test", "count": 2}),
    ]


@pytest.mark.parametrize(("path", "body"), bodies())
def test_who_leaves_gives_up_running_and_waiting_places(hold, path, body):
    places = 1 if path == "/api/think" else 2
    with hold(max_batch=places) as server:
        running = server.connect(path, body)
        eventually(lambda: server.counts() == (places, 0))
        waiting = server.connect(path, body)
        eventually(lambda: server.counts() == (places, places))
        server.step()
        if path == "/api/think":
            assert running.recv(1000).startswith(b"HTTP/1.1 200 OK")
        waiting.close()

        def left(expected: tuple[int, int]) -> bool:
            time.sleep(0.02)  # far fewer steps than the puzzles would take
            server.step()
            return server.counts() == expected

        eventually(lambda: left((places, 0)))
        running.close()
        eventually(lambda: left((0, 0)))
        assert len(server.gates[0].rows) < ASKED["steps"]
        for gate in server.gates:
            gate.open()
        short = {"checkpoint": "tests/patient", "puzzles": [PUZZLE]}
        assert server.client.post("/api/solve", json=short).status_code == 200


def test_steps_are_told_as_they_are_computed(hold):
    with hold() as server:
        body = {**ASKED, "puzzle": PUZZLE, "steps": 3}
        with server.connect("/api/think", body).makefile() as answer:
            for number in (1, 2, 3):
                eventually(lambda: server.counts() == (1, 0))
                server.step()
                line = next(line for line in answer if line.startswith("{"))
                assert json.loads(line)["step"] == number


def test_a_full_queue_is_told(hold):
    with hold(max_batch=1, max_waiting=1) as server:
        body = {**ASKED, "puzzle": PUZZLE}
        for _ in range(2):
            server.connect("/api/think", body)
        eventually(lambda: server.counts() == (1, 1))
        for path, body in bodies():
            refused = server.client.post(path, json=body)
            assert refused.status_code == 429 and "try again" in refused.json()["error"]
            assert refused.headers["retry-after"] == "1"


def test_time_is_bounded(hold):
    with hold(think_seconds=0.2) as server:
        for path, body in bodies():
            refused = server.client.post(path, json=body)
            assert refused.status_code == 503 and "ask for less" in refused.json()["error"]
            assert "retry-after" not in refused.headers, "as much again would take as long"
        eventually(lambda: server.step() or server.counts() == (0, 0))


def test_a_stream_ends_by_its_last_line_when_the_time_is_over(hold):
    with hold(think_seconds=2) as server:
        body = {**ASKED, "puzzle": PUZZLE}
        with server.client.stream("POST", "/api/think", json=body | {"steps": 1}) as answer:
            pass  # the model is loaded now
        with server.client.stream("POST", "/api/think", json=body) as answer:
            lines = answer.iter_lines()
            first = next(lines, None)
            rest = list(lines)
        assert first is None or "error" in json.loads([first, *rest][-1])
        eventually(lambda: server.step() or server.counts() == (0, 0))


@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_model_that_fails_is_told_and_logged(hold, caplog, steps_before):
    with hold() as server:
        body = {**ASKED, "puzzle": PUZZLE}
        connection = server.connect("/api/think", body)
        eventually(lambda: server.counts() == (1, 0))
        [gate] = server.gates
        for _ in range(steps_before):
            gate.wait_for_step()
            gate.let_through()
        gate.wait_for_step()
        gate.fail(RuntimeError("secret"))
        answer = b""
        while part := connection.recv(10_000):
            answer += part
            if answer.endswith((b"0\r\n\r\n", b'"}')):
                break
        assert b"secret" not in answer and b"Traceback" not in answer
        assert answer.count(b'"halted":false') == steps_before
        assert b'{"error":"the model failed at this puzzle"}' in answer.replace(b'": "', b'":"')
        assert answer.startswith(b"HTTP/1.1 200" if steps_before else b"HTTP/1.1 500")
        assert "secret" in caplog.text
        gate.open()
        short = {"checkpoint": "tests/patient", "puzzles": [PUZZLE], "steps": 1}
        assert server.client.post("/api/solve", json=short).status_code == 200


def test_the_last_used_models_stay_loaded(data_4x4, tmp_path, hold):
    for number in range(MOST_MODELS // 2 + 1):
        save_runs(tmp_path / f"{number}", data_4x4)
    names = [f"{n}/tests/{name}" for n in range(2) for name in ("patient", "eager")]
    with hold(tmp_path) as server:

        def solve(name: str, status: int = 200) -> None:
            body = {"checkpoint": name, "puzzles": [PUZZLE], "steps": 1}
            assert server.client.post("/api/solve", json=body).status_code == status

        threads = [threading.Thread(target=solve, args=(name,)) for name in names[:3]]
        for thread in threads:
            thread.start()
        eventually(lambda: server.counts() == (3, 0))
        solve(names[3], status=503)
        for gate in server.gates:
            gate.open()
        for thread in threads:
            thread.join()
        for name in names[:3]:
            solve(name)
        held = threading.Thread(target=solve, args=(names[3],))
        held.start()
        eventually(lambda: len(server.gates) == 4)
        server.gates[-1].open()
        held.join()
        assert server.client.get("/health").json()["models"] == names[1:]


def test_a_newer_step_is_taken_up(data_4x4, tmp_path):
    save_runs(tmp_path, data_4x4)
    loaded: list[Path] = []

    def load(path: Path) -> Solver:
        loaded.append(path)
        return LOAD(path)

    body = {"checkpoint": "tests/patient", "puzzles": [PUZZLE]}
    with serve(tmp_path, data_4x4.parent, load) as url, client_of(url) as client:

        def step() -> int:
            assert client.post("/api/solve", json=body).status_code == 200
            return client.get("/api/checkpoints").json()["checkpoints"][1]["step"]

        assert step() == 7 and step() == 7
        (tmp_path / "tests/patient/step_7").rename(tmp_path / "tests/patient/step_10")
        eventually(lambda: step() == 10)
        step()
        assert [path.name for path in loaded] == ["step_7", "step_10"]
