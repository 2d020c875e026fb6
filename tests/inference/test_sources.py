"""Puzzles of a file, one a line or drawn over several, as people write them.

`tests/fixtures/drawn_grids.json` is read here, and pasted into the page in `tests/web`.
"""

import json
from typing import Any

import numpy as np
import pytest

from hrm.errors import UserError
from hrm.inference.sources import from_lines
from hrm.tasks import PuzzleError, Task, task_of

from ..conftest import ROOT
from .test_solver import metadata

DRAWN = json.loads((ROOT / "tests/fixtures/drawn_grids.json").read_text(encoding="utf-8"))
READ = [case for case in DRAWN if isinstance(case["expected"], str)]
REFUSED = [case for case in DRAWN if case not in READ]
ROWS = ("12..", "..34", "34..", "..12")


def task_of_case(case: dict[str, Any]) -> Task:
    return task_of(metadata(**case["metadata"]))


def tokens(task: Task, cells: str) -> np.ndarray:
    return np.array([task.symbols.index(cell) for cell in cells])


def lines_of(text: str) -> list[str]:
    """The lines as an open file gives them."""
    return text.splitlines(keepends=True)


@pytest.mark.parametrize("case", READ, ids=lambda case: case["name"])
def test_a_drawn_grid_is_read(case):
    task = task_of_case(case)
    [puzzle] = from_lines(lines_of(case["text"]), "grid.txt", task)
    for read in (puzzle.inputs, task.read(case["text"])):
        np.testing.assert_array_equal(read, tokens(task, case["expected"]))
    assert puzzle.answer is None and puzzle.place.startswith("grid.txt:")


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_what_is_no_grid_is_refused_for_its_reason(case):
    task, expected = task_of_case(case), case["expected"]
    with pytest.raises(PuzzleError) as alone:
        task.read(case["text"])
    assert alone.value.reason == expected["reason"]
    assert alone.value.cell == expected.get("cell")
    with pytest.raises(PuzzleError, match="^grid.txt:") as in_file:
        from_lines(lines_of(case["text"]), "grid.txt", task)
    assert in_file.value.reason == expected.get("in_file", expected["reason"])


@pytest.mark.parametrize("case", READ, ids=lambda case: case["name"])
def test_several_grids_in_one_file(case):
    task = task_of_case(case)
    text = case["text"].rstrip("\r\n")
    puzzles = from_lines(lines_of(f"{text}\n\n{text}\n{text}"), "grids.txt", task)
    assert len(puzzles) == 3
    for puzzle in puzzles:
        np.testing.assert_array_equal(puzzle.inputs, tokens(task, case["expected"]))
    assert len({puzzle.place for puzzle in puzzles}) == 3


def test_grids_and_lines_may_be_mixed_and_name_their_first_line():
    task = task_of(metadata())
    lines = ["." * 16, *ROWS, "", "+--+--+", *ROWS, "+--+--+", "1" + "." * 15]
    puzzles = from_lines(lines, "mixed", task)
    assert [puzzle.place for puzzle in puzzles] == ["mixed:1", "mixed:2", "mixed:8", "mixed:13"]
    np.testing.assert_array_equal(puzzles[2].inputs, tokens(task, "".join(ROWS)))


def test_a_grid_that_ends_early_is_refused_where_it_began():
    task = task_of(metadata())
    for lines in (["", *ROWS[:3]], ["", *ROWS[:3], "", *ROWS]):
        with pytest.raises(PuzzleError, match="^f:2: 12 characters, expected 16"):
            from_lines(lines, "f", task)


@pytest.mark.parametrize("lines", [[], ["", "\n"], ["+--+--+", "", "│   │"]])
def test_a_file_without_a_puzzle_is_refused(lines):
    with pytest.raises(UserError, match="f: holds no puzzle"):
        from_lines(lines, "f", task_of(metadata()))
