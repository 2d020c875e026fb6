"""How the web server holds under load, on this machine's loopback.

    python benchmarks/serving.py [CHECKPOINT] [--seconds 60] [--clients 64] [--rounds 12]

The real server runs as a process of its own. Clients keep one connection each and send one puzzle
of the checkpoint's test split after another to `/api/solve`, as fast as they are answered.

1. a `Batcher` alone, without a server, asked by as many at once: what the server can reach at most
2. with dynamic batching and without (one puzzle thinks at a time): latencies, puzzles/s
3. ten times as many clients at once as puzzles may wait: answers by status, memory before and after
4. clients that vanish in the middle of an answer: what is left of them in the server
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from hrm.checkpoint import find_checkpoint
from hrm.data.format import read_metadata
from hrm.data.split import Split
from hrm.errors import run_command
from hrm.inference import Solver
from hrm.inference.batcher import MAX_BATCH, MAX_WAITING, Batcher, Question, Step
from hrm.inference.process import threads_beside_a_server
from hrm.tasks import task_of
from hrm.training.config import load_train_config

ROOT = Path(__file__).parents[1]
SERVER = """
import sys
from pathlib import Path
from hrm.web import serve
run, max_batch = Path(sys.argv[1]), int(sys.argv[2])
serve(run, run.parent, Path("data"), "127.0.0.1", 0, max_batch=max_batch)
"""
VANISHING, VANISHING_AT_ONCE = 1000, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = Path("checkpoints/quickstart/6x6-seed0")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=default, help="a run's folder")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12, help="of overload, 5 s each")
    arguments = parser.parse_args()
    run, puzzles = arguments.checkpoint, _puzzles(arguments.checkpoint)

    print(
        f"{arguments.clients} clients, {arguments.seconds:.0f} s, {len(puzzles)} puzzles of {run}"
    )
    print(f"{'':>20}{'answers':>9}{'errors':>8}{'puzzles/s':>11}{'p50':>8}{'p95':>8}{'p99':>8}  ms")
    alone = _alone(run, puzzles, arguments.clients, arguments.seconds)
    print(f"{'batcher alone':>20}{alone.line(arguments.seconds)}", flush=True)
    for label, max_batch in (("dynamic batching", MAX_BATCH), ("one at a time", 1)):
        with _server(run, max_batch) as (_, port):
            load = _Load(port, run.name, puzzles)
            asyncio.run(load.run(arguments.clients, 3.0))  # loads the model
            load = _Load(port, run.name, puzzles)
            asyncio.run(load.run(arguments.clients, arguments.seconds))
            share = f"{load.statuses[200] / alone.statuses[200]:>6.0%} of the batcher's"
            print(f"{label:>20}{load.line(arguments.seconds)}{share}", flush=True)

    with _server(run, MAX_BATCH) as (process, port):
        asyncio.run(_Load(port, run.name, puzzles).run(arguments.clients, 3.0))
        crowd = 10 * MAX_WAITING
        print(f"\noverload: {crowd} clients at once, {MAX_WAITING} puzzles may wait")
        for _ in range(arguments.rounds):
            load = _Load(port, run.name, puzzles)
            asyncio.run(load.run(crowd, 5.0))
            print(f"  5 s: {_counted(load.statuses)}; {_Resources.of(process)}", flush=True)

        print(f"\nclients that vanish: {VANISHING}, {VANISHING_AT_ONCE} at a time")
        before = _Resources.of(process)
        asyncio.run(_vanish(port, run.name, puzzles))
        time.sleep(1)
        after, health = _Resources.of(process), asyncio.run(_health(port))
        print(f"  before: {before}\n  after:  {after}")
        print(f"  thinking {health['running']}, waiting {health['waiting']}")


def _puzzles(run: Path) -> list[str]:
    checkpoint = find_checkpoint(run)
    data_path = load_train_config(checkpoint / "all_config.yaml").data_path
    grid = task_of(read_metadata(checkpoint)).grid
    split = Split.open(data_path / "test")
    return [grid.text(split.example(number).inputs) for number in range(len(split))]


@contextmanager
def _server(run: Path, max_batch: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-c", SERVER, str(run), str(max_batch)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        yield process, int(address.rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


class _Resources:
    """What the server and the processes of its models hold."""

    def __init__(self, megabytes: float, files: int, threads: int):
        self.megabytes, self.files, self.threads = megabytes, files, threads

    @classmethod
    def of(cls, process: subprocess.Popen[str]) -> "_Resources":
        server = Path(f"/proc/{process.pid}")
        lists = [path.read_text().split() for path in server.glob("task/*/children")]
        held = [cls._of(folder) for folder in (server, *(Path("/proc", p) for p in sum(lists, [])))]
        return cls(*map(sum, zip(*held, strict=True)))

    @staticmethod
    def _of(folder: Path) -> tuple[float, int, int]:
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text().splitlines() if line
        )
        files = sum(1 for _ in (folder / "fd").iterdir())
        return int(status["VmRSS"].split()[0]) / 1024, files, int(status["Threads"])

    def __str__(self) -> str:
        return f"{self.megabytes:.0f} MB, {self.files} open files, {self.threads} threads"


class _Answers:
    """What clients were answered, and when."""

    def __init__(self) -> None:
        self.statuses: Counter[int | str] = Counter()
        self.latencies: list[float] = []  # of answers with status 200, in seconds

    def line(self, seconds: float) -> str:
        good = self.statuses[200]
        bad = sum(self.statuses.values()) - good
        p50, p95, p99 = 1000 * np.percentile(self.latencies, [50, 95, 99])
        return f"{good:>9}{bad:>8}{good / seconds:>11.1f}{p50:>8.0f}{p95:>8.0f}{p99:>8.0f}"


def _alone(run: Path, puzzles: list[str], clients: int, seconds: float) -> _Answers:
    """A batcher in this process, with as many threads; who is answered asks again at once."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads_beside_a_server())
    solver, answers = Solver.from_checkpoint(run), _Answers()
    questions = [
        Question(tokens, solver.unseen_identifier, solver.max_steps)
        for tokens in solver.task.read_all(puzzles)
    ]
    batcher = Batcher(solver)

    def ask() -> None:
        start = time.perf_counter()

        def deliver(_: int, step: Step | Exception) -> None:
            now = time.perf_counter()
            if isinstance(step, Step) and begin <= now < begin + seconds:
                answers.statuses[200] += 1
                answers.latencies.append(now - start)
            if now < begin + seconds:
                ask()

        batcher.submit([random.choice(questions)], deliver)

    begin = time.perf_counter() + 3.0  # as long as the server's model is warmed
    for _ in range(clients):
        ask()
    time.sleep(seconds + 3.0)
    batcher.close()
    return answers


class _Load(_Answers):
    """Clients, each with one connection, until the time is over."""

    def __init__(self, port: int, checkpoint: str, puzzles: list[str]):
        super().__init__()
        self._port, self._checkpoint, self._puzzles = port, checkpoint, puzzles

    async def run(self, clients: int, seconds: float) -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(self._client(end) for _ in range(clients)))

    async def _client(self, end: float) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            while time.perf_counter() < end:
                start = time.perf_counter()
                puzzle = random.choice(self._puzzles)
                writer.write(
                    _request("/api/solve", {"checkpoint": self._checkpoint, "puzzles": [puzzle]})
                )
                status, _ = await _answer(reader)
                if time.perf_counter() >= end:
                    break
                self.statuses[status] += 1
                if status == 200:
                    self.latencies.append(time.perf_counter() - start)
                else:
                    await asyncio.sleep(0.2)
            writer.close()
        except (OSError, EOFError) as error:
            self.statuses[type(error).__name__] += 1


async def _vanish(port: int, checkpoint: str, puzzles: list[str]) -> None:
    turns = asyncio.Semaphore(VANISHING_AT_ONCE)

    async def one() -> None:
        async with turns:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            asked = {"checkpoint": checkpoint, "puzzle": random.choice(puzzles)}
            writer.write(_request("/api/think", asked | {"halting": "max_steps", "steps": 256}))
            await reader.readline()
            writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(VANISHING)))


async def _health(port: int) -> dict[str, int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    _, body = await _answer(reader)
    writer.close()
    return json.loads(body)


def _request(path: str, values: dict[str, object]) -> bytes:
    body = json.dumps(values).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length:")[2].split("\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


def _counted(statuses: Counter[int | str]) -> str:
    return ", ".join(f"{number} x {status}" for status, number in sorted(statuses.items(), key=str))


if __name__ == "__main__":
    run_command(main)
