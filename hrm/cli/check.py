"""`hrm check`: whether a data set is whole."""

import json
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from hrm.cli.options import SchemaCommand
from hrm.config import Config
from hrm.data.format import IDENTIFIERS_FILE, METADATA_FILE, has_checksums, read_split
from hrm.data.missing import missing_split
from hrm.errors import UserError, one_line, write_output

HELP = """
hrm check data/sudoku-4x4

Read all of a data set: checksums, indices, identifiers and every token.
Training and evaluation do so, too, but where there are more than 256 MiB of
tokens they check only those that they use.
"""


class CheckConfig(Config):
    """What to read."""

    folder: Path = Field(description="the data set")


def run(read: Callable[[], CheckConfig]) -> None:
    """Read every split, and say what it holds."""
    data_path = read().folder
    splits = sorted(path.parent for path in data_path.glob(f"*/{METADATA_FILE}"))
    if not splits:
        raise UserError(missing_split(data_path, "train"))
    names = count_names(data_path / IDENTIFIERS_FILE)
    for split_dir in splits:
        metadata, sets = read_split(split_dir, whole=True)
        if names is not None and names != metadata.num_puzzle_identifiers:
            raise UserError(
                f"{data_path / IDENTIFIERS_FILE}: {names:,} names, but {split_dir / METADATA_FILE} "
                f"has num_puzzle_identifiers={metadata.num_puzzle_identifiers:,}; build it again"
            )
        puzzles = sum(len(arrays.puzzle_identifiers) for arrays in sets.values())
        examples = sum(len(arrays.inputs) for arrays in sets.values())
        found = "checksums agree" if has_checksums(split_dir) else "no checksums, tokens in range"
        write_output(
            f"{split_dir}: {metadata.total_groups:,} groups, {puzzles:,} puzzles, {examples:,} "
            f"examples of {metadata.seq_len:,} tokens; {found}\n"
        )


def count_names(path: Path) -> int | None:
    """How many identifiers have a name; None where there is no such file.

    Raises:
        UserError: it is no list of names.
    """
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_bytes())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("no list of names")
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read ({one_line(error)}); build the data set again"
        ) from None
    return len(names)


command = SchemaCommand("check", CheckConfig, run, HELP, first="folder")
