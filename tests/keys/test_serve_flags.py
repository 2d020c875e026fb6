"""Every flag of the web page's server acts; nothing is served longer than a question takes."""

import asyncio
import shutil
import socket
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from hrm.checkpoint import shipped_models
from hrm.inference.batcher import Batcher
from hrm.inference.solver import Solver

from .commands import KEYS, command, done
from .registry import Registry

acts = Registry()
BLANK = "." * 16
SHIPPED = set(shipped_models())
Served = Callable[..., dict[str, Any]]


@pytest.fixture
def served(monkeypatch, patient, tmp_path) -> Served:
    """What the server that a command starts listens at and answers, by the name of the question.

    Flags come after `checkpoint=`. Models are in this process, which takes no time to start.
    """
    found: dict[str, Any] = {}

    def run(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        found["host"], found["port"] = sockets[0].getsockname()[:2]
        app: Any = server.config.app

        async def ask() -> None:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as page:
                for name in ("checkpoints", "datasets"):
                    answer = (await page.get(f"/api/{name}")).json()
                    found[name] = sorted({entry["id"] for entry in answer[name]} - SHIPPED)
                question = {"puzzles": [BLANK], "halting": "learned"}
                found["default"] = (await page.get("/api/checkpoints")).json()["default"]
                question["checkpoint"] = found["default"]
                [answer] = (await page.post("/api/solve", json=question)).json()["solutions"]
                found["steps"] = answer["steps"]
                elsewhere = await page.get("/health", headers={"host": "elsewhere.example"})
                found["answers elsewhere"] = elsewhere.status_code == 200
            await server._models.close()  # type: ignore[attr-defined]

        asyncio.run(ask())

    def serve(*flags: object, checkpoint: Path = patient) -> dict[str, Any]:
        found.clear()
        words = (f"checkpoint={checkpoint}", "--device", "cpu", *flags)
        found["printed"] = done("serve", *words)
        return dict(found)

    def load(
        path: Path, device: Any, weights: Any, max_batch: int, process: None = None
    ) -> Batcher:
        return Batcher(Solver.from_checkpoint(path, device, weights), max_batch)

    monkeypatch.setattr("hrm.cli.serve.ModelProcess", nullcontext)
    monkeypatch.setattr("hrm.web.server.RemoteBatcher", load)
    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.chdir(tmp_path)
    return serve


@acts("port")
def test_the_page_is_opened_at_the_port_that_is_named(served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = served("--port", port)
    assert found["port"] == port
    assert found["printed"] == f"http://127.0.0.1:{port}   (Ctrl-C ends it)\n"


@acts("host")
def test_it_listens_at_the_address_that_is_named(served):
    here, anywhere = served("--port", 0), served("--port", 0, "--host", "0.0.0.0")
    assert (here["host"], here["answers elsewhere"]) == ("127.0.0.1", False)
    assert (anywhere["host"], anywhere["answers elsewhere"]) == ("0.0.0.0", True)


@acts("checkpoint")
def test_the_first_choice_is_the_checkpoint_that_is_named(served, patient, moody):
    ours, other = served("--port", 0), served("--port", 0, checkpoint=moody)
    assert "patient" in ours["default"] and "moody" in other["default"]
    assert ours["steps"] == 1


@acts("checkpoints_root")
def test_checkpoints_are_looked_for_where_asked(served, patient, tmp_path):
    shutil.copytree(patient, tmp_path / "roots/project/one")
    assert len(served("--port", 0)["checkpoints"]) == 1
    found = served("--port", 0, "--checkpoints-root", tmp_path / "roots")["checkpoints"]
    assert len(found) == 2 and any("project/one" in name for name in found)
    (tmp_path / "roots").rename(tmp_path / "checkpoints")  # the usual place
    assert served("--port", 0)["checkpoints"] == found


@acts("data_root")
def test_data_sets_are_looked_for_where_asked(served, data, other_data, tmp_path):
    assert served("--port", 0)["datasets"] == []
    shutil.copytree(other_data, tmp_path / "roots/mine")
    assert served("--port", 0, "--data-root", tmp_path / "roots")["datasets"] == ["mine"]
    (tmp_path / "roots").rename(tmp_path / "data")  # the usual place
    assert served("--port", 0)["datasets"] == ["mine"]


@acts("weights")
@pytest.mark.parametrize("weights, steps", [("raw", 4), ("ema", 1), ("auto", 1)])
def test_the_weights_are_those_that_are_named(served, weights, steps):
    """Only the running average of this checkpoint halts before the last step."""
    assert served("--port", 0, "--weights", weights)["steps"] == steps


@acts("device")
def test_the_device_is_the_one_that_is_named(patient, no_accelerator):
    for name in ("cuda", "mps"):
        code, _, err = command("solve", f"checkpoint={patient}", "--serve", "--device", name)
        assert code == 2 and f"device={name}: not available" in err


def test_every_flag_has_a_test():
    acts.check(KEYS["serve"])
