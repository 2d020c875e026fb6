"""Disturb training runs again and again; every one must end as an undisturbed one does.

    python benchmarks/faults.py --rounds 100 --seed 0

A small model learns 4x4 Sudoku on the CPU. Processes are killed, stopped, starved of disk space,
their terminals closed, their clocks set, and files of checkpoints are damaged; each time the same
command with resume=auto goes on. At the end weights, running average, training state and
metrics.jsonl must be the undisturbed run's, byte for byte. Some faults need the right to mount a
tmpfs; without it `ulimit -f` stands in for full disks, and the others are left out. Exit code 1 if
a run was lost or went on wrongly; its folder is kept then.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from disturb_files import (
    can_mount,
    damage,
    fill_disk,
    fill_disk_and_kill,
    fill_disk_in_line,
    make_read_only,
    mount,
    tear,
    unmount,
)
from disturb_processes import (
    close_terminal,
    kill,
    kill_early,
    kill_in_save,
    kill_rank,
    kill_torchrun,
    set_clock,
    stop,
)
from disturbed_run import Bench, Differs, Lost, Missed, Run

KILL = "kill -9"
DISK_BACK, DISK_KILL = "disk full for a while", "disk full, then kill -9"
DISK_IN_LINE, READ_ONLY = "disk full within a line of metrics", "read-only for a while"
DAMAGE, TORN = "damaged checkpoint", "torn line of metrics"

SINGLE: dict[str, Callable[[Run, random.Random], None]] = {
    KILL: kill,
    "kill -9 in a save": kill_in_save,
    "kill -9 at the start": kill_early,
    "SIGTERM": stop(signal.SIGTERM),
    "SIGINT": stop(signal.SIGINT),
    "SIGHUP": stop(signal.SIGHUP),
    "closed terminal": close_terminal,
    "clock set back and forth": set_clock,
    DISK_BACK: fill_disk,
    DISK_KILL: fill_disk_and_kill,
    DISK_IN_LINE: fill_disk_in_line,
    READ_ONLY: make_read_only,
    DAMAGE: damage,
    TORN: tear,
}
ON_TWO_RANKS: dict[str, Callable[[Run, random.Random], None]] = {
    "2 ranks: kill -9 of all": kill,
    "2 ranks: kill -9 of one, torchrun restarts": kill_rank,
    "2 ranks: kill -9 of torchrun": kill_torchrun(agents=1),
    "2 ranks, 2 torchruns: kill -9 of the first": kill_torchrun(agents=2),
}
FAULTS = SINGLE | ON_TWO_RANKS
ON_SMALL_DISKS = {DISK_BACK, DISK_KILL, DISK_IN_LINE, READ_ONLY}
NEED_MOUNT = {DISK_IN_LINE, READ_ONLY}
AT_LAST = {DISK_BACK, DISK_IN_LINE, READ_ONLY}  # after which the run goes on to its end
BETWEEN = {DAMAGE, TORN}  # happen to the files while no process runs


@dataclass
class Tally:
    """What happened, by kind of fault."""

    faults: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)  # as of `Run`

    @property
    def failed(self) -> bool:
        return bool(self.lost or self.wrong)

    def table(self, kinds: list[str]) -> str:
        counters = (self.faults, self.lost, self.wrong)
        rows = [[kind, *(str(counter[kind]) for counter in counters)] for kind in kinds]
        rows.append(["all", *(str(counter.total()) for counter in counters)])
        lines = ["| fault | times | runs lost | wrong continuations |", "| --- | --- | --- | --- |"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


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
        if set(kinds) & ON_SMALL_DISKS and mount(run.folder):
            cleanup.callback(unmount, run.folder)
        kind = kinds[0]
        try:
            for kind in kinds:
                if run.is_ended and kind not in BETWEEN and not run.damaged:
                    missed.append(kind)
                    continue
                try:
                    FAULTS[kind](run, rng)
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
    tally.notes += run.notes
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
        faults.sort(key=lambda kind: kind in AT_LAST or (kind in BETWEEN and rng.random() < 0.5))
        if faults[0] in BETWEEN:  # needs something to happen to
            faults.insert(0, KILL)
        runs += 1
        waiting += disturb(bench, f"run-{runs}", faults, rng, tally)
        print(f"{tally.faults.total()} faults, {time.monotonic() - start:.0f} s", file=sys.stderr)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="how many faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    arguments = parser.parse_args()
    start = time.monotonic()
    kinds = [kind for kind in arguments.kinds if kind not in NEED_MOUNT or can_mount()]
    if left_out := sorted(set(arguments.kinds) - set(kinds)):
        print(f"left out, since nothing can be mounted: {', '.join(left_out)}", file=sys.stderr)
    if not kinds:
        sys.exit(1)
    folder = Path(tempfile.mkdtemp(prefix="hrm-faults-"))
    rng = random.Random(arguments.seed)
    tally = campaign(Bench.create(folder), arguments.rounds, kinds, rng)
    kinds = [kind for kind in FAULTS if tally.faults[kind]]
    print(tally.table(kinds))
    notes = [f"{count} {what}" for what, count in sorted(tally.notes.items())]
    print("\n" + "; ".join([*notes, f"{time.monotonic() - start:.0f} s in all"]))
    if tally.failed:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
