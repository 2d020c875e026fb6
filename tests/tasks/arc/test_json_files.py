"""Damaged and mistaken files of ARC tasks: one line that names file, task and grid."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.tasks.arc import json_files
from hrm.tasks.arc.json_files import read_combined, read_folders
from hrm.tasks.arc.puzzles import NO_ANSWER, Subset

from ...mutations import BYTE_MUTATIONS, NASTY_VALUES, assert_one_line, pick
from .tasks import other_task, task, write_combined, write_folders

CASES = 400
CHALLENGES, SOLUTIONS = "arc_evaluation_challenges.json", "arc_evaluation_solutions.json"
TRAIN = "task 'a', train[0].input: "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_combined(tmp_path / "arc", evaluation={"a": task(2), "b": other_task()})
    return tmp_path


def read(folder: Path) -> Subset:
    return read_combined(folder / "arc", ["evaluation"], 30)[0]


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps(edit(values) or values))


def test_tasks_are_read_in_the_order_of_the_file(folder: Path, capsys) -> None:
    puzzles = read(folder).puzzles
    assert [puzzle.name for puzzle in puzzles] == ["a", "b"]
    assert [list(puzzle.pairs) for puzzle in puzzles] == [["train", "test"], ["test", "train"]]
    assert puzzles[0].plain() == task(2) and puzzles[1].plain() == other_task()
    assert capsys.readouterr().err == ""


def test_answers_that_are_not_known(folder: Path, capsys) -> None:
    (folder / SOLUTIONS).unlink()
    subset = read(folder)
    assert [y is NO_ANSWER for _, y in subset.puzzles[0].pairs["test"]] == [True, True]
    note = "note: subset evaluation: 3 test pairs have no output, which is taken to be [[0]]\n"
    assert capsys.readouterr().err == note


def test_answers_may_stand_in_the_challenges(folder: Path, capsys) -> None:
    (folder / CHALLENGES).write_text(json.dumps({"a": task(2)}))
    (folder / SOLUTIONS).unlink()
    assert read(folder).puzzles[0].plain() == task(2) and capsys.readouterr().err == ""


def test_folders_are_subsets(tmp_path: Path) -> None:
    root = write_folders(
        tmp_path / "raw", two={"b": task(), "a": task()}, one={"c": task() | {"name": "c"}}
    )
    (root / "two" / "LICENSE").write_text("")
    for folders, names, expected in (
        ([root], [], {"one": ["c"], "two": ["a", "b"]}),
        ([root], ["two"], {"two": ["a", "b"]}),
        ([root / "two", root / "one"], [], {"two": ["a", "b"], "one": ["c"]}),
    ):
        subsets = read_folders(folders, names, 30)
        assert {s.name: [p.name for p in s.puzzles] for s in subsets} == expected
        assert list(expected) == [s.name for s in subsets]


def set_grid(grid: Any) -> Callable[[Any], Any]:
    return lambda tasks: tasks["a"]["train"][0].update(input=grid)


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "ragged": (set_grid([[1, 2], [3]]), TRAIN + "row 1 has 1 cells, row 0 has 2"),
    "colour": (set_grid([[1, 2], [3, 10]]), TRAIN + "10 in row 1, column 1 is no colour 0 to 9"),
    "negative": (set_grid([[-1]]), TRAIN + "-1 in row 0, column 0"),
    "fraction": (set_grid([[1.0]]), TRAIN + "1.0 in row 0, column 0"),
    "text": (set_grid([["1"]]), TRAIN + "'1' in row 0, column 0"),
    "true": (set_grid([[True]]), TRAIN + "True in row 0, column 0"),
    "null": (set_grid([[None]]), TRAIN + "None in row 0, column 0"),
    "nothing": (set_grid([]), TRAIN + "is empty"),
    "no columns": (set_grid([[], []]), TRAIN + "is empty"),
    "no rows": (set_grid([1, 2]), TRAIN + "must be a list of rows"),
    "no grid": (set_grid("0"), TRAIN + "must be a list of rows"),
    "tall": (set_grid([[0]] * 31), TRAIN + "has 31x1 cells, at most 30x30 fit"),
    "wide": (set_grid([[0] * 31]), TRAIN + "has 1x31 cells, at most 30x30 fit"),
    "no pairs": (lambda t: t["a"].update(train=[]), "task 'a', train: must be a list of pairs"),
    "no test": (lambda t: t["a"].update(test=[]), "task 'a', test: must be a list of pairs"),
    "no list": (lambda t: t["a"].update(train={}), "task 'a', train: must be a list of pairs"),
    "no part": (lambda t: t["a"].pop("train") and t, "task 'a': must be an object with train"),
    "no pair": (lambda t: t["a"].update(train=[[]]), "train[0]: must be an object with input"),
    "no input": (lambda t: t["a"]["test"][1].clear(), "test[1]: must be an object with input"),
    "no output": (lambda t: t["a"]["train"][2].pop("output") and t, "train[2]: has no output"),
    "one task": (lambda t: t["a"], "task 'train': must be an object with train and test"),
    "a list": (lambda t: [t], "must be an object of tasks by name"),
    "no tasks": (lambda t: t.clear(), "must be an object of tasks by name, and hold at least one"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_where_it_is_wrong(folder: Path, name: str) -> None:
    edit, reason = WRONG[name]
    path = folder / CHALLENGES
    if name == "no tasks":
        path.write_text("{}")
    else:
        change(path, edit)
    if name == "one task":
        (folder / SOLUTIONS).unlink()
    with pytest.raises(UserError) as caught:
        read(folder)
    assert_one_line(caught.value, str(path), reason)


@pytest.mark.parametrize("name", ["a|||b", "", "<blank>"])
def test_names_that_cannot_be(folder: Path, name: str) -> None:
    for file in (CHALLENGES, SOLUTIONS):
        change(folder / file, lambda tasks: {name: tasks["a"]})
    with pytest.raises(UserError) as caught:
        read(folder)
    assert_one_line(caught.value, f"{folder / CHALLENGES}: task {name!r}: ", "rename the task")


WRONG_ANSWERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "missing": (lambda s: s.pop("b") and s, "task 'b': is missing here"),
    "no list": (lambda s: s.update(a=7), "task 'a': must be a list of grids"),
    "ragged": (lambda s: s["a"].__setitem__(1, [[1, 2], [3]]), "task 'a'[1]: row 1 has 1 cells"),
    "colour": (lambda s: s["a"].__setitem__(0, [[12]]), "task 'a'[0]: 12 in row 0, column 0"),
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_what_is_wrong_with_solutions(folder: Path, name: str) -> None:
    edit, reason = WRONG_ANSWERS[name]
    change(folder / SOLUTIONS, edit)
    with pytest.raises(UserError) as caught:
        read(folder)
    assert_one_line(caught.value, f"{folder / SOLUTIONS}: {reason}")


def test_solutions_of_another_number(folder: Path) -> None:
    change(folder / SOLUTIONS, lambda s: s["a"].pop() and s)
    with pytest.raises(UserError) as caught:
        read(folder)
    assert_one_line(caught.value, "task 'a': has 2 test pairs, but 1 solutions")


NO_JSON = {
    "empty": b"",
    "cut off": b'{"a": {"train": [',
    "text": b"tasks",
    "binary": bytes(range(256)),
    "deep": b"[" * 200_000,
    "a long number": b'{"a": ' + b"7" * 5000 + b"}",
    "twice": b'{"a": 1, "a": 2}',
    "NaN": b'{"a": NaN}',
}


@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_no_json(folder: Path, name: str) -> None:
    (folder / CHALLENGES).write_bytes(NO_JSON[name])
    with pytest.raises(UserError) as caught:
        read(folder)
    assert_one_line(caught.value, f"{folder / CHALLENGES}: ")
    if name == "twice":
        assert "the key 'a' stands twice" in str(caught.value)


def test_what_is_no_file_is_not_waited_for(folder: Path) -> None:
    (folder / CHALLENGES).unlink()
    os.mkfifo(folder / CHALLENGES)
    with pytest.raises(UserError, match="is no file"):
        read(folder)


def test_a_huge_file_is_not_read(folder: Path, monkeypatch) -> None:
    with (folder / CHALLENGES).open("wb") as file:
        file.truncate(json_files.MOST_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("was read"))
    with pytest.raises(UserError, match="33,554,433 bytes, more than the 33,554,432 that are read"):
        read(folder)


def assert_read_or_refused(folder: Path) -> bool:
    """Whether files are read; if not, in one line."""
    try:
        for puzzle in read(folder).puzzles:
            for grid in (grid for pair in puzzle.all_pairs for grid in pair):
                assert grid.dtype == np.uint8 and grid.max() <= 9 and 1 <= min(grid.shape)
                assert max(grid.shape) <= 30
    except UserError as error:
        assert_one_line(error, str(folder))
        return False
    return True


def test_files_with_any_damage_are_read_or_refused(folder: Path) -> None:
    rng = np.random.default_rng(0)
    files = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    refused = 0
    for _ in range(CASES):
        path = pick(rng, list(files))
        path.write_bytes(pick(rng, BYTE_MUTATIONS)(files[path], rng))
        refused += not assert_read_or_refused(folder)
        path.write_bytes(files[path])
    assert refused > CASES / 2


@pytest.mark.parametrize("file", [CHALLENGES, SOLUTIONS])
def test_nasty_values_anywhere_are_read_or_refused(folder: Path, file: str) -> None:
    rng = np.random.default_rng(1)
    text = (folder / file).read_text()
    refused = 0
    for _ in range(CASES):
        values = json.loads(text)
        place = values
        while True:  # down to anywhere
            key = pick(rng, list(place) if isinstance(place, dict) else range(len(place)))
            if rng.random() < 0.2 or not isinstance(place[key], dict | list) or not place[key]:
                break
            place = place[key]
        place[key] = pick(rng, NASTY_VALUES)
        (folder / file).write_text(json.dumps(values) if place[key] != 10**400 else text)
        refused += not assert_read_or_refused(folder)
    assert refused > CASES / 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["a", "train", "test", "input", "output"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values, json_values, st.booleans())
def test_any_json_is_read_or_refused(
    tmp_path_factory, values: Any, answers: Any, whole: bool
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    grids = {"a": {"train": [{"input": values, "output": [[1]]}], "test": [{"input": [[1]]}]}}
    (folder / CHALLENGES).write_text(json.dumps(values if whole else grids))
    (folder / SOLUTIONS).write_text(json.dumps(answers if whole else {"a": [answers]}))
    assert_read_or_refused(folder)
