"""The examples run as their first lines say, on a small model; and they are short."""

import csv
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hrm.ranks import Ranks
from hrm.training.config import load_train_config
from hrm.training.loop import train

from .conftest import ROOT
from .keys.training import TINY_ARCH
from .watching import wait_for

EXAMPLES = ROOT / "examples"
SMALL = (*TINY_ARCH, "epochs=8", "eval_interval=4", "device=cpu", "compile=false", "ema=false")


@pytest.fixture(scope="module")
def stones(tmp_path_factory) -> Path:
    """The data set of `examples/own_task.py`, fewer of it."""
    folder = tmp_path_factory.mktemp("examples") / "stones"
    runpy.run_path(str(EXAMPLES / "own_task.py"))["write"](str(folder), train=320, test=40)
    return folder


def example(monkeypatch, name: str, *words: object) -> None:
    """Run one in this process."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    sys.modules.pop("own_loop", None)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_they_are_short_and_say_how_they_are_run(path):
    text = path.read_text()
    assert len(text.splitlines()) < 60 and f"\npython examples/{path.name}" in text


@pytest.mark.parametrize("name", ["own_loop.py", "own_core.py"])
def test_a_loop_and_a_core_of_ones_own(monkeypatch, capsys, stones, name):
    example(monkeypatch, name, stones, 1)
    assert " of 40 solved exactly, " in capsys.readouterr().out


def test_the_core_of_ones_own_learns(monkeypatch, stones):
    monkeypatch.syspath_prepend(EXAMPLES)
    core, loop = (runpy.run_path(str(EXAMPLES / f"own_{name}.py")) for name in ("core", "loop"))
    torch.manual_seed(0)
    metadata = core["read_metadata"](stones / "train")
    model = core["ACTLossHead"](
        core["ACT"](core["Neighbours"](metadata, width=24)),
        core["LossConfig"](loss_type="softmax_cross_entropy"),
    )
    loop["train"](model, str(stones), epochs=8)
    assert int(loop["solved"](model, str(stones)).split()[0]) >= 4


def test_a_shared_model_is_measured(monkeypatch, capsys):
    example(monkeypatch, "evaluate_shared.py", "sudoku-4x4", "2x2", 20)
    head, *ways = capsys.readouterr().out.splitlines()
    assert head.startswith("sudoku-4x4, 20 puzzles") and len({len(way) for way in ways}) == 1
    assert ways[-1].split()[4] == "100.0%"


@pytest.mark.slow
def test_a_sweep_is_killed_and_gone_on_with(stones, tmp_path, capfd):
    """With SIGKILL, of which only the ends of pipes tell the runs."""
    folder = tmp_path / "checkpoints" / "own" / "rates"
    command = [sys.executable, str(EXAMPLES / "sweep.py"), str(stones), *SMALL]
    places = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    killed = subprocess.Popen(command, start_new_session=True, **places)
    names = [f"lr={rate},seed={seed}" for rate in ("0.001", "0.0003") for seed in (0, 1)]
    wait_for(lambda: any(folder.glob("*/metrics.jsonl")))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    run = next(folder.glob("*/metrics.jsonl")).parent
    wait_for(lambda: any(run.glob("step_*/manifest.json")))
    assert len(list(folder.iterdir())) < 4, "some have not begun"

    subprocess.run(command, check=True, **places)
    out, _ = capfd.readouterr()
    assert "mean of 2 seeds" in out and " ACT steps\n" in out
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [(row["run"], row["state"]) for row in rows] == [(name, "finished") for name in names]
    assert "going on from" in (run / "log.txt").read_text()
    config = load_train_config(run / "all_config.yaml")
    place = {"checkpoint_path": tmp_path / "undisturbed", "resume": None, "progress": False}
    again = train(config.model_copy(update=place), Ranks(0, 1, 0), torch.device("cpu"))
    for name in ("metrics.jsonl", f"step_{rows[0]['step']}/model.safetensors"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
