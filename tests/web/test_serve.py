"""`solve.py --serve` from its start to Ctrl-C."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hrm.checkpoint import export_checkpoint, load_checkpoint
from hrm.errors import UserError
from hrm.web import serve

from ..conftest import ROOT
from ..inference.test_batcher import eventually
from ..inference.test_remote import is_there
from ..watching import LONG, started
from .serving import client_of

PUZZLE = "1" + "." * 15


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and its address."""
    command = [sys.executable, str(ROOT / "solve.py"), *arguments, "--serve", "--port", "0"]
    environment, pipe = {**os.environ, "OMP_NUM_THREADS": "1"}, subprocess.PIPE
    with started(command, env=environment, stdout=pipe, stderr=pipe) as process:
        yield process, process.stdout.readline().split()[0]  # type: ignore[union-attr]


def test_it_answers_and_ends_on_ctrl_c_by_a_last_line(runs, data_4x4):
    roots = ("--checkpoints-root", str(runs), "--data-root", str(data_4x4.parent))
    arguments = (f"checkpoint={runs / 'tests/patient'}", "--device", "cpu", *roots)
    with serving(*arguments) as (process, url), client_of(url) as client:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        assert client.get("/api/checkpoints").json()["default"] == "tests/patient"
        answer = client.get("/")
        assert "server" not in answer.headers and answer.status_code == 200
        asked = {"checkpoint": "tests/patient", "halting": "max_steps", "steps": 256}
        [model] = children(process.pid)
        with client.stream("POST", "/api/think", json=asked | {"puzzle": PUZZLE}) as stream:
            lines = stream.iter_lines()
            assert json.loads(next(lines))["step"] == 1
            process.send_signal(signal.SIGINT)
            last = json.loads(list(lines)[-1])
        assert last.get("halted") or "closed" in last["error"]
        out, told = process.communicate(timeout=LONG)
    assert process.returncode == 130 and out == ""
    assert told == "interrupted\n"
    assert not is_there(model)


def test_a_server_that_is_killed_leaves_no_process(runs):
    with serving(f"checkpoint={runs / 'tests/patient'}", "--device", "cpu") as (process, _):
        [model] = children(process.pid)
    eventually(lambda: not is_there(model))


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(child) for child in found.stdout.split()]


@pytest.mark.parametrize("idle", [True, False])
def test_connections_left_open_do_not_hold_it_up(runs, idle):
    with serving(f"checkpoint={runs / 'tests/patient'}", "--device", "cpu") as (process, url):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            if not idle:
                head = "POST /api/think HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
                connection.sendall(head.encode())
            httpx.get(f"{url}/health", timeout=LONG).raise_for_status()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=LONG)
    assert process.returncode == 130 and "Traceback" not in told


def test_a_taken_port_is_told_in_one_line(runs, call):
    checkpoint = f"checkpoint={runs / 'tests/patient'}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, told = call("solve", checkpoint, "--serve", "--port", port, "--device", "cpu")
    assert (code, out) == (2, "") and told.count("\n") == 1
    assert told.startswith(f"error: --host 127.0.0.1 --port {port}: cannot listen there (Address")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "a" * 70, "192.0.2.1"])
def test_an_impossible_host_is_told_in_one_line(runs, call, host):
    checkpoint = f"checkpoint={runs / 'tests/patient'}"
    code, out, told = call("solve", checkpoint, "--serve", "--host", host, "--device", "cpu")
    assert (code, out) == (2, "") and told.count("\n") == 1
    assert "cannot listen there" in told and "choose another" in told


def test_a_model_of_the_hub_is_served_by_its_name(hub, runs, tmp_path, monkeypatch):
    folder = export_checkpoint(load_checkpoint(runs / "tests/patient"), tmp_path / "mine")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repositories["me/tiny"] = {"main": files}
    for name, value in (("HF_ENDPOINT", hub.url), ("HF_HOME", str(tmp_path / "home"))):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with serving("checkpoint=hf://me/tiny", "--device", "cpu") as (_, url):
        with client_of(url) as client:
            assert client.get("/api/checkpoints").json()["default"] == "hf://me/tiny"
            asked = {"checkpoint": "hf://me/tiny", "puzzles": [PUZZLE], "steps": 2}
            assert client.post("/api/solve", json=asked).json()["solutions"][0]["steps"] == 2


def test_a_checkpoint_that_cannot_be_served_is_told(runs, tmp_path, data_4x4):
    def refused(checkpoint: Path) -> str:
        with pytest.raises(UserError) as told:
            serve(checkpoint, runs, data_4x4.parent, "127.0.0.1", 0, device="cpu")
        return str(told.value)

    assert "not found" in refused(tmp_path / "none")
    assert "holds neither" in refused(runs / "tests/begun")
    (tmp_path / "step_3").write_bytes(b"original")
    assert "cannot be served" in refused(tmp_path / "step_3")
    broken = tmp_path / "run" / "step_7"
    broken.parent.mkdir()
    (runs / "tests/patient/step_7").rename(broken)
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-1])
        assert "model.safetensors" in refused(broken)
    finally:
        weights.write_bytes(whole)
        broken.rename(runs / "tests/patient/step_7")
