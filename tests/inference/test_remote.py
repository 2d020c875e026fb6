"""A model in a process of its own answers as one in this process, and ends when it should."""

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from hrm.attempts import plan_attempts
from hrm.errors import UserError
from hrm.inference import Solver
from hrm.inference.batcher import Batcher, Closed, Question, QueueFull, Step
from hrm.inference.process import ModelProcess, threads_beside_a_server
from hrm.inference.remote import ModelFailed, RemoteBatcher
from tests.watching import LONG, started

from ..conftest import ROOT, saved_run
from .test_batcher import PATIENCE, PUZZLES, Listener, eventually

ENDLESS = 10**9  # steps
PARENT = """
import sys, time
from pathlib import Path
from hrm.inference.remote import RemoteBatcher
from tests.inference.test_remote import ENDLESS, PUZZLES, Question
batcher = RemoteBatcher(Path(sys.argv[1]), "cpu")
batcher.submit([Question(PUZZLES[0], 0, ENDLESS, "max_steps")], print)
print(batcher.pid, flush=True)
time.sleep(600)
"""


def question(number: int = 0, steps: int = 4, **options: object) -> Question:
    return Question(PUZZLES[number], 0, steps, "max_steps", every_step=True, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(data_4x4, tmp_path_factory) -> Path:
    return saved_run(data_4x4, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def remote(run) -> Iterator[RemoteBatcher]:
    batcher = RemoteBatcher(run, "cpu", max_batch=2, max_waiting=2)
    yield batcher
    batcher.close()
    assert not is_there(batcher.pid)


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended, and that nobody has asked about, does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def test_answers_are_those_of_a_batcher_in_this_process(run, remote):
    solver = Solver.from_checkpoint(run, "cpu")
    assert remote.traits == solver.traits
    plan = plan_attempts(solver.task, votes=2, restarts=1, noise=1.0, rollouts=3)
    here = Batcher(solver, max_batch=2, max_waiting=2)
    for asked in (
        [question(0), question(1, steps=7)],
        [Question(PUZZLES[2], 0, 5, plan=plan)],
        [question(3, plan=plan)],
    ):
        told = [Listener(batcher, asked).until_ended() for batcher in (remote, here)]
        for there, own in zip(*told, strict=True):
            assert len(there) == len(own) > 0
            for one, other in zip(there, own, strict=True):
                assert isinstance(one, Step) and isinstance(other, Step)
                assert one.tokens.dtype == np.int32 and one.confidence.dtype == np.float32
                assert one.inside is other.inside is None
                for name in {field.name for field in fields(Step)} - {"inside"}:
                    np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-6)
    here.close()


def test_every_step_arrives_as_it_is_computed(remote):
    listener = Listener(remote, [question(steps=ENDLESS)])
    assert [listener.receive().number for _ in range(20)] == list(range(1, 21))
    listener.ticket.cancel()
    eventually(lambda: remote.running == 0)


def test_who_cancels_frees_the_place_at_once(remote):
    endless = [Listener(remote, [question(steps=ENDLESS)] * 2) for _ in range(2)]
    eventually(lambda: (remote.running, remote.waiting) == (2, 2))
    assert not remote.idle
    with pytest.raises(QueueFull):
        Listener(remote, [question()])
    endless[0].ticket.cancel()
    eventually(lambda: (remote.running, remote.waiting) == (2, 0))
    last = Listener(remote, [question()] * 2)
    endless[1].ticket.cancel()
    assert [steps[-1].number for steps in last.until_ended()] == [4, 4]
    eventually(lambda: (remote.running, remote.waiting) == (0, 0))
    assert remote.idle
    for _ in range(3):  # all places are free again
        Listener(remote, [question()] * 4).until_ended()


def test_a_model_that_fails_says_where_and_goes_on(remote):
    [[told]] = Listener(remote, [Question(PUZZLES[0] + 1000, 0, 1)]).until_ended()
    assert isinstance(told, ModelFailed) and "Traceback" in str(told)
    assert len(Listener(remote, [question()]).until_ended()[0]) == 4


def test_only_its_parent_ends_it(remote):
    assert os.getpgid(remote.pid) != os.getpgrp()  # so that Ctrl-C does not reach it
    os.kill(remote.pid, signal.SIGTERM)
    assert len(Listener(remote, [question()]).until_ended()[0]) == 4


def test_a_process_that_is_killed_is_told_to_all_that_are_open(run, caplog):
    batcher = RemoteBatcher(run, "cpu", max_batch=1)
    listeners = [Listener(batcher, [question(steps=ENDLESS)] * 2) for _ in range(2)]
    assert isinstance(listeners[0].receive(), Step)
    assert not batcher.closed
    os.kill(batcher.pid, signal.SIGKILL)
    for listener in listeners:
        ends = [steps[-1] for steps in listener.until_ended()]
        assert [str(end) for end in ends] == ["the process of the model ended by SIGKILL"] * 2
    assert batcher.closed and batcher.idle
    with pytest.raises(Closed):
        batcher.submit([question()], lambda *_: None)
    eventually(lambda: "ended by SIGKILL" in caplog.text)
    batcher.close()
    assert not any(thread.is_alive() for thread in batcher._threads)


def test_closing_tells_those_who_wait_and_leaves_nothing(run):
    batcher = RemoteBatcher(run, "cpu")
    listener = Listener(batcher, [question(steps=ENDLESS)])
    listener.receive()
    for _ in range(2):
        batcher.close()
    [told] = listener.until_ended()
    assert isinstance(told[-1], Closed)
    assert not is_there(batcher.pid) and batcher._process.pipe.closed
    assert not any(thread.is_alive() for thread in batcher._threads)
    with pytest.raises(Closed):
        batcher.submit([question()], lambda *_: None)


def test_it_ends_when_its_parent_is_killed(run):
    """In the middle of a puzzle of which nothing is to be told yet."""
    command = [sys.executable, "-c", PARENT, str(run)]
    with started(command, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())  # type: ignore[union-attr]
        assert is_there(pid)
        parent.kill()
    eventually(lambda: not is_there(pid))


def test_a_damaged_checkpoint_is_told_as_in_this_process(data_4x4, tmp_path):
    weights = saved_run(data_4x4, tmp_path / "run") / "step_7/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    told = []
    for load in (Solver.from_checkpoint, RemoteBatcher):
        with pytest.raises(UserError) as caught:
            load(tmp_path / "run", "cpu")
        told.append(str(caught.value))
    assert told[0] == told[1] and "model.safetensors" in told[0]


def test_what_else_prevents_loading_is_told_with_its_traceback():
    with pytest.raises(ModelFailed, match="Traceback"):
        RemoteBatcher(None, "cpu")  # type: ignore[arg-type]


def test_full_memory_is_told_in_one_line():
    code = (
        "import signal\nfrom multiprocessing import Pipe\nfrom threading import Thread\n"
        "from hrm.inference.remote import Solver, host\n"
        "Solver.from_checkpoint = lambda *_: bytearray(1 << 60)\n"
        "signal.signal = lambda *_: None\nours, theirs = Pipe()\nours.send((None,) * 5)\n"
        "Thread(target=host, args=(theirs,), daemon=True).start()\n"
        "error = ours.recv()\nprint(type(error).__name__, error, flush=True)"
    )
    told = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True, timeout=LONG)
    assert told.startswith("UserError memory is full (MemoryError); ")


def test_a_process_that_ends_while_it_loads_is_told_in_one_line(run):
    process = ModelProcess()
    process.end()
    with pytest.raises(UserError, match="ended by SIGKILL; is there enough memory") as told:
        RemoteBatcher(run, process=process)
    assert str(run) in str(told.value) and process.pipe.closed


@pytest.mark.parametrize(("given", "threads"), [("3", "3"), (None, str(threads_beside_a_server()))])
def test_its_threads_leave_a_core_to_the_server(monkeypatch, tmp_path, given, threads):
    (tmp_path / "told.py").write_text(
        "import os\ndef host(pipe): pipe.send(os.environ['OMP_NUM_THREADS'])"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("hrm.inference.process.HOST", "told")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    with ModelProcess() as process:
        assert process.pipe.poll(PATIENCE) and process.pipe.recv() == threads
    assert 1 <= threads_beside_a_server() <= max(1, (os.cpu_count() or 1) - 1)


def test_nobody_is_held_up_by_a_process_that_stands_still(run):
    """More questions than the pipe holds."""
    batcher = RemoteBatcher(run, "cpu", max_waiting=100_000)
    os.kill(batcher.pid, signal.SIGSTOP)
    arrived: queue.SimpleQueue[object] = queue.SimpleQueue()
    for _ in range(100):
        batcher.submit([question()] * 200, lambda _, item: arrived.put(item))
    batcher.close()
    assert {type(arrived.get(timeout=PATIENCE)) for _ in range(20_000)} == {Closed}
