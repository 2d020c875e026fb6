"""Runs that nobody watches: signals at any time, output that goes away, names that collide."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime

import pytest
import torch

from hrm.checkpoint import saved_steps, step_dir
from hrm.cli import train as command
from hrm.errors import UserError, run_command
from hrm.ranks import Ranks
from hrm.signals import Interrupted
from hrm.training import graph, loop, run_folder
from hrm.training.config import load_pretrain_config
from hrm.training.interrupt import StopRequest
from hrm.training.loop import train, with_run_name
from hrm.training.saving import commit_of
from tests.conftest import ROOT, SMALL_MODEL
from tests.test_streams import Gone
from tests.training.test_loop import read_metrics
from tests.training.test_resume import assert_same_run
from tests.watching import started, wait_for

KEYS = (*SMALL_MODEL, "arch.hidden_size=16", "arch.puzzle_emb_ndim=16", "global_batch_size=32")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def keys(data_4x4, tmp_path):
    """A run of 6 steps with two evaluations, into `tmp_path/run`."""
    more = ("epochs=2", "eval_interval=1", "run_name=run", f"checkpoint_path={tmp_path / 'run'}")
    return [f"data_path={data_4x4}", *KEYS, *more]


def run(keys):
    return train(load_pretrain_config(keys), Ranks(0, 1, 0), torch.device("cpu"))


def signal_when(monkeypatch, name: str, number: int, call: int = 1) -> None:
    """Send this process a signal in the `call`th call of a function of the loop."""
    module = graph if name == "begin_step" else loop
    original, calls = getattr(module, name), []

    def signalled(*arguments, **named):
        calls.append(arguments)
        if len(calls) == call:
            signal.raise_signal(number)
        return original(*arguments, **named)

    monkeypatch.setattr(module, name, signalled)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_and_ends(keys, tmp_path, monkeypatch, number):
    signal_when(monkeypatch, "begin_step", number, call=2)
    with pytest.raises(SystemExit) as end:
        run(keys)
    assert end.value.code == 128 + number
    assert saved_steps(tmp_path / "run") == [2]


def test_only_ctrl_c_after_a_signal_interrupts():
    stop = StopRequest()
    with stop.listening():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
            assert stop.signal == number
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGINT)
    assert caught.value.number == signal.SIGINT


def test_a_signal_in_an_evaluation_ends_it(keys, data_4x4, tmp_path, monkeypatch):
    run(keys)
    shutil.move(tmp_path / "run", tmp_path / "undisturbed")
    signal_when(monkeypatch, "evaluate", signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        run(keys)
    assert end.value.code == 143 and saved_steps(tmp_path / "run") == [3]
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert not any("eval/count" in line for line in read_metrics(tmp_path / "run"))
    run([*keys, "resume=auto"])
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.parametrize("step, is_kept", [(2, False), (3, True)])
def test_a_checkpoint_that_an_evaluation_would_keep_is_kept_at_a_signal(
    keys, tmp_path, monkeypatch, step, is_kept
):
    """An evaluation follows step 3."""
    signal_when(monkeypatch, "begin_step", signal.SIGTERM, call=step)
    with pytest.raises(SystemExit):
        run([*keys, "checkpoint_every_eval=true"])
    record = step_dir(tmp_path / "run", step) / "training.json"
    assert json.loads(record.read_text())["keep"] is is_kept


def test_a_hangup_that_nohup_ignores_changes_nothing(keys, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signal_when(monkeypatch, "begin_step", signal.SIGHUP, call=2)
        run(keys)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert saved_steps(tmp_path / "run")[-1] == 6


@pytest.mark.parametrize("function", ["prepare", "open_job"])
def test_a_signal_before_the_first_step(keys, tmp_path, monkeypatch, function):
    signal_when(monkeypatch, function, signal.SIGTERM)
    signal_when(monkeypatch, "begin_step", signal.SIGKILL)
    with pytest.raises(SystemExit) as end:
        run(keys)
    assert end.value.code == 143
    assert saved_steps(tmp_path / "run") == []
    monkeypatch.undo()
    run([*keys, "resume=auto"])
    assert saved_steps(tmp_path / "run")[-1] == 6


def test_a_signal_while_git_is_slow(keys, tmp_path):
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexec sleep 20\n")
    git.chmod(0o755)
    env = os.environ | {"PATH": f"{git.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "errors").open("w") as errors:
        command = [sys.executable, str(ROOT / "pretrain.py"), *keys]
        env |= {"PYTHONPATH": str(ROOT)}
        with started(command, cwd=tmp_path, env=env, stderr=errors) as process:
            wait_for((tmp_path / "asked").exists)
            process.terminate()
            assert process.wait(15) == 128 + signal.SIGTERM  # git takes 20
    assert set((tmp_path / "errors").read_text().splitlines()) == {"interrupted"}
    assert not (tmp_path / "run").exists(), "nothing is begun before git has answered"


@pytest.mark.parametrize("shown", ["true", "false"])
def test_training_goes_on_when_nobody_reads_what_it_prints(keys, tmp_path, monkeypatch, shown):
    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr("hrm.streams.lead_nowhere", lambda stream: None)
    monkeypatch.setattr("hrm.progress.SHORT_SECONDS", 0)
    monkeypatch.setattr("hrm.progress.LINE_SECONDS", 0)

    def main() -> None:
        command.run([*keys, f"progress={shown}"], "cfg_pretrain", "hrm train")

    monkeypatch.setattr(sys, "stderr", Gone())
    run_command(main)
    assert saved_steps(tmp_path / "run")[-1] == 6


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(
    data_4x4, tmp_path, monkeypatch
):
    class Clock:
        @staticmethod
        def now() -> datetime:
            return datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "datetime", Clock)
    config = load_pretrain_config([f"data_path={data_4x4}", *KEYS, "epochs=1", "eval_interval=1"])
    first, second = with_run_name(config), with_run_name(config)
    assert first.run_name == "hrm_act_v1-20260102-030405"
    assert second.run_name == "hrm_act_v1-20260102-030405-2"
    for named in (second, first, config):
        train(named, Ranks(0, 1, 0), torch.device("cpu"))
    folders = sorted((tmp_path / "checkpoints/sudoku-4x4").iterdir())
    assert [saved_steps(folder) for folder in folders] == [[3], [3], [3]]
    (tmp_path / "checkpoints/other").write_text("a file")
    with pytest.raises(UserError, match="checkpoints/other"):
        with_run_name(config.model_copy(update={"project_name": "other"}))


def test_what_cannot_begin_leaves_no_folder(data_4x4, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_pretrain_config([f"data_path={data_4x4}", *KEYS, "load_checkpoint=absent"])
    with pytest.raises(UserError, match="load_checkpoint=absent: not found"):
        train(config, Ranks(0, 1, 0), torch.device("cpu"))
    assert not list(tmp_path.glob("checkpoints/*/*"))


def test_another_process_that_makes_the_same_run_loses_nothing(keys, tmp_path, monkeypatch):
    described = run_folder._describe

    def describe(config, folder):
        described(config, folder)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "theirs").touch()

    monkeypatch.setattr(run_folder, "_describe", describe)
    with pytest.raises(UserError, match="run: cannot be written"):
        run(keys)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_commit_is_of_a_repository_of_our_own(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, check=True)
        return done.stdout.decode().strip()

    own, nested, unknown = (tmp_path / name for name in ("hrm", "env/site/hrm", "copy"))
    for package in (own, nested, unknown):
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    git("init", "--quiet")
    git("add", "hrm", "env")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert commit_of(own) == commit
    assert commit_of(nested) is None
    assert commit_of(unknown) is None
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as in a hook of another repository
    assert commit_of(ROOT / "hrm") != commit
    monkeypatch.setenv("PATH", "")
    assert commit_of(own) is None
