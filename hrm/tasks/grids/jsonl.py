"""Examples of JSON Lines: each line is checked before anything is made of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hrm.data.format import SPLITS
from hrm.errors import UserError
from hrm.progress import Progress
from hrm.tasks.csv_rows import LONGEST_LINE, bounded_lines, open_text
from hrm.tasks.grids.canvas import END_SYMBOL, MOST_SYMBOLS

GRIDS = ("input", "output")
NAMES = ("puzzle", "group")
KEYS = (*GRIDS, *NAMES, "split")
NUMBERS, CHARACTERS = np.dtype(np.uint8), np.dtype(np.uint32)  # dtype of a grid, by its kind
WAY_OUT = "correct or delete that line"


@dataclass(frozen=True)
class Example:
    """One line."""

    place: str  # file and line
    input: np.ndarray  # [rows, columns]: numbers as uint8, or characters as uint32 code points
    output: np.ndarray  # of the same kind; its size may differ
    puzzle: str | None = None
    group: str | None = None
    split: str | None = None


def read_examples(path: Path, progress: Progress) -> Iterator[Example]:
    """The examples of a file, line by line; blank lines are left out.

    Raises:
        UserError: a line is no example; names file and line.
    """
    with open_text(path) as text:
        for number, line in enumerate(bounded_lines(text), 1):
            if len(line) >= LONGEST_LINE:
                raise UserError(
                    f"{path}:{number}: longer than {LONGEST_LINE - 1:,} characters; write one "
                    "example a line"
                )
            if line.strip():
                yield parse_example(line, f"{path}:{number}")
            progress.update(len(line))


def parse_example(line: str, place: str) -> Example:
    """One line of JSON.

    Raises:
        UserError: it is no example; names the place.
    """
    try:
        return _example(_json(line), place)
    except _WrongError as error:
        raise UserError(f"{place}: {error}; {WAY_OUT}") from None


def as_grid(rows: Any) -> np.ndarray:
    """A grid that was read from JSON or made in Python.

    Args:
        rows: lists of whole numbers or of characters, strings, or an array of either.

    Returns:
        [rows, columns], uint8 numbers or uint32 code points of characters.

    Raises:
        ValueError: it is no such grid.
    """
    rows = rows.tolist() if isinstance(rows, np.ndarray) else rows
    if not isinstance(rows, list | tuple):
        raise _WrongError(f"is {_shown(rows)}, expected a list of rows")
    if not rows:
        raise _WrongError("has no rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list | tuple | str):
            raise _WrongError(f"row {number} is {_shown(row)}, expected a list or text")
        if len(row) != len(rows[0]):
            raise _WrongError(f"row {number} has {len(row)} cells, row 1 has {len(rows[0])}")
    if not rows[0]:
        raise _WrongError("has no cells")
    found = set(map(type, chain.from_iterable(rows)))
    if found == {int}:
        return _numbers(rows)
    if found == {str}:
        return _characters(rows)
    if found == {int, str}:
        raise _WrongError("mixes numbers and characters")
    wrong = next(cell for cell in chain.from_iterable(rows) if type(cell) not in (int, str))
    raise _WrongError(f"holds {_shown(wrong)}, expected whole numbers or characters")


class _WrongError(ValueError):
    """What is wrong with a line, without its place."""


def _json(line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        reason = error.msg[:1].lower() + error.msg[1:]
        raise _WrongError(f"no JSON ({reason}, column {error.colno})") from None
    except RecursionError:
        raise _WrongError("no example (nested too deeply)") from None
    except _WrongError:
        raise
    except ValueError as error:  # such as a number of a million digits
        raise _WrongError(f"cannot be read ({str(error)[:80]})") from None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _WrongError("a key stands twice")
    return values


def _example(values: Any, place: str) -> Example:
    if not isinstance(values, dict):
        raise _WrongError(f'is {_shown(values)}, expected one example, {{"input": …, "output": …}}')
    for key in values:
        if key not in KEYS:
            raise _WrongError(f"unknown key {key[:40]!r}; known here: {', '.join(KEYS)}")
    puzzle, group = (_name(values, key) for key in NAMES)
    split = values.get("split")
    if split is not None and split not in SPLITS:
        raise _WrongError(f"split is {_shown(split)}, expected train or test")
    grids = []
    for key in GRIDS:
        if key not in values:
            raise _WrongError(f"{key} is missing")
        try:
            grids.append(as_grid(values[key]))
        except _WrongError as error:
            raise _WrongError(f"{key} {error}") from None
    if grids[0].dtype != grids[1].dtype:
        kinds = [kind_of(grid) for grid in grids]
        raise _WrongError(f"input has {kinds[0]}, but output has {kinds[1]}")
    return Example(place, grids[0], grids[1], puzzle, group, split)


def _name(values: dict[str, Any], key: str) -> str | None:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise _WrongError(f"{key} is {_shown(value)}, expected a name")
    return None if value is None else str(value)


def kind_of(grid: np.ndarray) -> str:
    """What its cells are, in a word."""
    return "numbers" if grid.dtype == NUMBERS else "characters"


def _numbers(rows: Any) -> np.ndarray:
    cells = list(chain.from_iterable(rows))
    least, most = min(cells), max(cells)
    if least < 0:
        raise _WrongError(f"holds {_shown(least)}, expected numbers from 0 on")
    if most >= MOST_SYMBOLS:
        raise _WrongError(
            f"holds {_shown(most)}; numbers go from 0 to {MOST_SYMBOLS - 1}, since there are at "
            f"most {MOST_SYMBOLS} symbols"
        )
    return np.array(cells, NUMBERS).reshape(len(rows), -1)


def _characters(rows: Any) -> np.ndarray:
    cells = list(chain.from_iterable(rows))
    text = "".join(cells)
    if len(text) != len(cells) or "" in cells:
        wrong = next(cell for cell in cells if len(cell) != 1)
        raise _WrongError(f"holds {_shown(wrong)}, expected one character a cell")
    if not text.isprintable():
        wrong = next(c for c in text if not c.isprintable())
        raise _WrongError(f"holds {wrong!a}, which cannot be printed")
    if END_SYMBOL in text:
        raise _WrongError(f"holds {END_SYMBOL!r}, which marks where a grid ends; use another")
    return np.frombuffer(text.encode("utf-32-le"), CHARACTERS).reshape(len(rows), -1)


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**15 else "a huge number"
    kinds = {list: "a list", dict: "an object", type(None): "null", bool: str(value).lower()}
    return kinds.get(type(value)) or repr(value)[:40]
