"""What is said where there is no data set: what lies there instead, and what to name."""

import os
import shlex
from pathlib import Path

from hrm.errors import UserError
from hrm.files import looked_in, not_a_folder

METADATA_FILE = "dataset.json"


def missing_split(data_path: Path, split: str) -> str:
    """Why a data set's split is not there, and the way out; one line."""
    build = f"hrm build sudoku --generate 2x2 --output-dir {shlex.quote(str(data_path))}"
    if not data_path.exists():
        reason = f"there is no {data_path}{looked_in(data_path)}; build a data set, e.g. {build}"
    elif not data_path.is_dir():
        reason = f"{data_path} {not_a_folder(data_path, 'the folder of a data set')}"
    elif (data_path / METADATA_FILE).is_file():
        reason = f"{data_path} is one split of a data set; name the folder above it"
    elif splits := [path.parent.name for path in sorted(data_path.glob(f"*/{METADATA_FILE}"))]:
        reason = f"this data set has no split {split!r}, only {', '.join(splits)}"
    elif inner := sorted(data_path.glob(f"*/*/{METADATA_FILE}")):
        names = dict.fromkeys(str(path.parents[1]) for path in inner)
        reason = f"{data_path} holds data sets; name one of them, such as {next(iter(names))}"
    elif (data_path / "train.csv").is_file():
        build = f"hrm build sudoku --source-dir {shlex.quote(str(data_path))}"
        reason = f"these are CSV files; build a data set of them: {build}"
    else:
        reason = f"this is no data set; build one first, e.g. {build}"
    return f"{data_path / split / METADATA_FILE}: not found; {reason}"


def training_data(data_path: Path, flag: str) -> Path:
    """The data set that a model was trained on, where it is still there.

    Args:
        flag: names another one.

    Raises:
        UserError: it is not.
    """
    if not os.path.exists(data_path):  # unlike that of Path, this never raises
        raise UserError(
            f"data_path={data_path}: the data of training are not there{looked_in(data_path)}; "
            f"run this in the folder where training ran, or name a data set by {flag}"
        )
    return data_path
