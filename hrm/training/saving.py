"""When checkpoints are written, and which are kept; the writing itself goes on beside training."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor

import hrm
from hrm.checkpoint import save_artefacts, save_checkpoint, save_predictions
from hrm.checkpoint.layout import RECORD_FILE, delete_checkpoint, saved_steps, step_dir
from hrm.checkpoint.training import Share, Snapshot, write_share
from hrm.data.format import DatasetMetadata
from hrm.errors import UserError
from hrm.files import sync
from hrm.ranks import Ranks
from hrm.training.config import PretrainConfig
from hrm.training.loggers import Loggers
from hrm.training.snapshot import Staging, expected_bytes, take
from hrm.training.state import TrainState

GIT_SECONDS = 10


class Checkpoints:
    """Takes snapshots of a run and lets a thread write them.

    Training waits for the copy of the state, and for the write of the checkpoint before, should
    that still go on. One that cannot be written is reported, and training goes on.
    """

    def __init__(
        self,
        config: PretrainConfig,
        metadata: DatasetMetadata,
        ranks: Ranks,
        loggers: Loggers,
        say: Callable[[str], None],
        record: dict[str, Any],
    ):
        """
        Args:
            loggers: every line of their `metrics` is on disk before a checkpoint is.
            say: prints a line above the progress bar.
            record: values that every checkpoint records.
        """
        self._config, self._metadata, self._ranks = config, metadata, ranks
        self._metrics, self._timings, self._say = loggers.metrics, loggers.timings, say
        self._record = record
        self._staging = Staging()
        self._thread: Thread | None = None
        self._error: UserError | None = None
        self._written: int | None = None  # newest step on disk
        self._time = time.monotonic()

    def reserve(self, state: TrainState) -> None:
        """Get memory for snapshots, beside the first steps."""
        size = expected_bytes(state, self._ranks, self._config.global_batch_size)
        self._staging.reserve(size, pinned=state.stability.in_a_row.is_cuda)

    def begin_after(self, step: int) -> None:
        """The checkpoint of this step is on disk already."""
        self._written, self._error, self._time = step, None, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether the interval in steps is over; every rank says the same."""
        every = self._config.checkpoint_steps
        return every is not None and step % every == 0

    def is_overdue(self) -> bool:
        """Whether the interval in minutes is over on this rank."""
        every = self._config.checkpoint_seconds
        return every is not None and time.monotonic() - self._time >= every

    def save(self, state: TrainState, wait: bool = False, keep: bool = False) -> None:
        """Write a checkpoint of this step, unless there is one. All ranks call it.

        Args:
            wait: until it is written.
            keep: never delete it.

        Raises:
            UserError: with `wait`, it or the metrics could not be written.
        """
        self._time = time.monotonic()
        self.finish()
        if self._ranks.agree(lambda: self._written != state.step):
            snapshot = take(state, self._ranks, self._staging, self._record | {"keep": keep})
            if self._ranks.is_first:
                stall = time.monotonic() - self._time
                write = partial(self._write, snapshot, stall, wait)
            else:
                write = partial(self._write_share, snapshot, state.step)
            self._thread = Thread(target=write, daemon=True)
            self._thread.start()
        if wait:
            self._ranks.agree(lambda: self._settle(state.step))

    def add(self, step: int, outputs: Mapping[str, Tensor], artefacts: Mapping[str, str]) -> None:
        """Put what an evaluation has left into the checkpoint of its step, which was begun before.

        Called on rank 0, which has it; what cannot be written is reported, and training goes on.
        """
        if not outputs and not artefacts:
            return
        self.finish()
        checkpoint = step_dir(self._config.run_dir, step)
        if not checkpoint.is_dir():
            return
        try:
            if outputs:
                save_predictions(checkpoint, outputs)
            save_artefacts(checkpoint, artefacts)
        except UserError as error:
            self._say(f"warning: {error}; training goes on")

    def finish(self) -> None:
        """Wait for what goes on beside training, if anything."""
        self._staging.wait()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def finish_unless_interrupted(self, error_class: type[BaseException] | None, *_: Any) -> None:
        """For an exit stack: a second Ctrl-C ends at once."""
        if error_class is None or not issubclass(error_class, KeyboardInterrupt):
            self.finish()

    def _settle(self, step: int) -> None:
        """Everything is on disk, with the metrics that were logged since; else raise."""
        self.finish()
        if self._error is not None:
            raise self._error
        self._sync_metrics(step)

    def _write(self, snapshot: Snapshot, stall: float, is_awaited: bool) -> None:
        step, run_dir = snapshot.record.values["step"], self._config.run_dir
        start = time.monotonic()
        self._error = None
        try:
            shares = self._shares()
            self._sync_metrics(step)
            save_checkpoint(
                run_dir,
                step,
                self._config,
                self._metadata,
                snapshot.weights,
                snapshot.ema,
                snapshot.record,
                shares,
            )
            self._written = step
            if snapshot.record.values["is_sound"]:
                self._delete_old(snapshot.record.values["best_step"])
        except Exception as error:  # whatever it is, it is reported, and training goes on
            final = step_dir(run_dir, step)
            reason = error if isinstance(error, UserError) else f"{final}: not written ({error!r})"
            self._error = UserError(str(reason))
            if not is_awaited:
                self._say(f"warning: {reason}; training goes on")
        else:
            seconds = {"checkpoint_stall": stall, "checkpoint_write": time.monotonic() - start}
            if self._timings is not None:
                self._timings.log(seconds, step)

    def _write_share(self, snapshot: Snapshot, step: int) -> None:
        """What a rank other than the first does: write its file, and let rank 0 know."""
        rank, run_dir = self._ranks.rank, self._config.run_dir
        try:
            share = write_share(run_dir, step, rank, snapshot.record.tensors)
            answer = {"path": str(share.path), "entry": share.entry}
        except Exception as error:  # whatever it is, rank 0 reports it, and training goes on
            answer = {"error": str(error) if isinstance(error, UserError) else repr(error)}
        with suppress(RuntimeError):  # a rank is gone; the next message between them will say so
            self._ranks.gather_beside(answer)

    def _shares(self) -> list[Share]:
        """Of the other ranks, for rank 0.

        Raises:
            UserError: one could not be written; it names the rank.
            RuntimeError: a rank is gone.
        """
        answers = self._ranks.gather_beside(dict[str, Any]())[1:]
        for rank, answer in enumerate(answers, 1):
            if "error" in answer:
                raise UserError(f"rank {rank}: {answer['error']}")
        return [Share(Path(answer["path"]), answer["entry"]) for answer in answers]

    def _sync_metrics(self, step: int) -> None:
        if self._metrics is not None:
            try:
                self._metrics.write_pending()
                sync(self._metrics.path)
            except OSError as error:
                final = step_dir(self._config.run_dir, step)
                raise UserError(
                    f"{final}: checkpoint could not be written ({self._metrics.path}: "
                    f"{error.strerror})"
                ) from None

    def _delete_old(self, best_step: int | None) -> None:
        """Keep the newest, the best, and those that were asked for.

        Never called after an unsound step, after which an earlier checkpoint may be needed.
        """
        run_dir, keep = self._config.run_dir, self._config.keep_checkpoints
        if keep is None:
            return
        for step in saved_steps(run_dir)[:-keep]:
            if step != best_step and not _is_kept(step_dir(run_dir, step)):
                try:
                    delete_checkpoint(run_dir, step)
                except OSError as error:
                    self._say(f"warning: {step_dir(run_dir, step)}: not deleted ({error.strerror})")


def _is_kept(checkpoint: Path) -> bool:
    try:
        return bool(json.loads((checkpoint / RECORD_FILE).read_bytes())["keep"])
    except (OSError, ValueError, LookupError, TypeError):
        return True  # what cannot be read is not deleted


@cache
def code_version() -> dict[str, str | None]:
    """Versions of this package, its commit where it is a checkout of its own, torch and Python."""
    return {
        "hrm": hrm.__version__,
        "commit": commit_of(Path(hrm.__file__).parent),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def commit_of(package: Path) -> str | None:
    """The commit of the repository whose root holds `package`; None where git knows of none.

    A package that is installed, or copied, into a folder of some other repository has none.
    """
    asked = ("--show-prefix", "HEAD", "HEAD:./__init__.py")
    try:
        found = subprocess.run(
            ["git", "-C", str(package), "rev-parse", *asked],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            env={name: text for name, text in os.environ.items() if not name.startswith("GIT_")},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    lines = found.stdout.splitlines()
    is_own = found.returncode == 0 and len(lines) == 3 and lines[0] == f"{package.name}/"
    return lines[1] if is_own else None
