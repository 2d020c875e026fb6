"""Checkpoints as a whole: a folder `step_<n>/` that suffices by itself is written and read back."""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hrm.models
from hrm.checkpoint.config import RunConfig, load_config, save_config
from hrm.checkpoint.finding import find_checkpoint
from hrm.checkpoint.layout import (
    CONFIG_FILE,
    EMA_FILE,
    PREDICTIONS_FILE,
    RECORD_FILE,
    SOURCE_DIR,
    TRAINING_FILE,
    WEIGHTS_FILE,
    folder_of,
    step_dir,
    step_of,
    training_file,
)
from hrm.checkpoint.manifest import Damaged, listed_files, verify, write_manifest
from hrm.checkpoint.training import Share, TrainingRecord, read_values
from hrm.checkpoint.weights import (
    check_weights,
    load_weights,
    read_weights,
    save_tensors,
    without_prefix,
)
from hrm.config import WeightsName
from hrm.data.format import (
    METADATA_FILE,
    SPLITS,
    TEST_SPLIT,
    DatasetMetadata,
    has_split,
    read_metadata,
    write_metadata,
)
from hrm.data.missing import missing_split
from hrm.data.origin import Origin, origin_of
from hrm.errors import UserError
from hrm.files import remove, sync, sync_tree, write_texts
from hrm.models.losses import ACTLossHead
from hrm.models.recurrence import ForwardDtype
from hrm.models.registry import build_model
from hrm.models.sparse_embedding import PUZZLE_TABLE

SMALL_MODEL = 2**26  # numbers: what may be built before it is compared with its weights
LARGEST_TABLES = 4 * 2**30  # bytes of what a model computes for a sequence length, such as angles


def save_checkpoint(
    run_dir: Path,
    step: int,
    config: RunConfig,
    metadata: DatasetMetadata,
    weights: Mapping[str, Tensor],
    ema_weights: Mapping[str, Tensor] | None = None,
    record: TrainingRecord | None = None,
    shares: Sequence[Share] = (),
) -> Path:
    """Write `run_dir/step_<step>/` so that it is either whole or not there.

    Args:
        record: without it the checkpoint can be evaluated, but not resumed.
        shares: what ranks 1, 2, … have written; they are moved into it.

    Raises:
        UserError: the disk is full or not writable; nothing half-written stays.
    """
    final = step_dir(run_dir, step)
    temporary = run_dir / f".{final.name}-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # stayed if the disk was read-only meanwhile
        temporary.mkdir(parents=True)
        save_tensors(weights, temporary / WEIGHTS_FILE)
        if ema_weights is not None:
            save_tensors(ema_weights, temporary / EMA_FILE)
        if record is not None:
            save_tensors(record.tensors, temporary / TRAINING_FILE)
            (temporary / RECORD_FILE).write_text(json.dumps(record.values, indent=1) + "\n")
        for rank, share in enumerate(shares, 1):
            share.path.rename(temporary / training_file(rank))
        save_config(config, temporary / CONFIG_FILE)
        write_metadata(temporary, metadata)
        copy_model_source(temporary / SOURCE_DIR)
        entries = [share.entry for share in shares]
        write_manifest(temporary, {training_file(n): entry for n, entry in enumerate(entries, 1)})
        sync_tree(temporary)
        temporary.rename(final)
        sync(run_dir)
    except OSError as error:
        raise UserError(f"{final}: checkpoint could not be written ({error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for share in shares:
            remove(share.path)
    return final


def save_predictions(checkpoint: Path, predictions: Mapping[str, Tensor]) -> Path:
    """Write `predictions.safetensors` into a checkpoint folder (beside a single-file one)."""
    folder = folder_of(checkpoint)
    name = PREDICTIONS_FILE if checkpoint.is_dir() else f"{checkpoint.name}_{PREDICTIONS_FILE}"
    temporary = folder / f".{name}.tmp"  # the same each time: a killed process leaves no others
    try:
        save_tensors(predictions, temporary)
        sync(temporary)
        temporary.replace(folder / name)
    except OSError as error:
        raise UserError(f"{folder / name}: could not be written ({error})") from None
    finally:
        remove(temporary)
    return folder / name


def save_artefacts(checkpoint: Path, artefacts: Mapping[str, str]) -> list[Path]:
    """Write what evaluators have left into a checkpoint folder (beside a single-file one).

    Args:
        artefacts: texts by name: `<evaluator>/<file>` becomes
            `evaluator_<evaluator>_step_<n>/<file>`, as the original names it.

    Raises:
        UserError: one cannot be written.
    """
    folder = folder_of(checkpoint)
    files = {}
    for name, text in artefacts.items():
        evaluator, _, file = name.partition("/")
        files[f"evaluator_{evaluator}_{checkpoint.name}/{file}"] = text
    return write_texts(folder, files)


def copy_model_source(target: Path) -> None:
    """Copy the model's source files, as a record of what made the weights."""
    source = Path(hrm.models.__file__).parent
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


@dataclass(frozen=True)
class Checkpoint:
    """A model rebuilt from a checkpoint alone."""

    path: Path
    step: int | None
    model: ACTLossHead
    config: RunConfig
    metadata: DatasetMetadata
    origin: Origin = Origin()  # of the training data

    @property
    def own_examples(self) -> Path | None:
        """The folder itself where test puzzles lie in it, as `export_checkpoint` puts them."""
        return self.path if has_split(self.path, TEST_SPLIT) else None

    @property
    def examples(self) -> Path | None:
        """The data set of training where it has test puzzles, else as `own_examples`.

        Not where the training data are known to be others: its test puzzles may be among them.
        """
        trained, known = self.config.data_path, self.origin.data
        with suppress(UserError):
            if has_split(trained, TEST_SPLIT) and known in (None, origin_of(trained).data):
                return trained
        return self.own_examples

    def in_dtype(self, forward_dtype: ForwardDtype) -> "Checkpoint":
        """The same weights in a model that computes in another dtype."""
        config = self.config.in_dtype(forward_dtype)
        model = build_for(config, self.metadata)
        model.load_state_dict(self.model.state_dict())
        return replace(self, model=model, config=config)


def load_checkpoint(
    path: Path, weights: WeightsName = "auto", data_path: Path | None = None
) -> Checkpoint:
    """Rebuild the model of a checkpoint, ours or the original's, on the CPU.

    Args:
        weights: `auto` takes the running average where there is one.
        data_path: the data set to run it on; the original's checkpoints take the sequence length
            from it (ours know it themselves).

    Raises:
        UserError: the checkpoint is missing, damaged, or does not fit its configuration.
    """
    path, origin = find_checkpoint(path), Origin()
    if path.is_dir():
        listed = listed_files(path)
        file = _weights_file(path, weights, listed)
        _verify(path, [CONFIG_FILE, METADATA_FILE, file.name, *({RECORD_FILE} & listed)])
        if RECORD_FILE in listed:
            origin = _origin(read_values(path))
        config = load_config(path / CONFIG_FILE, RunConfig)
        metadata = read_metadata(path)
        state = read_weights(file)
    else:
        if weights == "ema":
            raise UserError(f"{path}: holds no running average; use weights=raw")
        config = load_config(path.parent / CONFIG_FILE, RunConfig)
        file, state = path, read_weights(path)
        metadata = _foreign_metadata(data_path or config.data_path)
        table = next((t for name, t in state.items() if name.endswith(PUZZLE_TABLE)), None)
        if table is not None:
            metadata = metadata.model_copy(update={"num_puzzle_identifiers": len(table)})
    _check_sizes(config, metadata, state, file)
    model = build_for(config, metadata)
    load_weights(model, state, source=str(file))
    return Checkpoint(path, step_of(path), model, config, metadata, origin)


def initial_weights(path: Path, model: ACTLossHead) -> dict[str, Tensor]:
    """The weights of a checkpoint, ours or the original's, to begin a run with; averaged if saved.

    A puzzle embedding of another shape becomes the mean of its rows, in every row (as TRM's code
    does it), so that other data can be trained on.

    Args:
        model: that they are for; may be on the meta device.

    Raises:
        UserError: the checkpoint is missing, damaged, or of another model.
    """
    path = find_checkpoint(path, "load_checkpoint")
    file = path
    if path.is_dir():
        file = _weights_file(path, "auto", listed_files(path))
        _verify(path, [file.name])
    state = without_prefix(read_weights(file))
    for name, expected in model.state_dict().items():
        known = state.get(name)
        if name.endswith(PUZZLE_TABLE) and known is not None and known.shape != expected.shape:
            if known.shape[1:] == expected.shape[1:]:
                mean = known.to(torch.float32).mean(0, keepdim=True).to(known.dtype)
                state[name] = mean.repeat(len(expected), 1)
    check_weights(model, state, f"load_checkpoint={file}")
    return state


def _weights_file(path: Path, weights: WeightsName, listed: Collection[str]) -> Path:
    if weights == "ema" and EMA_FILE not in listed:
        raise UserError(f"{path}: no {EMA_FILE}; the run was trained with ema=false")
    return path / (EMA_FILE if EMA_FILE in listed and weights != "raw" else WEIGHTS_FILE)


def _verify(path: Path, names: Sequence[str]) -> None:
    try:
        verify(path, names)
    except Damaged as error:
        raise Damaged(f"{error}; name another checkpoint") from None


def _origin(record: Mapping[str, Any]) -> Origin:
    """Of the training data, so far as a record says it; earlier ones know no identifiers."""
    data, identifiers = (record.get(key) for key in ("data", "identifiers"))
    known = (value if isinstance(value, str) else None for value in (data, identifiers))
    return Origin(*known)


def _check_sizes(
    config: RunConfig, metadata: DatasetMetadata, state: Mapping[str, Tensor], file: Path
) -> None:
    """Compare the model with its weights before it takes any memory, unless that is little.

    Raises:
        UserError: they do not fit, or the model would be too large.
    """
    if config.arch.num_layers > len(state):
        raise UserError(f"{file}: holds {len(state)} tensors, too few for the layers of arch")
    sizes = metadata.seq_len, metadata.vocab_size, metadata.num_puzzle_identifiers
    if config.arch.most_numbers(*sizes) <= SMALL_MODEL:
        return  # the meta device needs PyTorch's compiler, whose import takes seconds
    try:
        with torch.device("meta"):
            model = build_for(config, metadata)
    except (RuntimeError, OverflowError, TypeError):
        raise UserError(f"{file}: the model of {CONFIG_FILE} is too large to be built") from None
    check_weights(model, without_prefix(state), str(file))
    tables = sum(t.numel() * t.element_size() for t in model.buffers())
    if tables - sum(t.numel() * t.element_size() for t in state.values()) > LARGEST_TABLES:
        raise UserError(f"{file}: seq_len={metadata.seq_len} takes {tables:,} bytes of tables")


def _foreign_metadata(data_path: Path) -> DatasetMetadata:
    for split in SPLITS:
        with suppress(UserError):
            if (data_path / split / METADATA_FILE).is_file():
                return read_metadata(data_path / split)
    raise UserError(f"data_path={data_path}: {missing_split(data_path, 'test')}")


def build_for(config: RunConfig, metadata: DatasetMetadata) -> ACTLossHead:
    """Build the configured model, fresh weights, for a data set."""
    arch = config.arch.model_dump(exclude={"loss"}) | {
        "seq_len": metadata.seq_len,
        "vocab_size": metadata.vocab_size,
        "num_puzzle_identifiers": metadata.num_puzzle_identifiers,
        "grid_shape": metadata.grid_shape,
        "box_shape": metadata.box_shape,
        "first_digit": metadata.first_digit,
        "seed": config.seed,
    }
    return build_model(arch, config.arch.loss.model_dump())
