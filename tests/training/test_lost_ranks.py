"""A rank that fails or is missing, where NCCL would let the others wait.

There is no GPU here: gloo stands in for NCCL, with what makes NCCL worse put in its place. Leaving
the group blocks, and so does reading a sum.
"""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist

from hrm import ranks as module
from hrm.ranks import Ranks
from hrm.training import interrupt
from hrm.training.interrupt import StopRequest
from tests.conftest import ROOT
from tests.forked_ranks import free_port
from tests.watching import LONG, wait_for

WORKER = """
import sys, time
import torch
import torch.distributed as dist
import hrm.ranks
from hrm.errors import run_command
from hrm.ranks import Ranks
from hrm.training import interrupt

def block(*_, **__):
    time.sleep(1000)

hrm.ranks._has_nccl = lambda: True
hrm.ranks._backend = lambda: "gloo"
dist.destroy_process_group = block
interrupt.PATIENCE = 1

def fails(ranks):
    if ranks.rank == 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    ranks.maximum(1)

def is_missing(ranks):
    if ranks.rank == 1:
        block()
    dist.all_reduce = lambda values, group, **_: group is ranks.group or reduce(values, group=group)
    torch.Tensor.tolist = block
    ranks.sum({"count": torch.ones(())})

def waits(ranks):
    if ranks.rank == 1:
        block()
    stop = interrupt.StopRequest()
    with stop.listening(), stop.watched():
        print("waiting", flush=True)
        ranks.maximum(1)

reduce = dist.all_reduce

def main():
    ranks = Ranks.from_environment()
    seconds = 600 if sys.argv[1] == "waits" else 8
    with ranks.connected(), ranks.answering_within(seconds) as group:
        globals()[sys.argv[1]](group)

run_command(main)
"""


@pytest.fixture
def start(tmp_path):
    """Starts two ranks; those that still run at the end of the test are killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(case: str) -> list[subprocess.Popen[str]]:
        script = tmp_path / "worker.py"
        script.write_text(WORKER)
        port = str(free_port())
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        for rank in ("0", "1"):
            process = subprocess.Popen(
                [sys.executable, str(script), case],
                env={**env, "RANK": rank, "LOCAL_RANK": rank},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
        return processes

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_rank_that_fails_reports_and_ends_at_once(start):
    first, second = start("fails")
    _, said = second.communicate(timeout=LONG)
    assert second.returncode == 2
    assert said.startswith("error: memory is full (CUDA out of memory)")
    _, said = first.communicate(timeout=LONG)
    host = socket.gethostname()
    assert first.returncode == 4
    assert said == f"error: rank 0 on {host}: no answer from rank 1 on {host}\n"


def test_a_missing_rank_is_named_before_its_sum_is_read(start):
    first, second = start("is_missing")
    _, said = first.communicate(timeout=LONG)
    host = socket.gethostname()
    assert first.returncode == 4 and second.poll() is None
    assert said == f"error: rank 0 on {host}: no answer from rank 1 on {host}\n"


def test_a_signal_ends_a_rank_that_waits_for_a_missing_one(start):
    first, second = start("waits")
    assert first.stdout.readline() == "waiting\n"
    began = time.monotonic()
    first.send_signal(signal.SIGTERM)
    assert first.wait(LONG) == 143 and second.poll() is None
    assert time.monotonic() - began < 20


def test_nccl_is_more_patient_than_the_hosts(monkeypatch):
    """Else its watchdog would end the process before anyone says who is missing."""
    made: dict[str, float] = {}

    def new_group(backend, timeout):
        made[backend] = timeout.total_seconds()
        return backend

    monkeypatch.setattr(module, "_has_nccl", lambda: True)
    monkeypatch.setattr(dist, "new_group", new_group)
    monkeypatch.setattr(dist, "all_gather_object", lambda entries, mine, group: None)
    for seconds in (1, 600):
        with Ranks(0, 2, 0).answering_within(seconds) as ranks:
            assert ranks.messages == "gloo" and ranks.group == "cpu:gloo,cuda:nccl"
        assert made["gloo"] == seconds
        assert made["cpu:gloo,cuda:nccl"] > seconds + module.ROLL_CALL_SECONDS


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Which collectives two ranks with NCCL start, and when a host reads what they computed."""
    seen: list[str] = []
    tolist = torch.Tensor.tolist

    def reduce(tensor, op=None, group=None):
        seen.append(group)

    def read(tensor):
        seen.append("read")
        return tolist(tensor)

    monkeypatch.setattr(module, "_has_nccl", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", reduce)
    monkeypatch.setattr(torch.Tensor, "tolist", read)
    return seen


def test_hosts_meet_before_they_read_what_devices_sum(calls):
    ranks = Ranks(0, 2, 0, group="devices", messages="hosts")
    ranks.sum({"count": torch.ones(())})
    assert calls == ["devices", "hosts", "read"]
    calls.clear()
    ranks.any(torch.ones(2, dtype=torch.bool))  # nobody reads it yet
    assert calls == ["devices"]
    calls.clear()
    Ranks(0, 1, 0).sum({"count": torch.ones(())})
    assert calls == ["read"]


class Watched:
    """A request to stop whose watcher notes the signal instead of ending the process."""

    def __init__(self, monkeypatch, patience: float):
        self.ended: list[int] = []
        monkeypatch.setattr(interrupt, "PATIENCE", patience)
        monkeypatch.setattr(interrupt, "end_at_once", self.ended.append)
        self.stop = StopRequest()


def test_standing_still_after_a_signal_ends_the_process(monkeypatch):
    watched = Watched(monkeypatch, patience=0.2)
    with watched.stop.listening(), watched.stop.watched():
        time.sleep(0.5)
        assert not watched.ended  # nobody asked
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: watched.ended)
    assert set(watched.ended) == {signal.SIGTERM} and watched.stop.signal == signal.SIGTERM


@pytest.mark.parametrize("goes_on", ["steps", "saving", "slow steps"])
def test_a_run_that_gets_on_is_left_to_save(monkeypatch, goes_on):
    watched = Watched(monkeypatch, patience=1)
    stop = watched.stop
    with stop.listening(), stop.watched():
        if goes_on == "slow steps":
            time.sleep(1)
            stop.got_on()
        os.kill(os.getpid(), signal.SIGTERM)
        if goes_on == "steps":
            for _ in range(30):
                time.sleep(0.05)
                stop.got_on()
        elif goes_on == "saving":
            with stop.saving():
                time.sleep(1.5)
        else:
            time.sleep(1.5)
    assert watched.ended == []


def test_other_signals_are_none_of_its_business(monkeypatch):
    watched = Watched(monkeypatch, patience=0.2)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with watched.stop.listening(), watched.stop.watched():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.5)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert watched.ended == []
