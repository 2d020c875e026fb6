"""DatasetWriter: names become identifiers, groups and puzzles; what does not fit is refused."""

import errno
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hrm.data import DatasetWriter
from hrm.data import writer as writer_module
from hrm.data.format import read_split
from hrm.errors import UserError

ONE, TWO = [[1, 2], [3, 4]], [[4, 3], [2, 1]]


def names(folder: Path) -> list[str]:
    return json.loads((folder / "identifiers.json").read_text())


def test_names_become_identifiers_puzzles_and_groups(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data") as writer:
        writer.add("g", "unseen", ONE, TWO, "test")
        writer.add("g", "b", ONE, TWO)
        writer.add("g", "b", TWO, ONE)  # the same puzzle
        writer.add("g", "a", ONE, [1, 2, 3, 4])
        writer.add("h", "b", ONE, TWO)  # another puzzle with the identity of the first
        writer.add(None, "a", ONE, TWO)
        writer.add(None, "a", ONE, TWO)  # not the same group, so not the same puzzle
        writer.add(7, None, ONE, TWO)
        writer.add(7, None, ONE, TWO)
        writer.add("t", "a", TWO, ONE, "test")
    metadata, sets = read_split(tmp_path / "data" / "train")
    arrays = sets["all"]
    assert names(tmp_path / "data") == ["b", "a"]  # as they came, in training
    assert arrays.puzzle_identifiers.tolist() == [0, 1, 0, 1, 1, -1, -1]
    assert arrays.puzzle_indices.tolist() == [0, 2, 3, 4, 5, 6, 7, 8]
    assert arrays.group_indices.tolist() == [0, 2, 3, 4, 5, 7]
    assert (metadata.grid_shape, metadata.box_shape) == ((2, 2), (2, 2))
    assert (metadata.vocab_size, metadata.ignore_label_id, metadata.task) == (5, None, "grids")
    _, tests = read_split(tmp_path / "data" / "test")
    assert tests["all"].puzzle_identifiers.tolist() == [-1, 1]
    assert tests["all"].inputs.tolist() == [[1, 2, 3, 4], [4, 3, 2, 1]]


def test_without_names_all_share_one_identity(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data") as writer:
        writer.add(None, None, ONE, TWO)
        writer.add(None, None, TWO, ONE)
        writer.add(None, "of the test split", ONE, TWO, "test")
    assert names(tmp_path / "data") == ["shared"]
    for split, count in (("train", 2), ("test", 1)):
        metadata, sets = read_split(tmp_path / "data" / split)
        assert metadata.num_puzzle_identifiers == 1 and metadata.unseen_identifier == 0
        assert sets["all"].puzzle_identifiers.tolist() == [0] * count


def test_one_name_alone_is_not_shared(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data") as writer:
        writer.add("g", "a", ONE, TWO)
        writer.add("g", None, TWO, ONE)
        writer.add("t", "b", TWO, ONE, "test")
    identifiers = [
        read_split(tmp_path / "data" / split)[1]["all"].puzzle_identifiers.tolist()
        for split in ("train", "test")
    ]
    assert identifiers == [[0, -1], [-1]]


def test_metadata_are_those_that_were_given(tmp_path: Path) -> None:
    known = {"grid_shape": (2, 3), "box_shape": (1, 3), "pad_id": 2, "ignore_label_id": 0}
    with DatasetWriter(tmp_path / "data", symbols="ab_c", task="mine", **known) as writer:
        writer.add(None, None, [0, 1, 2, 3, 0, 0], np.zeros((2, 3), np.int16))
    metadata, _ = read_split(tmp_path / "data" / "train")
    assert metadata.model_dump(include={*known, "symbols", "task", "vocab_size"}) == known | {
        "symbols": "ab_c",
        "task": "mine",
        "vocab_size": 4,
    }


GOOD = (None, None, ONE, TWO)


@pytest.mark.parametrize(
    "example, reason",
    [
        (("g", "p", ONE, [[1, 2]]), "group 'g', puzzle 'p': labels: shape [1, 2], expected [2, 2]"),
        (("g", None, [[1, 2], [3]], TWO), "inputs: rows differ in length"),
        (("g", None, [[1.0, 2], [3, 4]], TWO), "inputs: float64 of shape [2, 2]"),
        (("g", None, [[True, False]] * 2, TWO), "inputs: bool of shape"),
        (("g", None, [], TWO), "expected integers"),
        (("g", None, [[[1]]], TWO), "expected integers, a grid"),
        (("g", None, ONE, [[1, 2], [3, -1]]), "labels: token -1 is not in 0..4"),
        (("g", None, [[1, 2], [3, 5]], TWO), "inputs: token 5 is not in 0..4"),
        ((True, None, ONE, TWO), "the group's name must be"),
        (("g", 3, ONE, TWO), "the puzzle's name must be"),
        (("g", "p", ONE, TWO, "val"), "split 'val': must be train or test"),
        (("first", None, ONE, TWO), "this group comes again"),
        (("second", "p", ONE, TWO), "this puzzle comes again"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, example, reason):
    with (
        pytest.raises(UserError) as refused,
        DatasetWriter(tmp_path / "deep" / "data", vocab_size=5) as writer,
    ):
        writer.add("first", None, ONE, TWO)
        writer.add("second", "p", ONE, TWO)
        writer.add("second", "q", ONE, TWO)
        writer.add(*example)
    assert reason in str(refused.value) and str(refused.value).startswith("group ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "known, reason",
    [
        ({"vocab_size": 257}, "vocab_size=257"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": 3, "pad_id": 3}, "pad_id"),
        ({"symbols": "a\n"}, "symbols"),
        ({"grid_shape": (0, 3)}, "greater than 0"),
    ],
)
def test_what_is_wrong_from_the_beginning_is_refused_there(tmp_path, known, reason):
    with pytest.raises(UserError, match=reason):
        DatasetWriter(tmp_path / "data", **known)


def test_the_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    data = tmp_path / "data"
    with DatasetWriter(data) as writer:
        writer.add(*GOOD)
        assert not data.exists()
    before = (data / "train" / "all__inputs.npy").read_bytes()
    with pytest.raises(UserError, match="exists; delete it"), DatasetWriter(data):
        pass
    with pytest.raises(KeyboardInterrupt), DatasetWriter(data, overwrite=True) as writer:
        writer.add(None, None, TWO, ONE)
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="no training"), DatasetWriter(data, overwrite=True) as one:
        one.add(*GOOD, "test")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="the disk is full"):

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        patch.setattr(writer_module, "write_metadata", full)
        with DatasetWriter(data, overwrite=True) as writer:
            writer.add(None, None, TWO, ONE)
    assert (data / "train" / "all__inputs.npy").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    with DatasetWriter(data, overwrite=True) as writer:
        writer.add(None, None, TWO, ONE)
    assert (data / "train" / "all__inputs.npy").read_bytes() != before


def test_examples_are_added_within_the_block(tmp_path):
    writer = DatasetWriter(tmp_path / "data")
    for _ in range(2):
        with pytest.raises(UserError, match="within"):
            writer.add(*GOOD)
        if not (tmp_path / "data").exists():
            with writer:
                writer.add(*GOOD)


def test_memory_does_not_grow_with_the_examples(tmp_path):
    """Sixteen megabytes of tokens; a puzzle of many examples, and many puzzles."""
    tokens = np.ones((64, 64), np.uint8)
    tracemalloc.start()
    with DatasetWriter(tmp_path / "data") as writer:
        for number in range(2000):
            writer.add("g" if number < 1000 else None, "p", tokens, tokens)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4e6
