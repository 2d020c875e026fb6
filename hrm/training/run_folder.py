"""A run's folder: created, or found and resumed; used by one process at a time."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm.checkpoint import build_for, initial_weights
from hrm.checkpoint.config import save_config
from hrm.checkpoint.finding import find_checkpoint
from hrm.checkpoint.folder import copy_model_source
from hrm.checkpoint.layout import (
    CONFIG_FILE,
    SOURCE_DIR,
    delete_checkpoint,
    numbered_steps,
    remove_leftovers,
    saved_steps,
    step_dir,
)
from hrm.checkpoint.manifest import Damaged
from hrm.checkpoint.training import check_values, check_whole, newest_whole, read_values
from hrm.data.fit import check_fits
from hrm.data.format import TRAIN_SPLIT, DatasetMetadata, read_metadata
from hrm.data.origin import SHOWN_DIGITS
from hrm.errors import UserError
from hrm.files import replace_folder, sync
from hrm.records import METRICS_FILE
from hrm.training.config import PretrainConfig, load_train_config

LOCK_SECONDS = 10  # how long to wait for a process that is about to end
SHOWN_SECONDS = 10  # in which a shared file system shows a new folder to other machines
# What a resumed run must have as it was: with another value it would be another run.
FIXED = (
    "arch",
    "global_batch_size",
    "epochs_per_iteration",
    "seed",
    "optimizer",
    "ema",
    "puzzle_emb_dropout",
    "stagger",
)
# What may change without a word; a change of any other key is said.
UNANNOUNCED = {
    *("load_checkpoint", "resume", "overwrite"),
    *("run_name", "project_name", "checkpoint_path", "data_path"),
    *("logger", "progress", "device", "compile", "rank_timeout", "micro_batch_size"),
    *("checkpoint_interval", "checkpoint_every_eval", "keep_checkpoints", "eval_interval"),
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Start:
    """From where a run is resumed."""

    checkpoint: Path
    values: Mapping[str, Any]  # of its record
    evaluation: dict[str, float] | None  # as logged, where its step was evaluated already


def prepare(config: PretrainConfig, data_digest: str, say: Say, cleanup: ExitStack) -> Start | None:
    """Make the run's folder, or find from where to resume in it; keep other processes out.

    Args:
        data_digest: fingerprint of the training data.
        cleanup: gives the folder free again.

    Returns:
        None for a run that begins at step 0.

    Raises:
        UserError: the folder belongs to another run or cannot be written; the checkpoint is
            missing or damaged, or was made by a run with other data, model or batches.
    """
    run_dir = config.run_dir
    try:
        held = _inode(run_dir)
        if held is not None:
            cleanup.enter_context(used_alone(run_dir))
        if config.resume is None:
            _make(config)
            start = None
        else:
            start = _find_start(config, data_digest, say)
        if _inode(run_dir) != held:
            cleanup.enter_context(used_alone(run_dir))
    except OSError as error:
        raise UserError(f"{error.filename or run_dir}: {error.strerror}") from None
    return start


def check_is_shared(run_dir: Path) -> None:
    """Raise `UserError` unless this rank sees the folder that rank 0 has prepared."""
    deadline = time.monotonic() + SHOWN_SECONDS
    while not run_dir.is_dir():
        if time.monotonic() > deadline:
            raise UserError(
                f"{run_dir}: made by rank 0, but not there for this process; every rank writes "
                "into it: put it where all machines share a file system"
            )
        time.sleep(0.2)


def unused_name(config: PretrainConfig, name: str) -> str:
    """`name`, or `name-2` and so on where a run has it.

    The folder is made at once, so that no other process takes the name.

    Raises:
        UserError: it cannot be made.
    """
    if config.checkpoint_path is not None:
        return name
    for number in count(1):
        numbered = name if number == 1 else f"{name}-{number}"
        run_dir = config.model_copy(update={"run_name": numbered}).run_dir
        try:
            run_dir.mkdir(parents=True)
            return numbered
        except FileExistsError:
            if not run_dir.is_dir():
                raise UserError(f"{run_dir}: cannot be made; there is a file in its way") from None
        except OSError as error:
            raise UserError(f"{run_dir}: cannot be written ({error.strerror})") from None
    raise AssertionError


def remove_if_empty(run_dir: Path) -> None:
    with suppress(OSError):
        run_dir.rmdir()


def last_good(config: PretrainConfig, say: Say) -> Start | None:
    """The newest checkpoint that no unsound step ends in; those after it are deleted then.

    Raises:
        UserError: a file cannot be read or written.
    """
    later: list[int] = []
    try:
        for step in reversed(saved_steps(config.run_dir)):
            checkpoint = step_dir(config.run_dir, step)
            with suppress(Damaged):
                check_whole(checkpoint)
                values = read_values(checkpoint)
                check_values(values, checkpoint)
                if values["is_sound"]:
                    for unsound in later:
                        delete_checkpoint(config.run_dir, unsound)
                    return _start_at(checkpoint, values, config, say)
            later.append(step)
    except OSError as error:
        raise UserError(f"{error.filename or config.run_dir}: {error.strerror}") from None
    return None


def may_resume(config: PretrainConfig) -> bool:
    """Whether the run is to be resumed and has checkpoints, damaged or not."""
    return config.resume is not None and bool(saved_steps(config.run_dir))


def first_weights(config: PretrainConfig, metadata: DatasetMetadata) -> Mapping[str, Tensor] | None:
    """Those of `load_checkpoint`, if any; raises `UserError` where they do not fit."""
    if config.load_checkpoint is None:
        return None
    with torch.device("meta"):
        model = build_for(config, metadata)
    return initial_weights(config.load_checkpoint, model)


def check_position(start: Start, sizes: list[int]) -> None:
    """Raise `UserError` unless a checkpoint's step is where it stands in the data.

    Args:
        sizes: steps of every iteration.
    """
    step, iteration, batch = (start.values[name] for name in ("step", "iteration", "batch"))
    if iteration < len(sizes) and (
        batch > sizes[iteration] or step != sum(sizes[:iteration]) + batch
    ):
        raise UserError(
            f"{start.checkpoint}: step {step} is not batch {batch} of iteration {iteration}"
        )


def _find_start(config: PretrainConfig, data_digest: str, say: Say) -> Start | None:
    run_dir = config.run_dir
    remove_leftovers(run_dir)
    if config.resume == "auto":
        checkpoint = newest_whole(run_dir, say)
    else:
        assert isinstance(config.resume, Path)
        checkpoint = find_checkpoint(config.resume, "resume")
        if checkpoint.is_file():
            raise UserError(f"resume={checkpoint}: holds weights only; it cannot be resumed")
        check_whole(checkpoint)
    if checkpoint is None:
        _begin_again(config, say)
        return None
    values = read_values(checkpoint)
    check_values(values, checkpoint)
    _check_same_run(config, checkpoint, values, data_digest, say)
    if checkpoint.parent.resolve() == run_dir.resolve():
        _refuse_newer(run_dir, values["step"])
        save_config(config, run_dir / CONFIG_FILE)
    else:
        _make(config)
    say(f"going on from {checkpoint}")
    return _start_at(checkpoint, values, config, say)


def _start_at(
    checkpoint: Path, values: Mapping[str, Any], config: PretrainConfig, say: Say
) -> Start:
    source, target = checkpoint.parent / METRICS_FILE, config.run_dir / METRICS_FILE
    return Start(checkpoint, values, cut_metrics(source, target, values["step"], say))


def cut_metrics(source: Path, target: Path, step: int, say: Say) -> dict[str, float] | None:
    """Copy the lines of `source` up to a step to `target` (which may be the same file).

    Returns:
        The evaluation that was logged at that step, if any.
    """
    kept, evaluation, last = [], None, 0
    lines = source.read_bytes().splitlines(keepends=True) if source.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            last = values["step"]
            if last > step:
                break
        except (ValueError, LookupError, TypeError, RecursionError):
            if number < len(lines):
                say(f"warning: {source}, line {number}: damaged; left out")
            continue
        if line.endswith(b"\n"):
            kept.append(line)
            evaluation = values if last == step and "eval/count" in values else None
    temporary = target.with_name(f".{target.name}")
    temporary.write_bytes(b"".join(kept))
    sync(temporary)
    temporary.replace(target)
    return evaluation


@contextmanager
def used_alone(folder: Path, use: str = "trains this run") -> Iterator[None]:
    """Keep other processes from using the folder while inside.

    Args:
        use: what another process does with it, in messages.

    Raises:
        UserError: another process does.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise UserError(f"{folder}: another process {use}; stop it first")
            time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


def _inode(folder: Path) -> int | None:
    return folder.stat().st_ino if folder.is_dir() else None


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # file systems without locks
        return True
    return True


def _make(config: PretrainConfig) -> None:
    """Create the folder, with the configuration and the model's source; whole or not at all.

    One that is there and empty is filled: it may be a mounted volume.
    """
    run_dir = config.run_dir
    place = run_dir.absolute()  # with_name knows no name of "."
    new = place.with_name(f".{place.name}.new-{os.getpid()}")
    try:
        if was_there := run_dir.exists():
            if not any(run_dir.iterdir()):
                _describe(config, run_dir)
                return
            if not config.overwrite:
                raise UserError(
                    f"run_name={config.run_name}: {run_dir} exists; choose another run_name, "
                    "continue it by resume=auto, or replace it by overwrite=true"
                )
            if not (run_dir / CONFIG_FILE).is_file():
                raise UserError(f"{run_dir}: is not a run's folder; overwrite=true leaves it alone")
        new.mkdir(parents=True)
        _describe(config, new)
        if was_there:
            replace_folder(new, run_dir)
        else:
            new.rename(run_dir)  # fails where another process has made it meanwhile
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _begin_again(config: PretrainConfig, say: Say) -> None:
    """A run to be resumed that has no checkpoint yet."""
    run_dir = config.run_dir
    if not run_dir.exists() or not any(run_dir.iterdir()):
        _make(config)
    elif numbered_steps(run_dir):
        raise UserError(f"{run_dir}: holds weights only; they cannot be resumed")
    elif (run_dir / CONFIG_FILE).is_file():
        (run_dir / METRICS_FILE).unlink(missing_ok=True)
        _describe(config, run_dir)
    else:
        raise UserError(f"{run_dir}: is not a run's folder; choose another run_name")
    say(f"{run_dir}: no checkpoint to resume from; the run begins")


def _describe(config: PretrainConfig, folder: Path) -> None:
    save_config(config, folder / CONFIG_FILE)
    shutil.rmtree(folder / SOURCE_DIR, ignore_errors=True)
    copy_model_source(folder / SOURCE_DIR)


def _refuse_newer(run_dir: Path, step: int) -> None:
    if newer := [s for s in saved_steps(run_dir) if s > step]:
        raise UserError(
            f"resume: {step_dir(run_dir, newer[-1])} is newer than step {step}; give another "
            "run_name to branch off, or resume=auto to resume from the newest"
        )


def _check_same_run(
    config: PretrainConfig, checkpoint: Path, values: Mapping[str, Any], data_digest: str, say: Say
) -> None:
    saved = load_train_config(checkpoint / CONFIG_FILE)
    for key in FIXED:
        if getattr(config, key) != getattr(saved, key):
            raise UserError(
                f"resume: in {checkpoint} {difference(key, saved, config)} now; give the run's "
                "own value, or begin another run"
            )
    if values["data"] != data_digest:
        place, split_dir = f"data_path={config.data_path}", config.data_path / TRAIN_SPLIT
        check_fits(read_metadata(checkpoint), read_metadata(split_dir), place)
        prints = f"{data_digest[:SHOWN_DIGITS]}, not {values['data'][:SHOWN_DIGITS]}"
        raise UserError(
            f"{place}: not the data that {checkpoint} was trained on (fingerprint {prints}); name "
            "them, or begin another run"
        )
    for key in PretrainConfig.model_fields.keys() - UNANNOUNCED - set(FIXED):
        if getattr(config, key) != getattr(saved, key):
            say(f"resume: {difference(key, saved, config)} from here on")


def difference(key: str, saved: PretrainConfig, config: PretrainConfig) -> str:
    """What a key that is not the same was, and what it is."""
    old, new = getattr(saved, key), getattr(config, key)
    if key == "arch":
        for name in type(old).model_fields:
            if getattr(old, name) != getattr(new, name):
                return f"arch.{name} was {getattr(old, name)}, is {getattr(new, name)}"
    if key == "epochs_per_iteration":
        key = "eval_interval" if saved.eval_interval or config.eval_interval else "epochs"
    return f"{key} was {old}, is {new}"
