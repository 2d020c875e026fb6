"""ARC's questions asked in the versions that a model knows, and what their answers say."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.tasks import task_of
from hrm.tasks.arc.poll import ArcPolls
from hrm.tasks.arc.versions import Version
from hrm.tasks.arc.voting import Votes, ranked
from hrm.tasks.dihedral import dihedral

from .making import brute_force_crop, tokens_of
from .test_task import SMALL, metadata

QUESTION = np.array([[1, 2, 0], [0, 0, 3]], np.uint8)
TURNED = Version(1, (0, 5, 1, 2, 3, 4, 6, 7, 8, 9))
MIRRORED = Version(4, (0, 2, 1, 3, 4, 5, 6, 7, 8, 9))
VERSIONS = (Version(), TURNED, MIRRORED)
NAMES = [
    "<blank>",
    "other",
    "task",
    TURNED.name("task"),
    MIRRORED.name("other"),
    MIRRORED.name("task"),
]
TASK = task_of(metadata())


def poll_of(name: str = "task", most: int = 9, version: Version = VERSIONS[0]):
    inputs = tokens_of(version.apply(QUESTION)).astype(np.int32)
    return ArcPolls(NAMES, 30).of(name, inputs, most, "here")


def test_a_question_is_asked_in_the_versions_of_its_task():
    poll = poll_of()
    assert poll.identifiers.tolist() == [2, 3, 5] and poll.identifiers.dtype == np.int32
    expected = [tokens_of(version.apply(QUESTION)) for version in VERSIONS]
    assert poll.inputs.tolist() == np.array(expected).tolist()
    assert poll_of(most=2).identifiers.tolist() == [2, 3]


def test_a_version_is_asked_itself_first():
    poll = poll_of(TURNED.name("task"), version=TURNED)
    assert poll.identifiers.tolist() == [3, 2, 5]
    assert poll.inputs[0].tolist() == tokens_of(TURNED.apply(QUESTION)).tolist()
    assert poll.inputs[1].tolist() == tokens_of(QUESTION).tolist()


@pytest.mark.parametrize("shown", VERSIONS)
def test_answers_are_brought_back_and_counted(shown):
    right, wrong = np.array([[7, 1]], np.uint8), np.array([[7], [1]], np.uint8)
    name = "task" if shown == Version() else shown.name("task")
    poll = poll_of(name, version=shown)
    asked = [Version.parse(NAMES[number])[1] for number in poll.identifiers]
    given = [wrong, right, right]
    answers = np.stack([tokens_of(v.apply(answer)) for v, answer in zip(asked, given, strict=True)])
    first, second = poll.count(answers, [0.9, 0.25, 0.5])
    assert (first.votes, first.halt_probability, first.first) == (2, 0.375, 1)
    assert (second.votes, second.halt_probability, second.first) == (1, 0.9, 0)
    assert first.tokens.tolist() == tokens_of(shown.apply(right)).tolist()
    assert second.tokens.tolist() == tokens_of(shown.apply(wrong)).tolist()


@pytest.mark.parametrize("shown", VERSIONS)
def test_an_answer_is_brought_back_with_its_confidence(shown):
    name = "task" if shown == Version() else shown.name("task")
    poll = poll_of(name, version=shown)
    plain, sure = np.array([[1, 2, 3], [4, 5, 0]], np.uint8), np.arange(6.0).reshape(2, 3)
    for number, identifier in enumerate(poll.identifiers):
        version = Version.parse(NAMES[identifier])[1]
        turned = dihedral(sure, version.transform)
        canvas = np.full((30, 30), 9.0)
        canvas[: turned.shape[0], : turned.shape[1]] = turned
        tokens, confidence = poll.undo(number, tokens_of(version.apply(plain)), canvas.ravel())
        assert tokens.tolist() == tokens_of(shown.apply(plain)).tolist()
        expected = dihedral(sure, shown.transform)
        rows, columns = expected.shape
        assert confidence.reshape(30, 30)[:rows, :columns].tolist() == expected.tolist()
        assert confidence[-1] == sure.mean()
    empty, confidence = poll.undo(1, np.zeros(900, np.int64), np.full(900, 0.5))
    assert not empty.any() and (confidence == 0.5).all()


def test_an_answer_that_is_no_grid_can_win():
    [only] = poll_of().count(np.zeros((3, 900), np.int64), [0.5] * 3)
    assert not only.tokens.any() and only.votes == 3


def test_more_votes_come_first_then_the_surer_then_the_earlier():
    votes = {"late": [0.9], "twice": [0.1, 0.2], "sure": [0.95], "same": [0.9]}
    kept = {answer: Votes(sure) for answer, sure in votes.items()}
    assert ranked(kept) == ["twice", "sure", "late", "same"]


@pytest.mark.parametrize("name", ["unheard", "<blank>", TURNED.name("other"), ""])
def test_an_unknown_name_is_said_to_be(name):
    with pytest.raises(UserError, match=r"^here: the model does not know a task .*2 known: oth"):
        poll_of(name)


def test_a_question_elsewhere_on_its_canvas_has_no_versions():
    moved = np.roll(tokens_of(QUESTION).reshape(30, 30), 2, axis=1).ravel()
    with pytest.raises(UserError, match="here: is not at the top left"):
        ArcPolls(NAMES, 30).of("task", moved, 3, "here")


@given(st.data())
def test_what_is_around_an_answer_is_tidied_away(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    answers = rng.choice(12, (1, 900), p=[0.02, 0.03, *[0.095] * 10])
    tidy = TASK.tidied(answers, tokens_of(QUESTION)[None])
    grid = brute_force_crop(answers[0])
    if grid.size:
        assert tidy.tolist() == [tokens_of(grid).tolist()]
    else:
        assert not tidy.any()
    assert tidy.dtype == answers.dtype


def test_a_moved_answer_is_read_where_its_question_begins():
    def moved(grid: np.ndarray) -> np.ndarray:
        return np.roll(tokens_of(grid).reshape(30, 30), (4, 2), axis=(0, 1)).ravel()

    answer = np.array([[3], [4]], np.uint8)
    noisy = moved(answer)
    noisy[[0, 1, 899]] = 5
    assert TASK.tidied(noisy[None], moved(QUESTION)[None]).tolist() == [moved(answer).tolist()]
    assert TASK.tidied(noisy[None], tokens_of(QUESTION)[None])[0].tolist()[:2] == [5, 5]


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


ONE = {
    "train": [{"input": [[1]], "output": [[2]]}],
    "test": [{"input": [[3, 0]], "output": [[4], [0]]}, {"input": [[5]]}],
}


def test_a_file_holds_the_test_inputs_of_a_task_that_is_named_as_it(tmp_path):
    path = write(tmp_path / "abc.json", ONE)
    first, second = task_of(metadata(**SMALL)).read_file(path)
    assert [p.name for p in (first, second)] == ["abc", "abc"]
    assert [p.place for p in (first, second)] == [f"{path}: test[0]", f"{path}: test[1]"]
    assert first.inputs.reshape(8, 8)[:2, :3].tolist() == [[5, 2, 1], [1, 1, 0]]
    assert first.answer.reshape(8, 8)[:3, :2].tolist() == [[6, 1], [2, 1], [1, -100]]
    assert second.answer is None


def test_a_file_of_several_tasks_names_them(tmp_path):
    path = write(tmp_path / "all.json", {"x": ONE, "y": ONE})
    found = TASK.read_file(path)
    assert [p.name for p in found] == ["x", "x", "y", "y"]
    assert found[2].place == f"{path}: y, test[0]"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "task 'abc': must be an object with train and test"),
        ({}, "task 'abc': must be an object with train and test"),
        ({"train": ONE["train"]}, "task 'abc': must be an object with train and test"),
        (ONE | {"test": [{"input": [[1, 2], [3]]}]}, "test[0].input: row 1 has 1 cells, row 0 has"),
        (ONE | {"test": [{"input": [[10]]}]}, "10 in row 0, column 0 is no colour 0 to 9"),
        (ONE | {"test": [{"input": [[1] * 9]}]}, "has 1x9 cells, at most 8x8 fit"),
        (ONE | {"test": []}, "test: must be a list of pairs, at least one"),
    ],
)
def test_what_is_no_task_is_told_by_file_and_place(tmp_path, value, message):
    path = write(tmp_path / "abc.json", value)
    with pytest.raises(UserError) as error:
        task_of(metadata(**SMALL)).read_file(path)
    assert str(path) in str(error.value) and message in str(error.value)
