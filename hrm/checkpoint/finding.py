"""Which checkpoint a word means: a folder, a run, a model of the package, or one on the Hub.

On the Hub there are checkpoints as we export them, and the single files of published runs.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import hrm
from hrm.checkpoint.layout import (
    CONFIG_FILE,
    EMA_FILE,
    MANIFEST_FILE,
    RECORD_FILE,
    WEIGHTS_FILE,
    numbered_steps,
    step_of,
)
from hrm.data.format import IDENTIFIERS_FILE, METADATA_FILE, TEST_SPLIT
from hrm.errors import UserError
from hrm.files import is_archive, looked_in, not_a_folder
from hrm.hub import Repository, fetch, is_reference

SHIPPED = Path(hrm.__file__).parent / "shipped"
FIRST_SHIPPED = "sudoku-9x9"  # taken where no model is named, if it fits the puzzles
TAKEN = (
    *(WEIGHTS_FILE, EMA_FILE, CONFIG_FILE, METADATA_FILE, IDENTIFIERS_FILE),
    *(RECORD_FILE, MANIFEST_FILE),
)
PUBLISHED = (".pt", ".pth", ".ckpt")  # or step_<n>, or `checkpoint`, beside CONFIG_FILE


def shipped_models() -> dict[str, Path]:
    """Trained models that are part of the package, folders by name; the first is the default."""
    names = [path.parent.name for path in SHIPPED.glob(f"*/{WEIGHTS_FILE}")]
    in_order = sorted(names, key=lambda name: (name != FIRST_SHIPPED, name))
    return {name: SHIPPED / name for name in in_order}


def find_checkpoint(path: Path, key: str = "checkpoint") -> Path:
    """The checkpoint that `path` names: itself, the newest `step_<n>` of a run, or a shipped model.

    `hf://user/name` is downloaded, as of `download_checkpoint`.

    Raises:
        UserError: there is none.
    """
    if is_reference(path):
        return download_checkpoint(str(path), key)
    try:
        return _find_here(path, key)
    except OSError as error:  # no right to look, too long for a name, a device
        raise UserError(f"{key}={path}: cannot be read ({error.strerror})") from None


def _find_here(path: Path, key: str) -> Path:
    if not path.exists():
        shipped = shipped_models()
        if str(path) in shipped:
            return shipped[str(path)]
        known = ", ".join(shipped)
        wanted = f"expected a step_<n> folder or file, a run, hf://user/name, or one of {known}"
        raise UserError(f"{key}={path}: not found{looked_in(path)}; {wanted}")
    if is_archive(path):
        raise UserError(f"{key}={path}: {not_a_folder(path, 'the folder of a run')}")
    if path.is_file() and (path.parent / MANIFEST_FILE).is_file():
        raise UserError(f"{key}={path}: {not_a_folder(path, f'its folder, {path.parent}')}")
    if path.is_file() or (path / WEIGHTS_FILE).is_file():
        return path
    if not (steps := numbered_steps(path)):
        way_out = _instead(path)
        raise UserError(f"{key}={path}: holds neither {WEIGHTS_FILE} nor step_<n>; {way_out}")
    return steps[-1][1]


def _instead(folder: Path) -> str:
    """What a folder without checkpoints is, and what to name instead."""
    if (folder / CONFIG_FILE).is_file():
        return "this run has no checkpoint yet; wait for its first, or go on with resume=auto"
    inner = [path for path in sorted(folder.iterdir()) if numbered_steps(path)]
    if inner:
        return f"it holds runs; name one of them, such as {inner[0]}"
    if any(folder.glob(f"*/{METADATA_FILE}")):
        return "this is a data set; name the folder of a run"
    return "name the folder of a run, such as checkpoints/<project>/<run>"


def download_checkpoint(reference: str, key: str) -> Path:
    """The checkpoint that `hf://user/name[@revision][/place]` names, from the Hub or its cache.

    The place may be left out where there is one checkpoint only, or steps of one run.

    Args:
        key: what it was given for, for messages.

    Returns:
        A folder, or a published run's file.

    Raises:
        UserError: it is not there, there are several, or there is no connection.
    """
    repository = Repository.parse(reference)
    said = f"{key}={repository}"
    found = PurePosixPath()

    def choose(names: Sequence[str]) -> list[str]:
        nonlocal found
        found = _find(names, repository.place, said)
        if str(found) in names:
            return [str(found), str(found.parent / CONFIG_FILE)]
        examples = f"{found / TEST_SPLIT}/"
        taken = {str(found / file) for file in TAKEN}
        return [name for name in names if name in taken or name.startswith(examples)]

    way_out = "check the connection, or name a checkpoint on this machine"
    return fetch(repository, choose, said, way_out) / found


def _find(names: Sequence[str], place: str, said: str) -> PurePosixPath:
    """The folder or file of the one checkpoint, or of the newest of a run, at a place.

    Raises:
        UserError: there is none, or several.
    """
    paths = [PurePosixPath(name) for name in names]
    ours = {path.parent for path in paths if path.name == WEIGHTS_FILE}
    configured = {path.parent for path in paths if path.name == CONFIG_FILE} - ours
    files = {path for path in paths if path.parent in configured and _is_published(path)}
    root = PurePosixPath(place)
    found = sorted(path for path in ours | files if root in (path, *path.parents))
    if not found:
        is_there = any(root in (path, *path.parents) for path in paths)
        what = f"neither {WEIGHTS_FILE} nor step_<n> is in it" if is_there else "is not there"
        raise UserError(f"{said}: {what}; name a folder with a checkpoint")
    steps = {step: path for path in found if (step := step_of(path)) is not None}
    if len(found) > 1 and (len(steps) < len(found) or len({path.parent for path in found}) > 1):
        some = ", ".join(map(str, found[:3]))
        raise UserError(f"{said}: holds several checkpoints; name one of them, such as {some}")
    return steps[max(steps)] if steps else found[0]


def _is_published(path: PurePosixPath) -> bool:
    return step_of(path) is not None or path.name == "checkpoint" or path.suffix in PUBLISHED
