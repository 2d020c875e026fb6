"""Metrics: sums on the device, one reduction, one division; and the places that they go to."""

import errno
import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from netrc import NetrcParseError, netrc
from pathlib import Path
from threading import Lock
from typing import Any, Protocol
from urllib.parse import urlsplit

from torch import Tensor
from tqdm import tqdm

from hrm.training.distributed import Ranks

TIMINGS_FILE = "timings.jsonl"


class MetricSums:
    """Sums of named metrics over steps or batches, kept on the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def totals(self) -> dict[str, Tensor]:
        """The sums so far, on the device."""
        return dict(self._sums)

    def load(self, sums: Mapping[str, Tensor]) -> None:
        """Take up sums that `totals` gave."""
        self._sums = dict(sums)

    def reduce(self, ranks: Ranks) -> dict[str, float]:
        """Sum over ranks and divide: losses by `examples`, the rest by `count`, and reset.

        Without `examples` (in evaluation) losses are divided by `count` too.

        Returns:
            Name -> value; what would be divided by 0 is left out.
        """
        sums, self._sums = ranks.sum(self._sums), {}
        count = sums.pop("count", 0.0)
        examples = sums.pop("examples", count)
        result = {"count": count}
        if skipped := sums.pop("skipped_steps", 0.0):
            result["skipped_steps"] = skipped
        for name, total in sums.items():
            per = examples if name.endswith("_loss") else count
            if per:
                result[name] = total / per
        return result


class Logger(Protocol):
    """Where metrics go."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class JsonLinesLogger:
    """One JSON object per line: {"step": n, name: value, …}; written line by line.

    Lines that cannot be written (a full disk) are told once, do not stop training, and are
    written when there is room again; none is ever written in part.
    """

    def __init__(self, path: Path):
        self.path = path
        self._told = False
        self._lock = Lock()  # a checkpoint's thread writes what is pending, too
        self.reopen()

    def reopen(self) -> None:
        """Go on at the end of the file, which something else may have cut."""
        self.path.touch()
        self._size = self.path.stat().st_size
        self._pending = ""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        with self._lock:
            self._pending += json.dumps({"step": step, **metrics}) + "\n"
        try:
            self.write_pending()
        except OSError as error:
            if not self._told:
                print(f"{self.path}: {error.strerror}; training goes on", file=sys.stderr)
            self._told = True

    def write_pending(self) -> None:
        """Write the lines that could not be written before.

        Raises:
            OSError: there is no room for them.
        """
        with self._lock:
            if self._pending:
                self._append(self._pending.encode())
            self._pending = ""

    def _append(self, data: bytes) -> None:
        """Write all of it or nothing."""
        with self.path.open("r+b", buffering=0) as file:
            file.seek(self._size)
            try:
                written = file.write(data)
            except OSError:
                written = 0
            if written < len(data):
                file.truncate(self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += written

    def close(self) -> None:
        """Every line is in the file already."""


class WandbLogger:
    """Weights & Biases; offline without a login. Its failures are told once and never raised."""

    def __init__(
        self,
        project: str,
        run_name: str,
        config: dict[str, Any],
        run_dir: Path,
        source_dir: Path,
        run_id: str | None = None,
    ):
        self._run: Any = None
        try:
            wandb: Any = import_module("wandb")
            mode = os.environ.get("WANDB_MODE") or ("online" if _has_wandb_login() else "offline")
            settings = wandb.Settings(silent=True, init_timeout=30)
            self._run = wandb.init(
                project=project,
                name=run_name,
                config=config,
                dir=str(run_dir),
                mode=mode,
                settings=settings,
                **({} if run_id is None else {"id": run_id, "resume": "allow"}),
            )
            self._run.log_code(str(source_dir))
        except Exception as error:
            self._give_up(error)

    @property
    def run_id(self) -> str | None:
        """By which W&B knows the run; None when it has stopped."""
        return None if self._run is None else self._run.id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if self._run is not None:
            try:
                self._run.log(dict(metrics), step=step)
            except Exception as error:
                self._give_up(error)

    def close(self) -> None:
        if self._run is not None:
            try:
                self._run.finish()
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        print(f"wandb stopped ({error}); training goes on without it", file=sys.stderr)


def _has_wandb_login() -> bool:
    """An API key in the environment, or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host in netrc().hosts
    except (OSError, NetrcParseError):
        return False


class Progress:
    """Live progress bar of rank 0: step, loss, exact accuracy, ACT steps, examples/s, time left."""

    def __init__(
        self, first_step: int, total_steps: int, batch_size: int, enabled: bool, is_first_rank: bool
    ):
        self._speaks = is_first_rank
        self._batch_size = batch_size
        self._shown: dict[str, str] = {}
        self._bar = tqdm(
            initial=first_step,
            total=total_steps,
            disable=not (enabled and is_first_rank),
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 10,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar:20}| step {n_fmt}/{total_fmt}{postfix}, "
            "{elapsed}<{remaining}",
        )

    def update(self, metrics: Mapping[str, float]) -> None:
        """One more step; `metrics` are the newest known, {} between log intervals."""
        for label, name, style in (
            ("loss", "lm_loss", ".3f"),
            ("exact", "exact_accuracy", ".1%"),
            ("ACT steps", "steps", ".1f"),
        ):
            if name in metrics:
                self._shown[label] = f"{label} {metrics[name]:{style}}"
        rate = self._bar.format_dict["rate"] if not self._bar.disable else None
        if rate:
            self._shown["rate"] = f"{rate * self._batch_size:.0f} examples/s"
        if self._shown:
            self._bar.set_postfix_str(", ".join(self._shown.values()), refresh=False)
        self._bar.update()

    def go_back(self, step: int) -> None:
        """Show an earlier step."""
        self._bar.n = step
        self._bar.refresh()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._speaks:
            self._bar.write(line)

    def close(self) -> None:
        self._bar.close()


def prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}
