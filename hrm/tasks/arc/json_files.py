"""Reading ARC tasks from JSON files, every grid checked.

Two forms are read. *Combined* files hold a subset each: `X_<subset>_challenges.json` is {task:
{"train": [{"input", "output"}, …], "test": [{"input"}, …]}}, and `X_<subset>_solutions.json` {task:
[output of test 0, …]}. *Folders* hold one file a task, in the form of a challenge with outputs.
"""

import json
import reprlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrm.errors import UserError
from hrm.files import looked_in, not_a_folder
from hrm.tasks.arc.puzzles import BLANK_NAME, NO_ANSWER, PARTS, Pair, Puzzle, Subset
from hrm.tasks.arc.versions import COLOURS, SEPARATOR

MOST_BYTES = 32 * 2**20  # of a file; the largest that is published has 4 million
WHAT_A_GRID_IS = "a list of rows, each a list of colours 0 to 9"


def read_combined(prefix: Path, names: Sequence[str], side: int) -> list[Subset]:
    """The named subsets of combined files. Says on stderr where answers are missing.

    Args:
        prefix: what the path of every file begins with.
        side: rows and columns that a grid has at most.

    Raises:
        UserError: a file is missing, or something in it is wrong; names file, task and grid.
    """
    return [_read_subset(prefix, name, side) for name in names]


def read_folders(folders: Sequence[Path], names: Sequence[str], side: int) -> list[Subset]:
    """Subsets of files of one task each, tasks in the order of their names.

    A folder that holds such files is a subset; else each folder in it is one.

    Args:
        names: which subsets, in which order; none: all.

    Raises:
        UserError: as `read_combined`, or a folder is missing.
    """
    found: dict[str, list[Path]] = {}
    for folder, files in _subset_folders(folders):
        if folder.name in found:
            other = found[folder.name][0].parent
            raise UserError(f"{folder}: {other} is a subset of the same name; rename one of them")
        found[folder.name] = files
    if missing := [name for name in names if name not in found]:
        raise UserError(f"--subsets {missing[0]}: no such folder; there are {', '.join(found)}")
    return [
        _checked(name, [_read_puzzle(file.stem, _load(file), file, side) for file in found[name]])
        for name in names or found
    ]


def read_tasks(path: Path, side: int) -> list[Puzzle]:
    """The tasks of a file: of one task, which has the file's name, or of several by their names.

    Args:
        side: rows and columns that a grid has at most.

    Raises:
        UserError: as `read_combined`.
    """
    value = _load(path)
    if isinstance(value, dict) and value and not value.keys() & set(PARTS):
        return [_read_puzzle(name, task, path, side) for name, task in value.items()]
    return [_read_puzzle(path.stem, value, path, side)]


def _read_subset(prefix: Path, name: str, side: int) -> Subset:
    path, answers_path = (
        prefix.parent / f"{prefix.name}_{name}_{kind}.json" for kind in ("challenges", "solutions")
    )
    if not path.exists():
        raise UserError(f"{path}: not found{looked_in(path)}; {_known_subsets(prefix)}")
    tasks = _load_tasks(path)
    answers = _load_tasks(answers_path) if answers_path.exists() else None
    puzzles = []
    for task, value in tasks.items():
        grids = None if answers is None else _read_answers(answers, task, answers_path, side)
        puzzles.append(_read_puzzle(task, value, path, side, grids))
    return _checked(name, puzzles)


def _known_subsets(prefix: Path) -> str:
    start, end = f"{prefix.name}_", "_challenges.json"
    known = [path.name[len(start) : -len(end)] for path in prefix.parent.glob(f"{start}*{end}")]
    if known:
        return f"--subsets can be {', '.join(sorted(known))}"
    return f"--input-file-prefix is what {start}<subset>{end} begins with, its folder included"


def _subset_folders(folders: Sequence[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Folders that hold JSON files, and these."""
    for folder in folders:
        if not folder.is_dir():
            found = not_a_folder(folder, "its folder") if folder.exists() else "no such folder"
            raise UserError(f"--dataset-dirs {folder}: {found}{looked_in(folder)}")
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        subsets = [(place, files) for place in (folder, *inner) if (files := _json_files(place))]
        if not subsets:
            raise UserError(f"--dataset-dirs {folder}: no .json file is in it or in its folders")
        yield from subsets[:1] if subsets[0][0] == folder else subsets


def _json_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"), key=lambda path: path.stem)


def _checked(name: str, puzzles: list[Puzzle]) -> Subset:
    """The subset; says how many of its answers are not known."""
    unknown = sum(y is NO_ANSWER for puzzle in puzzles for _, y in puzzle.pairs["test"])
    if unknown:
        plural = "pairs have" if unknown > 1 else "pair has"
        answer = f"which is taken to be {NO_ANSWER.tolist()}"
        print(f"note: subset {name}: {unknown} test {plural} no output, {answer}", file=sys.stderr)
    return Subset(name, puzzles)


# ---- JSON ----


class _Repeated(ValueError):
    """A key that stands twice in an object."""


def _load_tasks(path: Path) -> dict[str, Any]:
    tasks = _load(path)
    if not isinstance(tasks, dict) or not tasks:
        raise UserError(f"{path}: must be an object of tasks by name, and hold at least one")
    return tasks


def _load(path: Path) -> Any:
    """The value in a JSON file; raises `UserError`."""
    if not path.is_file():
        raise UserError(f"{path}: is no file")
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            limit = f"more than the {MOST_BYTES:,} that are read; is this a file of ARC tasks?"
            raise UserError(f"{path}: {size:,} bytes, {limit}")
        return json.loads(path.read_bytes(), object_pairs_hook=_without_repeats)
    except UserError:
        raise
    except _Repeated as error:
        raise UserError(f"{path}: the key {error.args[0]} stands twice; delete one") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _without_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in items:
        if name in values:
            raise _Repeated(reprlib.repr(name))
        values[name] = value
    return values


# ---- tasks ----


def _read_answers(answers: dict[str, Any], task: str, path: Path, side: int) -> list[np.ndarray]:
    place = f"{path}: task {reprlib.repr(task)}"
    if task not in answers:
        raise UserError(f"{place}: is missing here, and is among the challenges")
    if not isinstance(grids := answers[task], list):
        raise UserError(f"{place}: must be a list of grids, one for each test pair")
    return [_read_grid(grid, f"{place}[{n}]", side) for n, grid in enumerate(grids)]


def _read_puzzle(
    name: str, value: Any, path: Path, side: int, answers: list[np.ndarray] | None = None
) -> Puzzle:
    """A task as a challenge has it.

    Args:
        answers: outputs of its test pairs; None: they stand in the pairs, where they are known.
    """
    place = f"{path}: task {reprlib.repr(name)}"
    if SEPARATOR in name or name in ("", BLANK_NAME):
        reason = f"{SEPARATOR} is for names of versions" if SEPARATOR in name else "no name"
        raise UserError(f"{place}: {reason}; rename the task")
    if not isinstance(value, dict) or not value.keys() >= set(PARTS):
        raise UserError(f"{place}: must be an object with train and test")
    pairs: dict[str, list[Pair]] = {}
    for part in value:
        if part not in PARTS:
            continue
        listed = value[part]
        if not isinstance(listed, list) or not listed:
            raise UserError(f"{place}, {part}: must be a list of pairs, at least one")
        if part == "test" and answers is not None and len(answers) != len(listed):
            counts = f"{len(listed)} test pairs, but {len(answers)} solutions"
            raise UserError(f"{place}: has {counts}")
        pairs[part] = [
            _read_pair(
                pair,
                f"{place}, {part}[{n}]",
                side,
                answers[n] if part == "test" and answers is not None else None,
                may_lack_output=part == "test",
            )
            for n, pair in enumerate(listed)
        ]
    return Puzzle(name, pairs)


def _read_pair(
    pair: Any, place: str, side: int, answer: np.ndarray | None, may_lack_output: bool
) -> Pair:
    if not isinstance(pair, dict) or "input" not in pair:
        raise UserError(f"{place}: must be an object with input and output")
    if answer is None:
        if "output" in pair:
            answer = _read_grid(pair["output"], f"{place}.output", side)
        elif may_lack_output:
            answer = NO_ANSWER
        else:
            raise UserError(f"{place}: has no output")
    return _read_grid(pair["input"], f"{place}.input", side), answer


def _read_grid(rows: Any, place: str, side: int) -> np.ndarray:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise UserError(f"{place}: must be {WHAT_A_GRID_IS}")
    if not rows or not rows[0]:
        raise UserError(f"{place}: is empty")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise UserError(f"{place}: row {number} has {len(row)} cells, row 0 has {len(rows[0])}")
    if max(len(rows), len(rows[0])) > side:
        raise UserError(f"{place}: has {len(rows)}x{len(rows[0])} cells, at most {side}x{side} fit")
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            if type(cell) is not int or not 0 <= cell < COLOURS:
                where = f"row {number}, column {column}"
                raise UserError(f"{place}: {reprlib.repr(cell)} in {where} is no colour 0 to 9")
    return np.array(rows, np.uint8)
