"""What the identifiers of a data set are called."""

import json
from pathlib import Path

from hrm.data.format import IDENTIFIERS_FILE
from hrm.errors import UserError, one_line


def read_names(data_path: Path) -> list[str]:
    """Names by identifier, of `identifiers.json`.

    Raises:
        UserError: it is missing or damaged.
    """
    path = data_path / IDENTIFIERS_FILE
    try:
        names = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: not found, and puzzles are known by the names in it") from None
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({one_line(error)})") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: is no list of names; build the data set again")
    return names
