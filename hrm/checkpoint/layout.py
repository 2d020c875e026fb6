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
    test/               a few test examples beside an exported checkpoint, and the data set's
    identifiers.json    names of its puzzles, where the model knows puzzles by name
    predictions.safetensors   where evaluation was asked to save its outputs
    evaluator_<name>_step_<n>/   what an evaluator of the task has left, such as ARC's submission

The original's checkpoints (a single `torch.save` file `step_<n>` with `all_config.yaml` beside it)
are read as well.
"""

import re
import shutil
from pathlib import Path

import hrm
from hrm.data.format import METADATA_FILE
from hrm.errors import UserError
from hrm.files import is_archive, looked_in, not_a_folder

CONFIG_FILE = "all_config.yaml"
WEIGHTS_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
PREDICTIONS_FILE = "predictions.safetensors"
SOURCE_DIR = "source"
TRAINING_FILE = "training.safetensors"
RECORD_FILE = "training.json"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
TEST_SPLIT = "test"
SHIPPED = Path(hrm.__file__).parent / "shipped"
FIRST_SHIPPED = "sudoku-9x9"  # taken where no model is named, if it fits the puzzles
STEP_NAME = re.compile(r"step_(0|[1-9]\d{0,17})")


def shipped_models() -> dict[str, Path]:
    """Trained models that are part of the package, folders by name; the first is the default."""
    names = [path.parent.name for path in SHIPPED.glob(f"*/{WEIGHTS_FILE}")]
    in_order = sorted(names, key=lambda name: (name != FIRST_SHIPPED, name))
    return {name: SHIPPED / name for name in in_order}


def training_file(rank: int) -> str:
    """The name of what a rank adds to a checkpoint."""
    return TRAINING_FILE if rank == 0 else f"training-{rank}.safetensors"


def step_dir(run_dir: Path, step: int) -> Path:
    return run_dir / f"step_{step}"


def saved_steps(run_dir: Path) -> list[int]:
    """Steps of the checkpoint folders in a run's folder, ascending."""
    return [step for step, path in _numbered(run_dir) if path.is_dir()]


def _numbered(run_dir: Path) -> list[tuple[int, Path]]:
    if not run_dir.is_dir():
        return []
    found = [(STEP_NAME.fullmatch(path.name), path) for path in run_dir.iterdir()]
    return sorted((int(match[1]), path) for match, path in found if match)


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


def find_checkpoint(path: Path, key: str = "checkpoint") -> Path:
    """The checkpoint that `path` names: itself, the newest `step_<n>` of a run, or a shipped model.

    Raises:
        UserError: there is none.
    """
    if not path.exists():
        shipped = shipped_models()
        if str(path) in shipped:
            return shipped[str(path)]
        wanted = f"expected a step_<n> folder or file, a run, or one of {', '.join(shipped)}"
        raise UserError(f"{key}={path}: not found{looked_in(path)}; {wanted}")
    if is_archive(path):
        raise UserError(f"{key}={path}: {not_a_folder(path, 'the folder of a run')}")
    if path.is_file() and (path.parent / MANIFEST_FILE).is_file():
        raise UserError(f"{key}={path}: {not_a_folder(path, f'its folder, {path.parent}')}")
    if path.is_file() or (path / WEIGHTS_FILE).is_file():
        return path
    if not (numbered := _numbered(path)):
        way_out = _instead_of_checkpoint(path)
        raise UserError(f"{key}={path}: holds neither {WEIGHTS_FILE} nor step_<n>; {way_out}")
    return numbered[-1][1]


def _instead_of_checkpoint(folder: Path) -> str:
    """What a folder without checkpoints is, and what to name instead."""
    if (folder / CONFIG_FILE).is_file():
        return "this run has no checkpoint yet; wait for its first, or go on with resume=auto"
    inner = [path for path in sorted(folder.iterdir()) if _numbered(path)]
    if inner:
        return f"it holds runs; name one of them, such as {inner[0]}"
    if any(folder.glob(f"*/{METADATA_FILE}")):
        return "this is a data set; name the folder of a run"
    return "name the folder of a run, such as checkpoints/<project>/<run>"
