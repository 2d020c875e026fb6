"""A sweep: several values of some keys, and a run of its own for every combination of them.

Nothing is kept beside the runs but their outcomes: a run's folder is named by its values, so that
the same values find it again.
"""

import json
import operator
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import BaseModel

from hrm.checkpoint import build_for, saved_steps, step_dir
from hrm.checkpoint.layout import CONFIG_FILE
from hrm.checkpoint.manifest import Damaged
from hrm.checkpoint.training import read_values
from hrm.data import PuzzleDataset
from hrm.data.format import TRAIN_SPLIT, DatasetMetadata, fingerprint
from hrm.errors import UserError
from hrm.files import write_texts
from hrm.plain_yaml import first_line
from hrm.progress import Progress
from hrm.ranks import ALONE
from hrm.records import METRICS_FILE, Record, last_of, read_records
from hrm.signals import ENDING
from hrm.training.config import PretrainConfig, load_pretrain_config, load_train_config
from hrm.training.run_folder import UNANNOUNCED, difference
from hrm.training.splits import open_data

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

MOST_RUNS = 1000
LONGEST_NAME = 200  # bytes; file systems take 255
SEED = "seed"
STOPPED = {code for number in ENDING for code in (-number, 128 + number)}  # exit codes
OUTCOME_FILE, LOG_FILE = "outcome.json", "log.txt"


class Axis(NamedTuple):
    """A key with several values."""

    key: str
    text: str  # as it was given
    overrides: list[str]  # `key=value`, one for each value, as Hydra reads them


class Outcome(NamedTuple):
    """How a run's last process ended; written into its folder."""

    code: int | None = None  # exit code, negative for a signal; None: that process was cut off
    seconds: float | None = 0.0  # of all its processes; None: nobody knows


@dataclass(frozen=True)
class SweptRun:
    """One combination of values."""

    values: Mapping[str, str]  # of the swept keys, as they are shown
    overrides: tuple[str, ...]  # those that set them
    config: PretrainConfig
    steps: int  # of the whole run, about

    @property
    def name(self) -> str:
        """Of the run and its folder, such as "lr=0.001,seed=0"."""
        return _joined(self.values)

    @property
    def setting(self) -> str:
        """What runs that differ by their seeds alone have in common; "" where nothing else is."""
        return _joined({key: value for key, value in self.values.items() if key != SEED})

    @property
    def folder(self) -> Path:
        return self.config.run_dir

    @property
    def outcome(self) -> Outcome | None:
        """Of its last process; None before the first, or where the record is damaged."""
        try:
            return Outcome(**json.loads((self.folder / OUTCOME_FILE).read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    @property
    def has_metrics(self) -> bool:
        path = self.folder / METRICS_FILE
        return path.is_file() and path.stat().st_size > 0

    @property
    def is_finished(self) -> bool:
        outcome = self.outcome
        return outcome is not None and outcome.code == 0 and self.has_metrics

    @property
    def has_failed(self) -> bool:
        """Whether its last process ended by itself, before its end."""
        outcome = self.outcome
        return outcome is not None and outcome.code not in (None, 0, *STOPPED)

    @property
    def saved_step(self) -> int:
        """From which it would go on."""
        return max(saved_steps(self.folder), default=0)

    @property
    def evaluation(self) -> Record:
        """The last one that it has logged, {} before the first."""
        return last_of(read_records(self.folder / METRICS_FILE), "eval") if self.has_metrics else {}

    def note(self, outcome: Outcome) -> None:
        """Write how its last process ended; raises `UserError` where that cannot be written."""
        write_texts(self.folder, {OUTCOME_FILE: json.dumps(outcome._asdict()) + "\n"})


@dataclass(frozen=True)
class Sweep:
    """All runs, those of one setting one after the other."""

    folder: Path
    axes: list[Axis]
    runs: list[SweptRun]
    metadata: DatasetMetadata  # of the training data


def axes_of(overrides: Sequence[str]) -> list[Axis]:
    """The overrides that give a key several values: `a=1,2`, `range(0,5)`, `choice(x,y)`.

    Returns:
        By key, the seed last.

    Raises:
        UserError: an override cannot be read, or has values that cannot be listed.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    found: dict[str, Axis] = {}
    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
            if override.is_sweep_override():
                key = override.get_key_element().lstrip("+")
                values = [f"{override.get_key_element()}={v}" for v in _texts(override)]
                if key in found:
                    raise UserError(f"{text}: {key} has several values twice")
                found[key] = Axis(key, text, values)
        except HydraException as error:
            raise UserError(f"{text}: cannot be read ({first_line(error)})") from None
    return sorted(found.values(), key=lambda axis: (axis.key == SEED, axis.key))


def plan(overrides: Sequence[str], recipe: str) -> Sweep:
    """Every combination, composed and checked; nothing is written.

    Args:
        overrides: Hydra's, `axes_of` them with several values. `run_name` names the sweep.

    Raises:
        UserError: no key has several values, or too many; a key or a value is wrong; two
            combinations have the same values; the data set or a model for it cannot be opened.
    """
    axes = axes_of(overrides)
    if not axes:
        raise UserError("no key has several values; give some, such as seed=0,1,2 lr=1e-3,3e-4")
    count = prod(len(axis.overrides) for axis in axes)
    if count > MOST_RUNS:
        raise UserError(f"{count:,} runs: more than {MOST_RUNS:,}; give fewer values")
    several = {axis.text for axis in axes}
    fixed = [text for text in overrides if text not in several]
    names = _short_names([axis.key for axis in axes])
    runs: list[SweptRun] = []
    data: PuzzleDataset | None = None
    folder = Path()
    with Progress("settings checked", count) as progress:
        for chosen in product(*(axis.overrides for axis in axes)):
            config = load_pretrain_config([*fixed, *chosen], recipe)
            if data is None:
                folder = _folder(config, list(names.values()))
                data, _ = open_data(config, ALONE)
            values = {
                names[axis.key]: _shown(config, axis.key, text)
                for axis, text in zip(axes, chosen, strict=True)
            }
            runs.append(_run(config, folder, values, chosen, data))
            progress.update()
    for name, times in Counter(run.name for run in runs).items():
        if times > 1:
            raise UserError(f"{name}: these values stand there twice")
    assert data is not None
    return Sweep(folder, axes, runs, data.metadata)


def refuse_other_sweep(sweep: Sweep) -> None:
    """Compare with the runs that lie in the sweep's folder.

    Values may be added to a sweep; what all runs have in common must stay.

    Raises:
        UserError: a run was trained with other keys, or on other data.
    """
    planned = {run.name: run for run in sweep.runs}
    swept = {axis.key.partition(".")[0] for axis in sweep.axes}
    folders = sorted(sweep.folder.iterdir()) if sweep.folder.is_dir() else []
    known = [path for path in folders if (path / CONFIG_FILE).is_file()]
    data_path = sweep.runs[0].config.data_path
    digest = fingerprint(data_path / TRAIN_SPLIT, sweep.metadata) if known else ""
    for path in known:
        run = planned.get(path.name)
        saved, config = load_train_config(path / CONFIG_FILE), (run or sweep.runs[0]).config
        if config.arch.forward_dtype == "auto":  # which the run has replaced
            config = config.in_dtype(saved.arch.forward_dtype)
        for key in PretrainConfig.model_fields.keys() - UNANNOUNCED - (set() if run else swept):
            if getattr(saved, key) != getattr(config, key):
                raise UserError(
                    f"{path}: {difference(key, saved, config)} now, which makes another sweep; "
                    "name it by another run_name"
                )
        if run and _trained_on(run) not in (None, digest):
            raise UserError(
                f"{path}: was trained on other data than data_path={data_path} holds now; "
                "name another sweep by run_name"
            )


def _texts(override: "Override") -> list[str]:
    """The values of an override with several, as Hydra writes them; not more than are too many."""
    return list(map(str, islice(override.sweep_string_iterator(), MOST_RUNS + 1)))


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Keys without what they are within, where that leaves them different."""
    times = Counter(key.rpartition(".")[2] for key in keys)
    return {key: last if times[last := key.rpartition(".")[2]] == 1 else key for key in keys}


def _folder(config: PretrainConfig, names: Sequence[str]) -> Path:
    """Where the runs go: a run's own folder, if there were but one."""
    if config.resume is not None or config.overwrite:
        key = "overwrite" if config.overwrite else "resume"
        raise UserError(f"{key}: a sweep goes on by itself; leave it out, or give a new run_name")
    name = config.run_name or "-".join(["sweep", *names])
    return config.model_copy(update={"run_name": name}).run_dir


def _run(
    config: PretrainConfig,
    folder: Path,
    values: Mapping[str, str],
    overrides: Sequence[str],
    data: PuzzleDataset,
) -> SweptRun:
    name, metadata = _joined(values), data.metadata
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise UserError(f"{name}: too long for the name of a folder; give fewer keys")
    try:
        config.local_micro_batch_size(ranks=1)
        with torch.device("meta"):
            build_for(config.in_dtype("float32"), metadata)  # shapes are those of any dtype
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    place = {"run_name": name, "checkpoint_path": folder / name, "resume": "auto"}
    steps = config.total_steps(metadata)
    return SweptRun(values, tuple(overrides), config.model_copy(update=place), steps)


def _joined(values: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in values.items())


def _shown(config: PretrainConfig, key: str, override: str) -> str:
    """A value of a key as a name can hold it: 1e-3 and 0.001 are the same."""
    text = override.partition("=")[2]
    try:
        value = operator.attrgetter(key)(config)
    except AttributeError:
        value = text
    if isinstance(value, BaseModel):  # of a group, such as arch=trm
        value = text
    return re.sub(r"[^\w.+-]", "_", _plain(value))


def _plain(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    return "+".join(map(_plain, value)) if isinstance(value, tuple) else str(value)


def _trained_on(run: SweptRun) -> str | None:
    """The fingerprint of the data of a run's newest checkpoint, None where there is none."""
    if not run.saved_step:
        return None
    try:
        return str(read_values(step_dir(run.folder, run.saved_step)).get("data"))
    except Damaged:  # which the run itself reports
        return None
