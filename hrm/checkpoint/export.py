"""A checkpoint without what only training needs: weights, configuration, metadata, model card."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

import hrm
from hrm.checkpoint.config import RunConfig, save_config
from hrm.checkpoint.folder import Checkpoint
from hrm.checkpoint.layout import (
    CARD_FILE,
    CARD_PICTURE_FILE,
    CONFIG_FILE,
    MANIFEST_FILE,
    RECORD_FILE,
    WEIGHTS_FILE,
    folder_of,
)
from hrm.checkpoint.manifest import write_manifest
from hrm.checkpoint.weights import save_tensors
from hrm.config import StoredDtype
from hrm.data.format import IDENTIFIERS_FILE, METADATA_FILE, TEST_SPLIT, write_metadata
from hrm.data.origin import SHOWN_DIGITS
from hrm.data.part import write_part
from hrm.data.split import Split
from hrm.errors import UserError
from hrm.files import atomic_folder
from hrm.models.flops import act_step_flops, training_flops
from hrm.plain_yaml import read_yaml
from hrm.records import METRICS_FILE, last_of, read_records

SHOWN_KEYS = (
    *("optimizer", "lr", "muon_lr", "weight_decay", "global_batch_size", "ema", "stagger"),
    *("hint_rate", "hint_most", "epochs", "seed"),
)
EXPORTED = {
    *(WEIGHTS_FILE, CONFIG_FILE, METADATA_FILE, RECORD_FILE, TEST_SPLIT, IDENTIFIERS_FILE),
    *(CARD_FILE, CARD_PICTURE_FILE, MANIFEST_FILE),
}


def export_checkpoint(
    checkpoint: Checkpoint,
    target: Path,
    dtype: StoredDtype = "float32",
    notes: str = "",
    typed: str | None = None,
    examples: Sequence[int] = (),
    picture: bytes | None = None,
) -> Path:
    """Write the folder that others need to run a model; `load_checkpoint` reads it.

    Args:
        target: is replaced where it holds an exported model, and must else be free.
        dtype: that the weights are stored in; they are computed with in the model's own.
        notes: Markdown for the model card, as of `model_card`.
        typed: what users of the model type to name it; the folder's name by default.
        examples: numbers of test examples (`Checkpoint.examples`) that go with the model.
        picture: GIF for the model card, of the first example.

    Raises:
        UserError: something else lies at `target`, or it cannot be written; nothing half-written
            stays.
    """
    if target.exists() and (other := _in_the_way(target)):
        raise UserError(f"output_dir={target}: is there already, and {other}; name another folder")
    stored = {
        name: tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.model.state_dict().items()
    }
    try:
        with atomic_folder(target) as folder:
            save_tensors(stored, folder / WEIGHTS_FILE)
            save_config(_without_home(checkpoint.config), folder / CONFIG_FILE)
            write_metadata(folder, checkpoint.metadata)
            if examples:
                _write_examples(checkpoint, examples, folder)
            record = {"step": checkpoint.step, **vars(checkpoint.origin), "hrm": hrm.__version__}
            text = json.dumps(record, indent=1) + "\n"
            (folder / RECORD_FILE).write_text(text, encoding="utf-8")
            if picture is not None:
                (folder / CARD_PICTURE_FILE).write_bytes(picture)
            card = model_card(checkpoint, target.absolute().name, notes, typed, picture is not None)
            (folder / CARD_FILE).write_text(card, encoding="utf-8")
            write_manifest(folder)
    except OSError as error:
        raise UserError(f"output_dir={target}: could not be written ({error})") from None
    return target


def _write_examples(checkpoint: Checkpoint, numbers: Sequence[int], folder: Path) -> None:
    source = checkpoint.examples
    assert source is not None
    write_part(Split.open(source / TEST_SPLIT), numbers, folder / TEST_SPLIT)
    names = source / IDENTIFIERS_FILE
    first = torch.zeros(1, dtype=torch.int32)
    if checkpoint.model.model.inner.look_up(first) is not None and names.is_file():
        shutil.copyfile(names, folder / IDENTIFIERS_FILE)


def _without_home(config: RunConfig) -> RunConfig:
    """Without where the data lie on this machine, unless that is told from the present folder."""
    path = config.data_path
    return config.model_copy(update={"data_path": Path(path.name) if path.is_absolute() else path})


def _in_the_way(folder: Path) -> str | None:
    """Why something would be lost if an export took a folder's place; None: nothing would."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_dir() and not names:
        return None
    if not {CARD_FILE, WEIGHTS_FILE, MANIFEST_FILE} <= names:
        return "is no exported model"
    return next((f"{name} in it would be lost" for name in sorted(names - EXPORTED)), None)


def model_card(
    checkpoint: Checkpoint,
    name: str,
    notes: str = "",
    typed: str | None = None,
    has_picture: bool = False,
) -> str:
    """Markdown with the front matter of a model hub: what the model is, and how it was trained.

    Args:
        notes: Markdown for its end, instead of the run's last evaluation; what stands before the
            first heading goes into its first paragraph, which `hrm models` shows of the models of
            the package.
        typed: as of `export_checkpoint`.
        has_picture: whether it lies beside the card.
    """
    metadata, model = checkpoint.metadata, checkpoint.model
    start = 0 if notes.startswith("#") else notes.find("\n#") + 1 or len(notes)
    opening, rest = notes[:start].strip(), notes[start:].strip()
    weights = sum(p.numel() for p in model.parameters())
    task = metadata.task or "puzzle"
    shape = "x".join(map(str, metadata.grid_shape or (metadata.seq_len,)))
    arch = checkpoint.config.arch.name
    trained = read_yaml(folder_of(checkpoint.path) / CONFIG_FILE)
    config = model.model.inner.config
    data = checkpoint.origin.data
    print_of_data = f" (fingerprint {data[:SHOWN_DIGITS]})" if data else ""
    rows = {
        "architecture": f"`{arch}`, {config.block_calls} block calls of width "
        f"{config.hidden_size} an ACT step, {config.halt_max_steps} steps at most in training",
        "weights": f"{weights:,}",
        "GFLOP of an ACT step": f"{act_step_flops(config) / 1e9:.3f}",
        "training data": f"`{checkpoint.config.data_path.name}`: {metadata.total_groups:,} puzzles "
        f"and versions of them{print_of_data}",
    }
    if checkpoint.step is not None:
        batch = checkpoint.config.global_batch_size
        spent = training_flops(config) * batch * checkpoint.step
        rows["training"] = f"{checkpoint.step:,} steps of {batch} puzzles, {spent:.1e} FLOP"
    keys = (f"`{key}={trained[key]}`" for key in SHOWN_KEYS if trained.get(key) is not None)
    rows["keys"] = ", ".join(keys)
    rows["code"] = f"hrm {hrm.__version__}, torch {torch.__version__}"
    ending = f"\n{rest}\n" if rest else _evaluation(checkpoint.path)
    picture = (
        f"![A test puzzle, ACT step by ACT step]({CARD_PICTURE_FILE})\n\n" if has_picture else ""
    )
    facts = "\n".join(f"| {what} | {value} |" for what, value in rows.items())
    return f"""---
license: apache-2.0
library_name: hrm
tags: [hrm, recursive-reasoning, {task}]
---
# {name}

A model of {weights:,} weights for {task} {shape}, which thinks in loops. {opening}

    hrm solve {typed or name} PUZZLE --trace

{picture}| | |
| --- | --- |
{facts}
{ending}"""


def _evaluation(checkpoint: Path) -> str:
    """The last evaluation of the checkpoint's run, as a section; empty where there is none."""
    try:
        found = last_of(read_records(checkpoint.parent / METRICS_FILE), "eval")
    except UserError:
        return ""
    if not found:
        return ""
    lines = (
        f"| {key.removeprefix('eval/')} | {value:.4g} |"
        for key, value in found.items()
        if key.startswith("eval/")
    )
    table = "\n".join(lines)
    title = f"Last evaluation of its run, step {found['step']:,.0f}:"
    return f"\n{title}\n\n| | |\n| --- | --- |\n{table}\n"
