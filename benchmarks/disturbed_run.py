"""Runs that are disturbed, and the undisturbed ones that they must end as; for `faults.py`."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

from hrm.checkpoint import saved_steps, step_dir
from hrm.checkpoint.manifest import verify
from hrm.errors import UserError
from hrm.tasks.sudoku.builder import BuildOptions, build

ROOT = Path(__file__).parents[1]
SETTINGS = (
    *("arch.hidden_size=64", "arch.num_heads=4", "arch.H_layers=1", "arch.L_layers=1"),
    *("arch.puzzle_emb_ndim=64", "arch.H_cycles=1", "arch.L_cycles=1", "arch.halt_max_steps=4"),
    *("arch.forward_dtype=float32", "device=cpu", "compile=false", "progress=false"),
    *("global_batch_size=32", "lr=1e-3", "lr_warmup_steps=5", "puzzle_emb_lr=1e-3", "ema=true"),
    *("log_interval=2", "checkpoint_interval=7", "keep_checkpoints=3"),
)
EPOCHS, EVAL_INTERVAL = 60, 6  # about 3 steps an epoch
EARLY_SECONDS = 4  # about what Python and torch take to start
NEAR_END = 10  # steps before the last one
SLOWEST = 300  # seconds in which a process must end by itself


class Lost(Exception):
    """A run did not end, or not as it should."""


class Missed(Exception):
    """The process ended before the fault could happen."""


class Differs(Exception):
    """A run went on wrongly."""


@dataclass(frozen=True)
class Surroundings:
    """What a process runs in."""

    settings: tuple[str, ...] = ()  # further ones
    has_terminal: bool = False  # of its own; closed with `Process.close_terminal`
    clock: Path | None = None  # holds by how many seconds the time of day is wrong
    largest_file: int | None = None  # KiB
    agents: int = 1  # torchruns, which the ranks are shared among


@dataclass
class Process:
    """A training process, or torchruns and their ranks."""

    popens: list[subprocess.Popen[bytes]]
    output: Path
    is_alone: bool  # torchrun's reports look like tracebacks
    terminal: subprocess.Popen[bytes] | None = None

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def is_alive(self) -> bool:
        return any(popen.poll() is None for popen in self.popens)

    def family(self) -> list[int]:
        """The processes and all that descend from them."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*"):
            if stat := stat_of(int(path.name)):
                parents[int(path.name)] = int(stat[1])
        family = [popen.pid for popen in self.popens]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family

    def ranks(self) -> list[int]:
        """Of torchrun's processes those that train."""
        return [pid for pid in self.family() if b"\0RANK=" in read(f"/proc/{pid}/environ")]

    def kill(self) -> None:
        family = self.family()
        kill_all(family)
        for popen in self.popens:
            popen.wait()
        while any(is_running(pid) for pid in family):
            time.sleep(0.01)
        self.close_terminal()

    def close_terminal(self) -> None:
        """The program that shows it is killed, and with it goes what reads the output."""
        if self.terminal is not None:
            self.terminal.kill()
            self.terminal.wait()
            self.terminal = None

    def wait(self, condition: Callable[[], bool], pause: float = 0.005) -> bool:
        """Wait until something is so; False where it ends before.

        Raises:
            Lost: neither happens within `SLOWEST` seconds.
        """
        deadline = time.monotonic() + SLOWEST
        while not condition():
            if not self.is_alive():
                return False
            if time.monotonic() > deadline:
                raise Lost(f"stands still for {SLOWEST} s")
            time.sleep(pause)
        return True

    def end(self, *codes: int) -> int:
        """Wait until it ends by itself, as it should.

        Raises:
            Lost: it does not, or with another exit code, or with a traceback.
        """
        deadline = time.monotonic() + SLOWEST
        try:
            code = [popen.wait(max(0, deadline - time.monotonic())) for popen in self.popens][0]
        except subprocess.TimeoutExpired:
            self.kill()
            raise Lost(f"did not end within {SLOWEST} s") from None
        if self.terminal is not None:
            self.terminal.wait()  # has read everything by then
        if code not in codes:
            raise Lost(f"exit code {code}, not {' or '.join(map(str, codes))}")
        if self.is_alone and "Traceback" in self.text():
            raise Lost(f"a traceback, exit code {code}")
        return code


@dataclass
class Bench:
    """Data, and what undisturbed runs give on 1 and on 2 ranks."""

    folder: Path
    epochs: int = EPOCHS
    references: dict[int, dict[str, bytes]] = field(default_factory=dict)
    last_step: int = 0

    @staticmethod
    def create(folder: Path, epochs: int = EPOCHS) -> "Bench":
        build(
            BuildOptions(
                output_dir=folder / "data", generate=(2, 2), num_train=100, num_test=16, num_aug=3
            )
        )
        return Bench(folder, epochs)

    def commands(self, run_dir: Path, ranks: int, within: Surroundings) -> list[list[str]]:
        """Of the process, or of every torchrun."""
        program = [str(ROOT / "pretrain.py"), f"data_path={self.folder / 'data'}", *SETTINGS]
        program += [f"epochs={self.epochs}", f"eval_interval={EVAL_INTERVAL}"]
        program += [f"checkpoint_path={run_dir}", "run_name=run", "resume=auto", *within.settings]
        if within.clock is not None:
            program = [str(ROOT / "benchmarks" / "jumping_clock.py"), str(within.clock), *program]
        limit = []
        if within.largest_file is not None:
            limit = ["bash", "-c", f'ulimit -f {within.largest_file}; exec "$@"', "bash"]
        if ranks == 1:
            return [[*limit, sys.executable, *program]]
        torchrun = [*limit, sys.executable, "-m", "torch.distributed.run", "--max-restarts", "3"]
        torchrun += ["--nproc-per-node", str(ranks // within.agents)]
        return [[*torchrun, *flags, *program] for flags in _meetings(within.agents)]

    def reference(self, ranks: int) -> dict[str, bytes]:
        """What every run on so many ranks must end with."""
        if ranks not in self.references:
            run = Run(self, self.folder / f"undisturbed-{ranks}", ranks)
            run.start().end(0)
            self.last_step = saved_steps(run.run_dir)[-1]
            self.references[ranks] = run.result()
        return self.references[ranks]


@dataclass
class Run:
    """One run that is disturbed."""

    bench: Bench
    folder: Path
    ranks: int = 1
    damaged: list[str] = field(default_factory=list)  # the next process must set them aside
    outputs: list[Path] = field(default_factory=list)  # of processes since that damage
    notes: Counter[str] = field(default_factory=Counter)  # what else happened, and how often
    processes: int = 0
    process: Process | None = None
    is_ended: bool = False

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def metrics(self) -> Path:
        return self.run_dir / "metrics.jsonl"

    def start(self, within: Surroundings | None = None) -> Process:
        """Start it, or go on with it."""
        within = within or Surroundings()
        self.folder.mkdir(exist_ok=True)
        self.processes += 1
        self.is_ended = False
        output = self.bench.folder / f"{self.folder.name}-{self.processes}.txt"
        commands = self.bench.commands(self.run_dir, self.ranks, within)
        terminal = None
        with output.open("wb") as file:
            if within.has_terminal:
                master, slave = os.openpty()
                termios.tcsetwinsize(slave, (24, 80))
                popens = [self._popen(commands[0], lambda: os.login_tty(slave))]
                terminal = subprocess.Popen(["cat"], stdin=master, stdout=file, stderr=file)
                os.close(master)
                os.close(slave)
            else:
                popens = [self._popen(command, os.setsid, file) for command in commands]
        self.outputs.append(output)
        self.process = Process(popens, output, self.ranks == 1, terminal)
        return self.process

    def _popen(
        self, command: list[str], leave: Callable[[], None], output: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """A process that has left the session of this one."""

        def prepare() -> None:
            leave()
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` has ignored

        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            command,
            cwd=self.bench.folder,
            env=env,
            stdout=output,
            stderr=output,
            preexec_fn=prepare,
        )

    def text(self) -> str:
        """What the last process printed."""
        return "" if self.process is None else self.process.text()

    def step(self) -> int:
        """Of the newest whole line of metrics; 0 before any."""
        lines = read(self.metrics).split(b"\n")[:-1]
        try:
            return json.loads(lines[-1])["step"]
        except (LookupError, ValueError, TypeError):
            return 0

    def begin(
        self, rng: random.Random, within: Surroundings | None = None, early: bool = False
    ) -> Process:
        """Start and wait for a random moment; `early`: of the start, else of the training.

        Raises:
            Missed: the process ended before.
        """
        newest = max(saved_steps(self.run_dir), default=0)
        ahead = max(1, min(self.bench.last_step - newest - 1, self.bench.last_step // 4))
        target = newest + rng.randint(1, ahead)
        before = self.step()
        process = self.start(within)
        if early:
            time.sleep(rng.uniform(0, EARLY_SECONDS))
            return process
        has_begun = before < target

        def is_there() -> bool:
            nonlocal has_begun
            step = self.step()
            has_begun = has_begun or step < before
            return has_begun and step >= target

        self.wait(is_there)
        time.sleep(rng.uniform(0, 0.1))
        if not process.is_alive():
            self.miss()
        self.check_set_aside()
        return process

    def wait(self, condition: Callable[[], bool], pause: float = 0.005) -> None:
        """Wait until something is so.

        Raises:
            Missed: the process ended before.
        """
        assert self.process is not None
        if not self.process.wait(condition, pause):
            self.miss()

    def wait_for_save(self) -> None:
        """Wait until it writes a checkpoint."""
        self.wait(self.is_saving, 0.0005)

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written, or is left unfinished."""
        return any(self.run_dir.glob(".step_*"))

    def is_at_end(self) -> bool:
        """Whether it may end before it hears of anything."""
        return self.step() > self.bench.last_step - NEAR_END

    def miss(self) -> NoReturn:
        """The process has ended, as it should: raise `Missed`."""
        assert self.process is not None
        self.process.end(0)
        self.check_end()
        raise Missed

    def check_end(self) -> None:
        """Raise `Differs` unless the run ended as the undisturbed one."""
        self.check_set_aside()
        self.is_ended = True
        reference, result = self.bench.reference(self.ranks), self.result()
        names = sorted(reference.keys() | result.keys())
        if different := [name for name in names if result.get(name) != reference.get(name)]:
            raise Differs(f"{', '.join(different)}: not as in the undisturbed run")

    def check_set_aside(self) -> None:
        """Raise `Lost` unless the damaged checkpoints were named, by the last process or before."""
        text = "".join(path.read_text(errors="replace") for path in self.outputs)
        for name in self.damaged:
            if f"set aside as {name}.damaged" not in text:
                raise Lost(f"damage to {name} was not told")
        self.damaged, self.outputs = [], []

    def result(self) -> dict[str, bytes]:
        """All tensors of the last checkpoint, and the metrics."""
        if not (steps := saved_steps(self.run_dir)):
            return {}
        last = step_dir(self.run_dir, steps[-1])
        paths = [*last.glob("*.safetensors"), self.metrics]
        return {path.name: read(path) for path in paths} | {"name": last.name.encode()}


def _meetings(agents: int) -> list[list[str]]:
    """How each torchrun finds the others; the first keeps the rendezvous."""
    if agents == 1:
        return [["--standalone"]]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = ["--nnodes", str(agents), "--rdzv-backend", "c10d", "--rdzv-id", "faults"]
    shared += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    return [[*shared, "--rdzv-conf", f"is_host={n == 0}".lower()] for n in range(agents)]


def read(path: str | Path) -> bytes:
    """A file's bytes; none where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def stat_of(pid: int) -> list[bytes]:
    """What `/proc/<pid>/stat` says, from the state on; [] of a process that is gone."""
    return read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def is_running(pid: int) -> bool:
    stat = stat_of(pid)
    return bool(stat) and stat[0] != b"Z"


def kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def damage_of(checkpoint: Path) -> str | None:
    try:
        verify(checkpoint)
    except UserError as error:
        return str(error)
    return None
