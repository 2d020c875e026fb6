"""Where metrics go: `metrics.jsonl`, and W&B or TensorBoard where they are asked for."""

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from netrc import NetrcParseError, netrc
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from hrm.checkpoint.layout import SOURCE_DIR
from hrm.progress import say
from hrm.records import METRICS_FILE
from hrm.training.config import PretrainConfig

TIMINGS_FILE = "timings.jsonl"
TENSORBOARD_DIR = "tensorboard"


class JsonLinesLogger:
    """One JSON object per line: {"step": n, name: value, …}; written line by line.

    Lines that cannot be written (a full disk) are reported once, do not stop training, and
    are written when there is room again; none is ever written in part.
    """

    def __init__(self, path: Path):
        self.path = path
        self._reported = False
        self._lock = Lock()  # a checkpoint's thread writes what is pending, too
        self.reopen()

    def reopen(self) -> None:
        """Go on at the end of the file, which something else may have cut."""
        with suppress(OSError):  # else it is made with its first line
            self.path.touch()
        self._size = self.path.stat().st_size if self.path.exists() else 0
        self._pending = ""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        with self._lock:
            self._pending += json.dumps({"step": step, **metrics}) + "\n"
        try:
            self.write_pending()
        except OSError as error:
            if not self._reported:
                say(f"{self.path}: {error.strerror}; training goes on", sys.stderr)
            self._reported = True

    def write_pending(self) -> None:
        """Write the lines that could not be written before; the file is there afterwards.

        Raises:
            OSError: there is no room for them.
        """
        with self._lock:
            if self._pending or not self._size:
                self._append(self._pending.encode())
            self._pending = ""

    def _append(self, data: bytes) -> None:
        """Write all of it or nothing."""
        create = 0 if self._size else os.O_CREAT
        descriptor = os.open(self.path, os.O_RDWR | create, 0o666)
        with open(descriptor, "r+b", buffering=0) as file:
            file.seek(self._size)
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            try:
                written = file.write(data)
            except OSError as reason:
                error, written = reason, 0
            if written < len(data):
                file.truncate(self._size)
                raise error
            self._size += written


class _Guest:
    """A logger that is not ours: what fails in it is reported once, and never raised."""

    name: str

    def __init__(self) -> None:
        self._run: Any = None  # None: it has stopped

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:
            self._run = None
            say(f"{self.name} stopped ({error}); training goes on without it", sys.stderr)


class TensorBoardLogger(_Guest):
    """Curves for `tensorboard --logdir`.

    Args:
        folder: of the event files; those of a run that is resumed stay.
        begun_after: steps that were taken before; what was logged for later ones is forgotten.
    """

    name = "tensorboard"

    def __init__(self, folder: Path, begun_after: int = 0):
        super().__init__()
        self._folder = folder
        self._run = self._try(lambda: self._begin(begun_after))

    def _begin(self, begun_after: int) -> Any:
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        return writer(str(self._folder), purge_step=begun_after + 1 if begun_after else None)

    def go_back(self, step: int) -> None:
        """Forget what was logged for later steps than this one."""
        if self._run is not None:
            self._try(self._run.close)
            self._run = self._run and self._try(lambda: self._begin(step))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            if self._run is not None:
                self._try(partial(self._run.add_scalar, name, value, step))

    def close(self) -> None:
        if self._run is not None:
            self._try(self._run.close)


class WandbLogger(_Guest):
    """Weights & Biases; offline without a login."""

    name = "wandb"

    def __init__(
        self,
        project: str,
        run_name: str,
        config: dict[str, Any],
        run_dir: Path,
        source_dir: Path,
        run_id: str | None = None,
    ):
        super().__init__()

        def begin() -> Any:
            wandb: Any = import_module("wandb")
            mode = os.environ.get("WANDB_MODE") or ("online" if _has_wandb_login() else "offline")
            settings = wandb.Settings(silent=True, init_timeout=30)
            run = wandb.init(
                project=project,
                name=run_name,
                config=config,
                dir=str(run_dir),
                mode=mode,
                settings=settings,
                **({} if run_id is None else {"id": run_id, "resume": "allow"}),
            )
            run.log_code(str(source_dir))
            return run

        self._run = self._try(begin)

    @property
    def run_id(self) -> str | None:
        """By which W&B knows the run; None when it has stopped."""
        return None if self._run is None else self._run.id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if self._run is not None:
            self._try(partial(self._run.log, dict(metrics), step=step))

    def close(self) -> None:
        if self._run is not None:
            self._try(self._run.finish)


@dataclass
class Loggers:
    """Those of a run, on rank 0; elsewhere there are none."""

    metrics: JsonLinesLogger | None = None
    timings: JsonLinesLogger | None = None
    guest: WandbLogger | TensorBoardLogger | None = None

    @staticmethod
    def open(config: PretrainConfig, step: int, wandb_run_id: str | None) -> "Loggers":
        """
        Args:
            step: at which the run begins, or is resumed.
            wandb_run_id: under which it goes on there, if it has one.
        """
        run_dir = config.run_dir
        metrics, timings = (JsonLinesLogger(run_dir / n) for n in (METRICS_FILE, TIMINGS_FILE))
        guest: WandbLogger | TensorBoardLogger | None = None
        if config.logger == "wandb":
            guest = _open_wandb(config, wandb_run_id)
        elif config.logger == "tensorboard":
            guest = TensorBoardLogger(run_dir / TENSORBOARD_DIR, step)
        return Loggers(metrics, timings, guest)

    @property
    def wandb_run_id(self) -> str | None:
        return self.guest.run_id if isinstance(self.guest, WandbLogger) else None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for logger in (self.metrics, self.guest):
            if logger is not None:
                logger.log(metrics, step)

    def go_back(self, step: int) -> None:
        """The run returns to an earlier step, to which `metrics.jsonl` was cut.

        W&B cannot forget: it keeps what was logged for later steps, and takes nothing for them
        again.
        """
        if self.metrics is not None:
            self.metrics.reopen()
        if isinstance(self.guest, TensorBoardLogger):
            self.guest.go_back(step)

    def close(self) -> None:
        if self.guest is not None:
            self.guest.close()


def _open_wandb(config: PretrainConfig, run_id: str | None) -> WandbLogger:
    values, run_dir = config.model_dump(mode="json"), config.run_dir
    source, run_name = run_dir / SOURCE_DIR, config.run_name or ""
    return WandbLogger(config.project, run_name, values, run_dir, source, run_id)


def _has_wandb_login() -> bool:
    """An API key in the environment, or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host in netrc().hosts
    except (OSError, NetrcParseError):
        return False


def prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}
