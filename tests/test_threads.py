"""Fewer threads beside other programs."""

import os
from collections.abc import Iterator

import pytest
import torch

from hrm.inference import Solver
from hrm.ranks import Ranks
from hrm.threads import FEW_NUMBERS, ThreadWatch, sharing_cores
from hrm.training.config import load_pretrain_config
from hrm.training.loop import train
from tests.conftest import saved_run
from tests.keys.commands import command


class Machine:
    """A clock and a load that a test sets."""

    def __init__(self) -> None:
        self.now, self.load = 0.0, 0.0
        self.said: list[str] = []

    def watch(self, device: str = "cpu") -> ThreadWatch:
        return ThreadWatch(
            torch.device(device), "steps", self.said.append, lambda: self.load, lambda: self.now
        )

    def work(self, watch: ThreadWatch, seconds: float, pieces: int, amount: float = 1.0) -> None:
        for _ in range(pieces):
            watch.start()
            self.now += seconds
            watch.done(amount)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield Machine()
    torch.set_num_threads(before)


def test_what_other_programs_leave_free_is_used(machine: Machine, monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    watch = machine.watch()
    machine.work(watch, 0.5, 10)
    machine.load = 17.0  # four of its own, and thirteen others
    machine.work(watch, 4.0, 3)
    assert torch.get_num_threads() == 3


def test_fewer_threads_beside_another_program_and_all_when_it_is_gone(machine: Machine) -> None:
    watch = machine.watch()
    machine.work(watch, 0.5, 10)
    machine.load = 5.1
    machine.work(watch, 4.0, 2)
    assert torch.get_num_threads() == 4 and not machine.said  # for 8 seconds, which may pass
    machine.work(watch, 4.0, 1)
    assert torch.get_num_threads() == 3
    machine.load = 4.1  # three of its own, and the other program
    machine.work(watch, 0.6, 200)
    assert torch.get_num_threads() == 3
    machine.load = 3.2
    machine.work(watch, 0.6, 1)
    assert torch.get_num_threads() == 4
    assert machine.said == [
        "steps take 8 times as long as before, for other programs are busy: going on with 3 "
        "threads instead of 4, which rounds differently (deterministic=true keeps them)",
        "the other programs are gone: going on with 4 threads again",
    ]


def test_one_thread_is_the_fewest(machine: Machine) -> None:
    watch, machine.load = machine.watch(), 20.0
    machine.work(watch, 0.5, 10)
    machine.work(watch, 4.0, 4)
    assert torch.get_num_threads() == 1
    assert "going on with one thread instead of 4" in machine.said[0]
    watch.close()
    assert torch.get_num_threads() == 4


def test_slow_work_on_a_machine_that_is_not_busy_changes_nothing(machine: Machine) -> None:
    watch, machine.load = machine.watch(), 4.0
    machine.work(watch, 0.5, 10)
    machine.work(watch, 4.0, 10)
    assert torch.get_num_threads() == 4 and not machine.said


def test_a_slow_moment_changes_nothing(machine: Machine) -> None:
    watch, machine.load = machine.watch(), 6.0
    for _ in range(10):
        machine.work(watch, 0.5, 10)
        machine.work(watch, 4.0, 2)
    assert torch.get_num_threads() == 4 and not machine.said


def test_more_work_takes_longer(machine: Machine) -> None:
    watch, machine.load = machine.watch(), 6.0
    machine.work(watch, 0.5, 10)
    machine.work(watch, 4.0, 10, amount=8.0)
    assert torch.get_num_threads() == 4 and not machine.said


def test_deterministic_training_keeps_its_threads_and_says_so_once(machine: Machine) -> None:
    watch, machine.load = machine.watch(), 6.0
    torch.use_deterministic_algorithms(True)
    try:
        machine.work(watch, 0.5, 10)
        machine.work(watch, 4.0, 20)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.get_num_threads() == 4
    assert machine.said == [
        "steps take 8 times as long as before, for other programs are busy; deterministic=true "
        "keeps 4 threads; stop them, or start again with OMP_NUM_THREADS=2"
    ]


def test_threads_of_the_cpu_do_not_matter_to_another_device(machine: Machine) -> None:
    watch, machine.load = machine.watch("meta"), 6.0
    machine.work(watch, 0.5, 10)
    machine.work(watch, 4.0, 10)
    assert torch.get_num_threads() == 4 and not machine.said


@pytest.mark.parametrize(
    ("device", "numbers", "threads"),
    [("cpu", FEW_NUMBERS, 1), ("cpu", FEW_NUMBERS + 1, 2), ("meta", 1, 2)],
)
def test_little_work_takes_one_thread(device, numbers, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with sharing_cores(torch.device(device), numbers):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_one_puzzle_takes_one_thread_and_many_take_all(data_4x4, tmp_path, monkeypatch):
    saved = saved_run(data_4x4, tmp_path / "run")
    seen: list[int] = []
    solve = Solver.solve

    def watched(self, *arguments, **more):
        seen.append(torch.get_num_threads())
        return solve(self, *arguments, **more)

    monkeypatch.setattr(Solver, "solve", watched)
    monkeypatch.setattr("hrm.threads.FEW_NUMBERS", 2000)  # a puzzle has 1,536
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for puzzles in (["1..............."], ["1...............", "2..............."]):
            command("solve", saved, *puzzles)
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


def test_training_and_evaluation_watch_their_threads(data_4x4, tmp_path, monkeypatch, capsys):
    for name in ("SLOW", "LASTING", "ENOUGH"):
        monkeypatch.setattr(f"hrm.threads.{name}", 0)
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    keys = [f"data_path={data_4x4}", f"checkpoint_path={tmp_path / 'run'}", "epochs=1"]
    config = load_pretrain_config([*keys, "eval_interval=1", "eval_limit=32"], "quickstart_4x4")
    try:
        train(config, Ranks(0, 1, 0), torch.device("cpu"))
        assert torch.get_num_threads() == 2
        code, _, said_by_evaluation = command("evaluate", tmp_path / "run")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    said = capsys.readouterr()
    assert code == 0
    assert said.out.count("steps take 1 times as long") == 1
    assert said_by_evaluation.count("puzzles take 1 times as long") == 1
