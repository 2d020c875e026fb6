"""What resuming needs besides the weights: `training.safetensors` and `training.json`.

    optimizer/<key>/<parameter>    moments and step counts
    carry/<field>, carry/current_data/<name>    [global batch, …]
    metrics/<rank>/<name>          sums since the last logged line
    random/<rank>/<generator>      states of random generators
    stability/<name>               unsound steps in a row, and the first of them

Nothing depends on how the global batch was shared out: carries are stored in the order of its rows,
so that another number of ranks, or other micro-batches, can resume from them.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from hrm.checkpoint.layout import (
    CONFIG_FILE,
    EMA_FILE,
    RECORD_FILE,
    STEP_NAME,
    TRAINING_FILE,
    WEIGHTS_FILE,
    saved_steps,
    step_dir,
)
from hrm.checkpoint.manifest import Damaged, listed_files, verify
from hrm.checkpoint.weights import read_weights
from hrm.errors import UserError, first_mistake
from hrm.records import BEYOND_ANY_METRIC

Count = Annotated[int, Field(ge=0, lt=2**53)]
LARGEST_JOB = 2**20  # ranks
BEST_PREFIX = "best_"


@dataclass(frozen=True)
class TrainingRecord:
    """What resuming needs besides the weights."""

    tensors: Mapping[str, Tensor]  # optimizer state, carries, random generators, metric sums
    values: Mapping[str, Any]  # step, position in the data, counters, versions; plain JSON


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at a step; tensors in host memory."""

    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    record: TrainingRecord


class Counters(BaseModel):
    """Fields of `TrainState` that are plain numbers."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    step: Count
    iteration: Count
    batch: Count
    since_log: Count
    best_step: Count | None
    evaluations_since_best: Count


class Values(Counters):
    """What a record must hold besides tensors."""

    ema_updates: Count
    is_sound: bool
    ranks: Annotated[int, Field(gt=0, le=LARGEST_JOB)]
    data: str
    wandb_run_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_best(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            best = best_value(values)
            is_number = isinstance(best, int | float) and not isinstance(best, bool)
            if best is not None and not (is_number and abs(best) < BEYOND_ANY_METRIC):
                raise ValueError("the best evaluation is not a number")
        return values


def best_key(metric: str) -> str:
    """Under which a record keeps the best evaluation by a metric."""
    return f"{BEST_PREFIX}{metric}"


def best_value(values: Mapping[str, Any]) -> Any:
    """The best evaluation that a record keeps, by whatever metric; None before the first."""
    keys = [key for key in values if str(key).startswith(BEST_PREFIX) and key != "best_step"]
    if len(keys) != 1:
        raise ValueError(f"one best evaluation is expected, not {len(keys)}")
    return values[keys[0]]


def check_values(values: object, source: Path) -> None:
    """Raise `UserError` unless a run can be resumed from a record with these values."""
    try:
        Values.model_validate(values)
    except ValidationError as error:
        key, reason = first_mistake(error)
        raise UserError(f"{source}: cannot be resumed ({key}: {reason})") from None


def read_record(checkpoint: Path) -> TrainingRecord:
    """The record of a checkpoint folder that was verified.

    Raises:
        UserError: the files are missing or damaged.
    """
    return TrainingRecord(read_weights(checkpoint / TRAINING_FILE), read_values(checkpoint))


def read_values(checkpoint: Path) -> dict[str, Any]:
    """The plain values of `read_record`.

    Raises:
        UserError: the file is missing or damaged, or `step_<n>` holds another step than its name
            says.
    """
    path = checkpoint / RECORD_FILE
    try:
        values = json.loads(path.read_bytes())
        step = values["step"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise Damaged(f"{path}: cannot be read ({type(error).__name__}: {error})") from None
    named = STEP_NAME.fullmatch(checkpoint.name)
    if named and step != int(named[1]):
        raise Damaged(f"{checkpoint}: holds another step than its name says")
    return values


def newest_whole(run_dir: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose files are as they were written.

    Damaged ones are named and set aside as `step_<n>.damaged`.
    """
    for step in reversed(saved_steps(run_dir)):
        checkpoint = step_dir(run_dir, step)
        try:
            check_whole(checkpoint)
            return checkpoint
        except Damaged as error:
            aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
            say(f"warning: {error}; set aside as {aside.name}, the one before it is used")
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.rename(aside)
    return None


def check_whole(checkpoint: Path) -> None:
    """Raise `Damaged` unless all files of the step are there, as they were written."""
    needed = {CONFIG_FILE, WEIGHTS_FILE, TRAINING_FILE, RECORD_FILE}
    if missing := needed - listed_files(checkpoint):
        raise Damaged(f"{checkpoint}: {min(missing)} is missing")
    verify(checkpoint)
    read_values(checkpoint)


def load_snapshot(checkpoint: Path) -> Snapshot:
    """Read a verified checkpoint whole."""
    has_ema = EMA_FILE in listed_files(checkpoint)
    return Snapshot(
        weights=read_weights(checkpoint / WEIGHTS_FILE),
        ema=read_weights(checkpoint / EMA_FILE) if has_ema else None,
        record=read_record(checkpoint),
    )
