"""What may happen to the processes of a run: kills, signals, a wrong clock; for `faults.py`."""

import json
import random
import signal
import time
from collections.abc import Callable

from disturbed_run import (
    Lost,
    Run,
    Surroundings,
    damage_of,
    is_running,
    kill_all,
    read,
    stat_of,
)
from jumping_clock import seen_file

from hrm.checkpoint import saved_steps, step_dir

UNFINISHED = "kills that left an unfinished checkpoint"
JUMPS = "jumps of the clock"
ORPHAN_SECONDS = 60  # in which ranks must end that torchrun has left alone
LONGEST_JUMP = 12 * 3600


def kill(run: Run, rng: random.Random) -> None:
    run.begin(rng).kill()
    run.notes[UNFINISHED] += run.is_saving()


def kill_early(run: Run, rng: random.Random) -> None:
    """While Python starts, or the checkpoint is read."""
    run.begin(rng, early=True).kill()


def kill_in_save(run: Run, rng: random.Random) -> None:
    process = run.begin(rng)
    run.wait_for_save()
    time.sleep(rng.choice((0, rng.uniform(0, 0.1))))
    process.kill()
    run.notes[UNFINISHED] += run.is_saving()


def stop(number: int) -> Callable[[Run, random.Random], None]:
    """Send a signal."""

    def send(run: Run, rng: random.Random) -> None:
        process = run.begin(rng)
        _stop(run, number, lambda: process.popens[0].send_signal(number))

    return send


def close_terminal(run: Run, rng: random.Random) -> None:
    """The kernel sends SIGHUP to the process whose terminal it is, and all output is an error."""
    within = Surroundings(settings=("progress=true",), has_terminal=True)
    process = run.begin(rng, within)
    session, terminal = stat_of(process.popens[0].pid)[3:5]
    if int(session) != process.popens[0].pid or terminal == b"0":
        raise Lost("the process has no terminal of its own")
    _stop(run, signal.SIGHUP, process.close_terminal)


def _stop(run: Run, number: int, send: Callable[[], None]) -> None:
    """Send a signal, after which the process ends with a checkpoint."""
    assert run.process is not None
    is_at_end = run.is_at_end()
    send()
    if run.process.end(*([0] if is_at_end else []), 128 + number) == 0:
        run.miss()
    newest = step_dir(run.run_dir, saved_steps(run.run_dir)[-1])
    if damage_of(newest) or int(newest.name[5:]) < run.step():
        raise Lost("the checkpoint at the stop is missing or damaged")


def set_clock(run: Run, rng: random.Random) -> None:
    """The time of day jumps by hours, both ways; no checkpoint is due for it."""
    file = run.bench.folder / f"{run.folder.name}-{run.processes + 1}.clock"
    settings = ("progress=true", "checkpoint_interval=10min")
    process = run.begin(rng, Surroundings(settings=settings, clock=file))
    begin = run.step()
    jumps = [rng.uniform(3600, LONGEST_JUMP), -rng.uniform(3600, LONGEST_JUMP)]
    rng.shuffle(jumps)
    for seconds in jumps:
        file.write_text(str(seconds))
        step = run.step()
        run.wait(lambda step=step: run.step() > step + 2)  # type: ignore[misc]
        run.notes[JUMPS] += 1
    if seen_file(file).read_text().split() != [str(seconds) for seconds in jumps]:
        raise Lost("the clock did not jump")
    _stop(run, signal.SIGTERM, lambda: process.popens[0].send_signal(signal.SIGTERM))

    reference = run.bench.reference(run.ranks)["metrics.jsonl"]
    lines = [json.loads(line) for line in reference.splitlines()]
    due = {line["step"] for line in lines if "eval/count" in line}
    due.add(saved_steps(run.run_dir)[-1])
    saves = [json.loads(line) for line in read(run.run_dir / "timings.jsonl").splitlines()]
    if early := {line["step"] for line in saves if line["step"] > begin} - due:
        raise Lost(f"checkpoints of steps {sorted(early)} were not due")


def kill_rank(run: Run, rng: random.Random) -> None:
    """torchrun starts all ranks again."""
    process = run.begin(rng)
    if not (ranks := process.ranks()):
        run.miss()
    kill_all([rng.choice(ranks)])
    process.end(0)
    run.check_end()


def kill_torchrun(agents: int) -> Callable[[Run, random.Random], None]:
    """Of so many the one that keeps the rendezvous; the others and all ranks end by themselves.

    They save before, and the next start may come before they have.
    """

    def kill_agent(run: Run, rng: random.Random) -> None:
        process = run.begin(rng, Surroundings(agents=agents))
        left = process.family()
        if len(process.ranks()) < run.ranks:
            run.miss()
        left.remove(process.popens[0].pid)
        is_at_end = run.is_at_end()
        process.popens[0].kill()
        process.popens[0].wait()
        deadline = time.monotonic() + ORPHAN_SECONDS
        again = run.start() if rng.random() < 0.5 else None
        while alive := [pid for pid in left if is_running(pid)]:
            if time.monotonic() > deadline:
                kill_all(alive)
                raise Lost(f"{len(alive)} processes outlive torchrun for {ORPHAN_SECONDS} s")
            for popen in process.popens[1:]:
                popen.poll()
            time.sleep(0.05)
        if not is_at_end and "stopped: step" not in process.text():
            raise Lost("the ranks did not stop with a checkpoint")
        if again is not None:
            again.end(0)
            run.check_end()

    return kill_agent
