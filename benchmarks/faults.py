"""Disturb training runs again and again; every one must end as an undisturbed one does.

    python benchmarks/faults.py --rounds 100 --seed 0

A small model learns 4x4 Sudoku on the CPU. Processes are killed, stopped, starved of disk space,
and files of checkpoints are damaged; each time the same command with resume=auto goes on. At the
end weights, running average, training state and metrics.jsonl must be the undisturbed run's, byte
for byte. Full disks need the right to mount a tmpfs; without it `ulimit -f` stands in for them.
Exit code 1 if a run was lost or went on wrongly; its folder is kept then.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

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
COMPARED = ("model.safetensors", "ema.safetensors", "training.safetensors")
DISK_BYTES = 40_000_000  # room for some twenty checkpoints
EARLY_SECONDS = 4  # about what Python and torch take to start
LARGEST_FILE = 64  # KiB, where no tmpfs can be mounted
SLOWEST = 300  # seconds in which a process must end by itself

KILL, KILL_IN_SAVE, KILL_EARLY = "kill -9", "kill -9 in a save", "kill -9 at the start"
TERM, INTERRUPT = "SIGTERM", "SIGINT"
DISK_BACK, DISK_KILL = "disk full for a while", "disk full, then kill -9"
DAMAGE, TORN = "damaged checkpoint", "torn line of metrics"
JOB_KILL, RANK_KILL = "2 ranks: kill -9 of all", "2 ranks: kill -9 of one, torchrun restarts"
SINGLE = (KILL, KILL_IN_SAVE, KILL_EARLY, TERM, INTERRUPT, DISK_BACK, DISK_KILL, DAMAGE, TORN)
ON_TWO_RANKS = (JOB_KILL, RANK_KILL)
BETWEEN = (DAMAGE, TORN)  # happen to the files while no process runs


class Lost(Exception):
    """A run did not end, or not as it should."""


class Missed(Exception):
    """The process ended before the fault could happen."""


class Differs(Exception):
    """A run went on wrongly."""


@dataclass
class Tally:
    """What happened, by kind of fault."""

    faults: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    in_saves: int = 0  # kills that left an unfinished checkpoint
    set_aside: int = 0  # damaged checkpoints, all of which were named

    @property
    def failed(self) -> bool:
        return bool(self.lost or self.wrong)

    def table(self, kinds: list[str]) -> str:
        counters = (self.faults, self.lost, self.wrong)
        rows = [[kind, *(str(counter[kind]) for counter in counters)] for kind in kinds]
        rows.append(["all", *(str(counter.total()) for counter in counters)])
        lines = ["| fault | times | runs lost | wrong continuations |", "| --- | --- | --- | --- |"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


@dataclass
class Process:
    """A training process, or torchrun and its ranks."""

    popen: subprocess.Popen[bytes]
    output: Path
    is_alone: bool  # torchrun's reports look like tracebacks

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def family(self) -> list[int]:
        """The process and all that descend from it."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        family = [self.popen.pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family

    def ranks(self) -> list[int]:
        """Of torchrun's processes those that train."""
        return [pid for pid in self.family()[1:] if b"\0RANK=" in _read(f"/proc/{pid}/environ")]

    def kill(self) -> None:
        family = self.family()
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait()
        while any(_is_running(pid) for pid in family[1:]):
            time.sleep(0.01)

    def end(self, *codes: int) -> int:
        """Wait until it ends by itself, as it should.

        Raises:
            Lost: it does not, or with another exit code, or with a traceback.
        """
        try:
            code = self.popen.wait(SLOWEST)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Lost(f"did not end within {SLOWEST} s") from None
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

    def command(self, run_dir: Path, ranks: int) -> list[str]:
        command = [sys.executable]
        if ranks > 1:
            command += ["-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(ranks), "--max-restarts", "3"]
        command += [str(ROOT / "pretrain.py"), f"data_path={self.folder / 'data'}", *SETTINGS]
        command += [f"epochs={self.epochs}", f"eval_interval={EVAL_INTERVAL}"]
        return [*command, f"checkpoint_path={run_dir}", "run_name=run", "resume=auto"]

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
    small_files: bool = False  # the next process may write none larger than LARGEST_FILE
    damaged: list[str] = field(default_factory=list)  # the next process must set them aside
    outputs: list[Path] = field(default_factory=list)  # of processes since that damage
    processes: int = 0
    process: Process | None = None
    is_ended: bool = False

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def start(self) -> Process:
        """Start it, or go on with it."""
        self.folder.mkdir(exist_ok=True)
        self.processes += 1
        self.is_ended = False
        output = self.bench.folder / f"{self.folder.name}-{self.processes}.txt"
        command = self.bench.command(self.run_dir, self.ranks)
        if self.small_files:
            command = ["bash", "-c", f'ulimit -f {LARGEST_FILE}; exec "$@"', "bash", *command]
        with output.open("wb") as file:
            popen = subprocess.Popen(
                command,
                cwd=self.bench.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.outputs.append(output)
        self.process = Process(popen, output, self.ranks == 1)
        return self.process

    def text(self) -> str:
        """What the last process printed."""
        return "" if self.process is None else self.process.text()

    def step(self) -> int:
        """Of the newest whole line of metrics; 0 before any."""
        lines = _read(self.run_dir / "metrics.jsonl").split(b"\n")[:-1]
        try:
            return json.loads(lines[-1])["step"]
        except (LookupError, ValueError, TypeError):
            return 0

    def begin(self, rng: random.Random, early: bool = False) -> Process:
        """Start and wait for a random moment; `early`: of the start, else of the training.

        Raises:
            Missed: the process ended before.
        """
        newest = max(saved_steps(self.run_dir), default=0)
        ahead = max(1, min(self.bench.last_step - newest - 1, self.bench.last_step // 4))
        target = newest + rng.randint(1, ahead)
        before = self.step()
        process = self.start()
        if early:
            time.sleep(rng.uniform(0, EARLY_SECONDS))
            return process
        has_begun = before < target
        while process.is_alive():
            step = self.step()
            has_begun = has_begun or step < before
            if has_begun and step >= target:
                time.sleep(rng.uniform(0, 0.1))
                break
            time.sleep(0.005)
        if not process.is_alive():
            process.end(0)
            self.check_end()
            raise Missed
        self.check_set_aside()
        return process

    def check_end(self) -> None:
        """Raise `Differs` unless the run ended as the undisturbed one."""
        self.check_set_aside()
        self.is_ended = True
        reference, result = self.bench.reference(self.ranks), self.result()
        if different := [name for name in reference if result.get(name) != reference[name]]:
            raise Differs(f"{', '.join(different)}: not as in the undisturbed run")

    def check_set_aside(self) -> None:
        """Raise `Lost` unless the damaged checkpoints were named, by the last process or before."""
        text = "".join(path.read_text(errors="replace") for path in self.outputs)
        for name in self.damaged:
            if f"set aside as {name}.damaged" not in text:
                raise Lost(f"damage to {name} was not told")
        self.damaged, self.outputs = [], []

    def result(self) -> dict[str, bytes]:
        if not (steps := saved_steps(self.run_dir)):
            return {}
        last = step_dir(self.run_dir, steps[-1])
        paths = [*(last / name for name in COMPARED), self.run_dir / "metrics.jsonl"]
        return {path.name: _read(path) for path in paths} | {"name": last.name.encode()}


def kill(run: Run, rng: random.Random, tally: Tally) -> None:
    run.begin(rng).kill()
    tally.in_saves += any(run.run_dir.glob(".step_*"))


def kill_early(run: Run, rng: random.Random, tally: Tally) -> None:
    """While Python starts, or the checkpoint is read."""
    run.begin(rng, early=True).kill()


def kill_in_save(run: Run, rng: random.Random, tally: Tally) -> None:
    process = run.begin(rng)
    deadline = time.monotonic() + 60
    while not any(run.run_dir.glob(".step_*")) and time.monotonic() < deadline:
        if not process.is_alive():
            process.end(0)
            run.check_end()
            raise Missed
        time.sleep(0.0005)
    time.sleep(rng.choice((0, rng.uniform(0, 0.1))))
    process.kill()
    tally.in_saves += any(run.run_dir.glob(".step_*"))


def stop(number: int) -> Callable[[Run, random.Random, Tally], None]:
    def send(run: Run, rng: random.Random, tally: Tally) -> None:
        process = run.begin(rng)
        process.popen.send_signal(number)
        if process.end(0, 128 + number) == 0:  # it was in its last step
            run.check_end()
            raise Missed
        newest = step_dir(run.run_dir, saved_steps(run.run_dir)[-1])
        if _damage_of(newest) or int(newest.name[5:]) < run.step():
            raise Lost("the checkpoint at the stop is missing or damaged")

    return send


def fill_disk(run: Run, rng: random.Random, tally: Tally) -> None:
    """Full for a while, then free again: the run goes on, unless it is at its end meanwhile."""
    process, free = _fill(run, rng)
    if rng.random() < 0.7:
        _wait(lambda: "could not be written" in process.text() or not process.is_alive())
    time.sleep(rng.uniform(0, 1))
    if run.small_files:
        _wait(lambda: not process.is_alive())
    free()
    code = process.end(0, 2)
    if code == 0:
        run.check_end()
    elif "could not be written" not in process.text():
        raise Lost("exit code 2, but nothing said of the disk")


def fill_disk_and_kill(run: Run, rng: random.Random, tally: Tally) -> None:
    process, free = _fill(run, rng)
    time.sleep(rng.uniform(0, 2))
    process.kill()
    if rng.random() < 0.3 and not run.small_files:
        code = run.start().end(0, 2)  # what can it do on a full disk: tell, in one line
        if code == 2 and "error: " not in run.text():
            raise Lost("exit code 2 without an error line")
    free()


def _fill(run: Run, rng: random.Random) -> tuple[Process, Callable[[], None]]:
    """Begin; make the disk full; what frees it again."""
    if not os.path.ismount(run.folder):
        run.small_files = True
        process = run.begin(rng)
        run.small_files = False
        return process, lambda: None
    process = run.begin(rng)
    sound = [s for s in saved_steps(run.run_dir) if not _damage_of(step_dir(run.run_dir, s))]
    filler = run.folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))

    def free() -> None:
        steps = saved_steps(run.run_dir)
        if sound and not any(not _damage_of(step_dir(run.run_dir, s)) for s in steps):
            raise Lost("no sound checkpoint is left")
        filler.unlink(missing_ok=True)

    return process, free


def damage(run: Run, rng: random.Random, tally: Tally) -> None:
    """A flipped bit, or a missing end, in any file of the newest checkpoint, or of two."""
    steps = saved_steps(run.run_dir)
    steps = [s for s in steps if f"step_{s}" not in run.damaged][-rng.choice((1, 1, 2)) :]
    if not steps:
        raise Missed
    run.outputs = run.outputs if run.damaged else []
    for checkpoint in (step_dir(run.run_dir, step) for step in steps):
        while True:
            path = rng.choice([p for p in sorted(checkpoint.rglob("*")) if p.is_file()])
            whole = path.read_bytes()
            position = rng.randrange(len(whole))
            flipped = bytes([whole[position] ^ 1 << rng.randrange(8)])
            cut = rng.random() < 0.3
            path.write_bytes(whole[:position] + (b"" if cut else flipped + whole[position + 1 :]))
            if path.name != "manifest.json" or _damage_of(checkpoint):
                break  # else only its last line break is gone
            path.write_bytes(whole)
        run.damaged.append(checkpoint.name)
        tally.set_aside += 1


def tear(run: Run, rng: random.Random, tally: Tally) -> None:
    """The last line of metrics stands there in part, and wrong."""
    path = run.run_dir / "metrics.jsonl"
    newest = max(saved_steps(run.run_dir), default=0)
    lines = _read(path).splitlines(keepends=True)
    if not lines:
        raise Missed
    last = lines.pop()
    if run.step() <= newest:  # what stands before a checkpoint is on the disk
        lines.append(last)
    torn = bytearray(last[: rng.randrange(1, len(last) - 1)])
    if rng.random() < 0.5:
        torn[rng.randrange(len(torn))] ^= 1 << rng.randrange(8)
    path.write_bytes(b"".join([*lines, torn]))


def kill_rank(run: Run, rng: random.Random, tally: Tally) -> None:
    process = run.begin(rng)
    if not (ranks := process.ranks()):
        process.end(0)
        run.check_end()
        raise Missed
    with suppress(ProcessLookupError):
        os.kill(rng.choice(ranks), signal.SIGKILL)
    process.end(0)
    run.check_end()


FAULTS: dict[str, Callable[[Run, random.Random, Tally], None]] = {
    KILL: kill,
    KILL_IN_SAVE: kill_in_save,
    KILL_EARLY: kill_early,
    TERM: stop(signal.SIGTERM),
    INTERRUPT: stop(signal.SIGINT),
    DISK_BACK: fill_disk,
    DISK_KILL: fill_disk_and_kill,
    DAMAGE: damage,
    TORN: tear,
    JOB_KILL: kill,
    RANK_KILL: kill_rank,
}


def disturb(
    bench: Bench, name: str, kinds: list[str], rng: random.Random, tally: Tally
) -> list[str]:
    """One run, to which these faults happen one after another, until it has ended.

    Returns:
        Those that could not happen, since the run was at its end.
    """
    missed = []
    with ExitStack() as cleanup:
        run = Run(bench, bench.folder / name, 2 if set(kinds) & set(ON_TWO_RANKS) else 1)
        bench.reference(run.ranks)
        run.folder.mkdir()
        if set(kinds) & {DISK_BACK, DISK_KILL} and _mount(run.folder):
            cleanup.callback(_unmount, run.folder)
        kind = kinds[0]
        try:
            for kind in kinds:
                try:
                    FAULTS[kind](run, rng, tally)
                    tally.faults[kind] += 1
                except Missed:
                    missed.append(kind)
            if run.ranks == 1 or not run.is_ended:  # one that has ended can be started again
                run.start().end(0)
                run.check_end()
        except (Lost, Differs) as error:
            tally.faults[kind] += 1
            counter = tally.lost if isinstance(error, Lost) else tally.wrong
            counter[kind] += 1
            tail = "\n".join(run.text().splitlines()[-15:])
            if run.process is not None:
                run.process.kill()
            kept = bench.folder / f"{name}-kept"
            if run.run_dir.is_dir():
                shutil.copytree(run.run_dir, kept)
            print(f"{name} ({', '.join(kinds)}): {kind}: {error}; kept in {kept}\n{tail}")
        except BaseException:
            if run.process is not None:
                run.process.kill()
            raise
    shutil.rmtree(run.folder, ignore_errors=True)
    return missed


def campaign(bench: Bench, rounds: int, kinds: list[str], rng: random.Random) -> Tally:
    """So many faults: of every kind about as often, of those on two ranks half as often."""
    pool = [*kinds, *(kind for kind in kinds if kind in SINGLE)]
    tally, waiting, runs = Tally(), list[str](), 0
    start = time.monotonic()
    while (happened := tally.faults.total()) < rounds:
        left = rounds - happened - len(waiting)
        while left > 0:
            waiting += rng.sample(pool, min(left, len(pool)))
            left = rounds - happened - len(waiting)
        group = SINGLE if waiting[0] in SINGLE else ON_TWO_RANKS
        count = rng.randint(1, 4 if group is SINGLE else 2)
        faults = [kind for kind in waiting if kind in group][:count]
        for kind in faults:
            waiting.remove(kind)
        faults.sort(key=lambda kind: kind in BETWEEN and rng.random() < 0.5)
        if faults[0] in BETWEEN:  # needs something to happen to
            faults.insert(0, KILL)
        runs += 1
        waiting += disturb(bench, f"run-{runs}", faults, rng, tally)
        print(f"{tally.faults.total()} faults, {time.monotonic() - start:.0f} s", file=sys.stderr)
    return tally


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _is_running(pid: int) -> bool:
    stat = _read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(b")")[2].split()[0] != b"Z"


def _damage_of(checkpoint: Path) -> str | None:
    try:
        verify(checkpoint)
    except UserError as error:
        return str(error)
    return None


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SLOWEST
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="how many faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    arguments = parser.parse_args()
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="hrm-faults-"))
    rng = random.Random(arguments.seed)
    tally = campaign(Bench.create(folder), arguments.rounds, arguments.kinds, rng)
    kinds = [kind for kind in FAULTS if tally.faults[kind]]
    print(tally.table(kinds))
    print(f"\n{tally.in_saves} kills left an unfinished checkpoint; {tally.set_aside} checkpoints")
    print(f"were damaged; {time.monotonic() - start:.0f} s in all")
    if tally.failed:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
