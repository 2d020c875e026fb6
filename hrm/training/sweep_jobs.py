"""The processes of a sweep: some of its runs at a time, each by a process of its own.

A run that fails or is killed ends none of the others. However the sweep itself ends, its runs do:
each reads a pipe from it, whose end asks the run to save and end.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from hrm.checkpoint import save_config
from hrm.checkpoint.layout import CONFIG_FILE
from hrm.errors import UserError, one_line
from hrm.progress import Progress, say
from hrm.records import METRICS_FILE, parse_record
from hrm.training.interrupt import StopRequest
from hrm.training.sweep import LOG_FILE, Outcome, SweptRun

POLL_SECONDS = 0.2
TAIL = 1 << 14  # bytes of a file's end
PROGRAM = """
import sys
sys.path[:] = sys.argv.pop(1).split("\\n")
from hrm.signals import end_with_stdin
end_with_stdin()
from hrm.cli.launch import main
main()
"""

Environment = Mapping[str, str]
CommandOf = Callable[[SweptRun], Sequence[str]]


class RunProcess:
    """`hrm train` of one run, in a process group of its own: Ctrl-C reaches the sweep alone.

    Args:
        words: those after `hrm`.
        environment: what is different from this process' own.

    Raises:
        UserError: the run's folder cannot be written, or no process be started.
    """

    def __init__(self, run: SweptRun, words: Sequence[str], environment: Environment):
        self.run, self.environment = run, environment
        last = run.outcome or Outcome(code=0)
        self._before = None if last.code is None else last.seconds
        self._log = _open_log(run)
        run.note(Outcome(None, self._before))
        self._began = time.monotonic()
        with self._log as log:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", PROGRAM, "\n".join(sys.path), *words],
                    env={**os.environ, **environment},
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                )
            except OSError as error:
                reason = one_line(error)
                raise UserError(f"{run.name}: no process can be started ({reason})") from None

    @property
    def step(self) -> int:
        """The newest one that it has logged."""
        records = map(parse_record, reversed(_tail(self.run.folder / METRICS_FILE)))
        return next((int(record["step"]) for record in records if record), 0)

    def has_ended(self) -> bool:
        """Whether it has; then its outcome is written down."""
        code = self._process.poll()
        if code is None:
            return False
        self._close(code)
        return True

    def ask_to_end(self) -> None:
        """Let it save and end."""
        self._process.terminate()

    def wait(self) -> None:
        """Until it has ended; then its outcome is written down."""
        self._close(self._process.wait())

    def end_at_once(self) -> None:
        """End it, without a checkpoint."""
        self._process.kill()
        self.wait()

    def _close(self, code: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        before, own = self._before, time.monotonic() - self._began
        try:
            self.run.note(Outcome(code, None if before is None else round(before + own, 1)))
        except UserError as error:
            say(f"warning: {error}; what became of this run is not kept", sys.stderr)


def run_all(
    runs: Sequence[SweptRun],
    words_of: CommandOf,
    environments: Sequence[Environment],
    ended: Callable[[SweptRun], None],
) -> int:
    """Run what is not finished, as many at once as there are environments.

    Args:
        words_of: a run's command line, the words after `hrm`.
        ended: is told of each that has ended, unless it was asked to.

    Returns:
        The signal that asked to end, 0 where none did. All processes have ended, with their state
        saved unless a second Ctrl-C (`Interrupted`) asked for less.

    Raises:
        UserError: a run's folder cannot be written; likewise.
    """
    waiting, free = deque(run for run in runs if not run.is_finished), list(environments)
    running: list[RunProcess] = []
    done = {run.name: run.steps if run.is_finished else run.saved_step for run in runs}
    total = sum(run.steps for run in runs)
    is_told = False
    with (
        StopRequest().listening() as stop,
        Progress("step", total, min(total, sum(done.values())), lasting=True) as progress,
    ):
        try:
            while running or (waiting and not stop.signal):
                while waiting and free and not stop.signal:
                    run = waiting.popleft()
                    running.append(RunProcess(run, words_of(run), free.pop(0)))
                if stop.signal and not is_told:
                    is_told = True
                    say(f"stopping {len(running)} runs, which save first", sys.stderr)
                    for process in running:
                        process.ask_to_end()
                time.sleep(POLL_SECONDS)
                steps = 0
                for process in list(running):
                    run, has_ended = process.run, process.has_ended()
                    step = run.steps if has_ended else min(process.step, run.steps)
                    steps += max(0, step - done[run.name])
                    done[run.name] = max(done[run.name], step)
                    if has_ended:
                        running.remove(process)
                        free.append(process.environment)
                        if not is_told:
                            ended(run)
                over = len(runs) - len(waiting) - len(running)
                progress.update(steps, f"{over}/{len(runs)} runs over")
        except UserError:
            for process in running:
                process.ask_to_end()
            while running:
                running[-1].wait()
                running.pop()
            raise
        finally:
            for process in running:
                process.end_at_once()
    return stop.signal


def reason_of(run: SweptRun) -> str:
    """Why a run has not ended well, in a few words; the last line of its log says most of it."""
    outcome = run.outcome or Outcome()
    if outcome.code is not None and outcome.code < 0:
        name = signal.Signals(-outcome.code).name
        return f"killed by {name}" + (", perhaps for memory" if name == "SIGKILL" else "")
    lines = [line.strip() for line in _tail(run.folder / LOG_FILE)]
    last = next((line for line in reversed(lines) if line), b"").decode(errors="replace")
    return last.removeprefix("error: ") or f"exit code {outcome.code}"


def _open_log(run: SweptRun) -> BinaryIO:
    """The run's log, in a folder that `resume=auto` takes for a run's."""
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        if not (run.folder / CONFIG_FILE).is_file():
            save_config(run.config, run.folder / CONFIG_FILE)
        return (run.folder / LOG_FILE).open("ab")
    except OSError as error:
        raise UserError(f"{run.folder}: cannot be written ({one_line(error)})") from None


def _tail(path: Path) -> list[bytes]:
    """The last lines of a file; [] where it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read().splitlines()
    return []
