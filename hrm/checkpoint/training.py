"""What resuming needs besides the weights: `training.safetensors` and `training.json`.

    optimizer/<key>/<parameter>    moments and step counts
    carry/<field>, carry/current_data/<name>    [rows of the rank, …]
    metrics/<rank>/<name>          sums since the last logged line
    random/<rank>/<generator>      states of random generators
    stability/<name>               unsound steps in a row, and the first of them

Of several ranks each writes its own carries, sums and generators, rank r > 0 into
`training-<r>.safetensors`, so that none holds another's. The rows of the global batch lie one after
the other in these files, however micro-batches cut them, and a rank reads those that it trains: any
other number of ranks can resume from them. (Earlier, one file held
all ranks'.)
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from hrm.checkpoint.layout import (
    CONFIG_FILE,
    EMA_FILE,
    RECORD_FILE,
    TRAINING_FILE,
    WEIGHTS_FILE,
    saved_steps,
    step_dir,
    step_of,
    training_file,
)
from hrm.checkpoint.manifest import Damaged, file_entry, listed_files, verify
from hrm.checkpoint.weights import read_share, read_weights, save_tensors
from hrm.errors import UserError, first_mistake
from hrm.files import remove, sync
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
class Share:
    """What a rank other than the first adds to a checkpoint, written by that rank."""

    path: Path
    entry: Mapping[str, Any]  # of the manifest


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at a step, as one rank has it; tensors in host memory.

    Ranks other than the first save no weights and values, which are the same on all.
    """

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


def write_share(run_dir: Path, step: int, rank: int, tensors: Mapping[str, Tensor]) -> Share:
    """Write this rank's file of a checkpoint that rank 0 is about to write.

    Raises:
        UserError: the disk is full or not writable.
    """
    name = training_file(rank)
    path = run_dir / f".{step_dir(run_dir, step).name}-{name}"
    try:
        for left in run_dir.glob(f".step_*-{name}"):
            left.unlink(missing_ok=True)
        save_tensors(tensors, path)
        sync(path)
        return Share(path, file_entry(path))
    except OSError as error:
        remove(path)
        raise UserError(f"{path}: could not be written ({error})") from None


def read_record(checkpoint: Path, rank: int, ranks: int, batch_size: int) -> TrainingRecord:
    """What a rank needs of the record of a checkpoint folder that was verified.

    Carries are those of its own rows of the global batch; metric sums of all ranks are read by
    rank 0 alone, where their number has changed.

    Args:
        rank, ranks: that resume; any number may have written it.
        batch_size: rows of all ranks.

    Raises:
        UserError: the files are missing or damaged, or hold another number of rows.
    """
    values, listed = read_values(checkpoint), listed_files(checkpoint)
    names = [TRAINING_FILE]
    while (name := training_file(len(names))) in listed:
        names.append(name)
    if len(names) not in (1, values["ranks"]) or batch_size % len(names):
        raise UserError(f"{checkpoint}: holds files of {len(names)} ranks, not {values['ranks']}")
    size, local = batch_size // len(names), batch_size // ranks
    mine = range(rank * local, (rank + 1) * local)

    tensors: dict[str, Tensor] = {}
    carry: dict[str, list[Tensor]] = {}
    for index, name in enumerate(names):
        first, end = (min(max(row - index * size, 0), size) for row in (mine.start, mine.stop))
        rows = range(first, end)
        needs_sums = rank == 0 and values["ranks"] != ranks
        if not (rows or needs_sums or index in (0, rank)):
            continue
        for key, tensor in read_share(checkpoint / name, is_carry, rows, size).items():
            if is_carry(key):
                carry.setdefault(key, []).append(tensor)
            else:
                tensors[key] = tensor
    for key, parts in carry.items():
        try:
            tensors[key] = parts[0] if len(parts) == 1 else torch.cat(parts)
        except RuntimeError:
            raise UserError(f"{checkpoint}: {key} differs in shape from rank to rank") from None
    return TrainingRecord(tensors, values)


def is_carry(name: str) -> bool:
    """Whether a tensor of the record has a row for each row of the batch."""
    return name.startswith("carry/")


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
    if step_of(checkpoint) not in (None, step):
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


def load_snapshot(checkpoint: Path, rank: int, ranks: int, batch_size: int) -> Snapshot:
    """Read what a rank needs of a verified checkpoint, as `read_record`."""
    has_ema = EMA_FILE in listed_files(checkpoint)
    return Snapshot(
        weights=read_weights(checkpoint / WEIGHTS_FILE),
        ema=read_weights(checkpoint / EMA_FILE) if has_ema else None,
        record=read_record(checkpoint, rank, ranks, batch_size),
    )
