"""How checkpoints lie on disk: their files' names, and the folders of a run.

    model.safetensors   weights, names as published
    ema.safetensors     their running average, where the run keeps one
    all_config.yaml     the run's configuration
    dataset.json        metadata of the training set; gives vocabulary, length and table size
    source/             model source files that made it
    training.safetensors  training.json   all else that resuming needs (`hrm.checkpoint.training`)
    training-<rank>.safetensors   what each further rank adds to it
    manifest.json       size and SHA-256 of the files above
    README.md           model card of an exported checkpoint, which lacks source/ and what resumes
    thinking.gif        its picture, where there is one
    test/               a few test examples beside an exported checkpoint, and the data set's
    identifiers.json    names of its puzzles, where the model knows puzzles by name
    predictions.safetensors   where evaluation was asked to save its outputs
    evaluator_<name>_step_<n>/   what an evaluator of the task has left, such as ARC's submission

The original's checkpoints (a single `torch.save` file `step_<n>` with `all_config.yaml` beside it)
are read as well.
"""

import re
import shutil
from pathlib import Path, PurePath

CONFIG_FILE = "all_config.yaml"
WEIGHTS_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
PREDICTIONS_FILE = "predictions.safetensors"
SOURCE_DIR = "source"
TRAINING_FILE = "training.safetensors"
RECORD_FILE = "training.json"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
CARD_PICTURE_FILE = "thinking.gif"
STEP_NAME = re.compile(r"step_(0|[1-9]\d{0,17})")


def training_file(rank: int) -> str:
    """The name of what a rank adds to a checkpoint."""
    return TRAINING_FILE if rank == 0 else f"training-{rank}.safetensors"


def folder_of(checkpoint: Path) -> Path:
    """Where the files of a checkpoint lie: itself, or the folder of one that is a single file."""
    return checkpoint if checkpoint.is_dir() else checkpoint.parent


def step_of(checkpoint: PurePath) -> int | None:
    """The training step that a checkpoint's name says."""
    found = STEP_NAME.fullmatch(checkpoint.name)
    return int(found[1]) if found else None


def step_dir(run_dir: Path, step: int) -> Path:
    return run_dir / f"step_{step}"


def saved_steps(run_dir: Path) -> list[int]:
    """Steps of the checkpoint folders in a run's folder, ascending."""
    return [step for step, path in numbered_steps(run_dir) if path.is_dir()]


def numbered_steps(run_dir: Path) -> list[tuple[int, Path]]:
    if not run_dir.is_dir():
        return []
    found = [(step_of(path), path) for path in run_dir.iterdir()]
    return sorted((step, path) for step, path in found if step is not None)


def remove_leftovers(run_dir: Path) -> None:
    """Delete what a killed process left of a checkpoint that it was writing or deleting."""
    for path in run_dir.glob(".step_*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def delete_checkpoint(run_dir: Path, step: int) -> None:
    """Remove a checkpoint so that it is either whole or gone."""
    doomed = run_dir / f".{step_dir(run_dir, step).name}-deleted"
    shutil.rmtree(doomed, ignore_errors=True)
    step_dir(run_dir, step).rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
