"""What a data set says of its test tasks: their pairs, and which version each identifier is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hrm.data.format import IDENTIFIERS_FILE
from hrm.errors import UserError, one_line
from hrm.tasks.arc.crop import content
from hrm.tasks.arc.encoding import SIDE
from hrm.tasks.arc.puzzles import KNOWN, NO_ANSWER, TEST_PUZZLES_FILE
from hrm.tasks.arc.versions import COLOURS, SEPARATOR, Version

NO_SOLUTION = content(NO_ANSWER)


class Pair(NamedTuple):
    """A test pair; grids as `content` makes them."""

    question: bytes
    solution: bytes | None  # None where it is not known


def read_test_puzzles(data_path: Path) -> dict[str, list[Pair]]:
    """The test pairs of every test task, in the order of `test_puzzles.json`.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = data_path / TEST_PUZZLES_FILE
    puzzles = _read(path)
    if not isinstance(puzzles, dict) or not puzzles:
        raise UserError(f"{path}: holds no tasks by name; build the data set again")
    return {name: _pairs(puzzle, f"{path}: task {name}") for name, puzzle in puzzles.items()}


def _pairs(puzzle: Any, place: str) -> list[Pair]:
    pairs = puzzle.get("test") if isinstance(puzzle, dict) else None
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise UserError(f"{place}: has no list of test pairs; build the data set again")
    return [_pair(pair, f"{place}, test pair {n}") for n, pair in enumerate(pairs)]


def _pair(pair: Mapping[str, Any], place: str) -> Pair:
    question = _content(pair.get("input"), f"{place}, input")
    if pair.get("output") is None:
        return Pair(question, None)
    solution = _content(pair["output"], f"{place}, output")
    is_known = solution != NO_SOLUTION or pair.get(KNOWN) is True
    return Pair(question, solution if is_known else None)


def _content(grid: Any, place: str) -> bytes:
    """A grid as read, as bytes."""
    rows = grid if isinstance(grid, list) else []
    columns = {len(row) if isinstance(row, list) else 0 for row in rows}
    fits = 0 < len(rows) <= SIDE and len(columns) == 1 and 0 < max(columns) <= SIDE
    if not fits or not all(type(c) is int and 0 <= c < COLOURS for row in rows for c in row):
        raise UserError(
            f"{place}: not a grid of 1 to {SIDE} equal rows of 1 to {SIDE} colours 0 to "
            f"{COLOURS - 1}; build the data set again"
        )
    return content(np.array(rows, np.uint8))


class Names:
    """Which version of which test task each identifier is.

    `tasks`, [identifiers] int32, is the number of the test task, -1 where it is none, as for the
    blank.
    """

    def __init__(self, data_path: Path, tasks: Mapping[str, int]):
        """
        Args:
            tasks: the number of each test task by its name.

        Raises:
            UserError: `identifiers.json` is missing or damaged, or a name is no version of its
                task.
        """
        self.path = data_path / IDENTIFIERS_FILE
        names = _read(self.path)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{self.path}: is no list of names; build the data set again")
        self.tasks = np.full(len(names), -1, np.int32)
        self._transforms = np.zeros(len(names), np.uint8)
        self._colours = np.zeros((len(names), COLOURS), np.uint8)
        for number, name in enumerate(names):
            if name.partition(SEPARATOR)[0] not in tasks:
                continue
            try:
                task, version = Version.parse(name)
            except ValueError:
                raise UserError(
                    f"{self.path}: entry {number}, {name!r}, is not the name of a version; build "
                    "the data set again"
                ) from None
            self.tasks[number] = tasks.get(task, -1)
            self._transforms[number], self._colours[number] = version

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, identifier: int) -> Version:
        """The version of its task that an identifier is."""
        transform, colours = self._transforms[identifier], self._colours[identifier]
        return Version(int(transform), tuple(colours.tolist()))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path}: not found, and ARC's evaluation needs it; build the data set again, or "
            'let its dataset.json files say "task": "grids" to go without'
        ) from None
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({one_line(error)}); build the data set again"
        ) from None
