"""Whether a data set is that of training: compared by content, in every way that it can differ."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hrm.data.fit import ASSUMED, check_fits
from hrm.data.format import DatasetMetadata, read_metadata, write_metadata
from hrm.data.origin import Origin, compare_data, knows_identifiers, origin_of
from hrm.errors import UserError
from hrm.tasks.sudoku.builder import BuildOptions, build

METADATA = DatasetMetadata(
    pad_id=0,
    ignore_label_id=0,
    blank_identifier_id=-1,
    vocab_size=7,
    seq_len=36,
    num_puzzle_identifiers=1,
    total_groups=1,
    mean_puzzle_examples=1.0,
    sets=("train",),
    task="sudoku",
    grid_shape=(6, 6),
    box_shape=(2, 3),
    symbols=".123456",
)
OTHERS = {
    "task": "maze",
    "seq_len": 16,
    "vocab_size": 8,
    "grid_shape": (4, 9),
    "box_shape": (3, 2),
    "symbols": ".abcdef",
    "pad_id": 1,
}


def data_set(folder: Path, seed: int, **options) -> Path:
    sizes = {"num_train": 20, "num_test": 10, "num_aug": 1} | options
    build(BuildOptions(output_dir=folder, generate=(2, 2), seed=seed, **sizes))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return data_set(tmp_path_factory.mktemp("origin") / "trained", 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return data_set(tmp_path_factory.mktemp("origin") / "other", 1)


# ---- what a model assumes ----


@pytest.mark.parametrize("key", ASSUMED)
def test_what_differs_is_refused_with_both_values(key):
    changed = {key: OTHERS[key]} | ({"grid_shape": (4, 4)} if key == "seq_len" else {})
    given = METADATA.model_copy(update=changed)
    with pytest.raises(UserError) as error:
        check_fits(METADATA, given, "data_path=d")
    for value in (OTHERS[key], getattr(METADATA, key)):
        shown = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert shown in str(error.value)
    assert str(error.value).startswith(f"data_path=d: {key} is ")


def test_what_one_side_does_not_say_is_not_compared():
    foreign = dict.fromkeys(("task", "grid_shape", "box_shape", "symbols"))
    for given in (METADATA, METADATA.model_copy(update=foreign)):
        check_fits(METADATA, given, "")
        check_fits(given, METADATA, "")
    assert ASSUMED.keys() == OTHERS.keys()


# ---- which data it was ----


def test_the_training_data_are_known_by_their_content(trained, tmp_path):
    moved = shutil.copytree(trained, tmp_path / "moved")
    assert origin_of(moved) == origin_of(trained)
    meeting = compare_data(origin_of(trained), trained, moved, "test")
    assert (meeting.knows_identifiers, meeting.seen, meeting.note) == (True, None, None)


def test_rebuilt_data_may_hold_former_training_puzzles(trained, other, tmp_path):
    before, path = origin_of(trained), tmp_path / "data"
    shutil.copytree(other, path)
    meeting = compare_data(before, path, path, "test")
    after = origin_of(path)
    assert before.data and after.data and meeting.seen and not meeting.knows_identifiers
    assert f"fingerprint {after.data[:8]}, not {before.data[:8]}" in meeting.seen


def test_puzzles_of_another_data_set_are_looked_for_in_the_training_data(trained, other, tmp_path):
    clean = compare_data(origin_of(trained), trained, other, "test")
    assert clean.seen is None and clean.note and "symmetric ones were not looked for" in clean.note
    mixed = shutil.copytree(other, tmp_path / "mixed")
    questions = mixed / "test/test__inputs.npy"
    rows = np.load(questions)
    rows[[2, 7]] = np.load(trained / "train/train__inputs.npy")[[0, 39]]
    np.save(questions, rows.astype(np.int64))
    leaking = compare_data(origin_of(trained), trained, mixed, "test")
    assert leaking.seen and "2 of 10 puzzles are in" in leaking.seen


def test_what_cannot_be_found_out_is_said(trained, other, tmp_path):
    gone = compare_data(origin_of(trained), tmp_path / "gone", other, "test")
    assert gone.seen is None and gone.note and "is not known" in gone.note
    only_test = shutil.copytree(trained, tmp_path / "only_test")
    shutil.rmtree(only_test / "train")
    meeting = compare_data(origin_of(trained), trained, only_test, "test")
    assert meeting.knows_identifiers and meeting.note and "no training split" in meeting.note
    nothing = compare_data(Origin(), trained, other, "test")
    assert (nothing.knows_identifiers, nothing.seen, nothing.note) == (True, None, None)


def test_paths_that_cannot_be_looked_at_are_no_data_set(trained):
    far = Path("x" * 300)
    assert origin_of(far) == Origin(None, None)
    assert compare_data(origin_of(trained), far, trained, "test").seen is None


def test_identifiers_are_compared_by_name(trained, other, tmp_path):
    known = origin_of(trained)
    assert knows_identifiers(known, trained) and not knows_identifiers(known, other)
    renamed = shutil.copytree(trained, tmp_path / "renamed")
    names = json.loads((renamed / "identifiers.json").read_text())
    (renamed / "identifiers.json").write_text(json.dumps(names[::-1]))
    assert not knows_identifiers(known, renamed)
    earlier = Origin(known.data)  # a checkpoint that does not record the names
    assert knows_identifiers(earlier, renamed) and not knows_identifiers(earlier, other)


def test_a_data_set_that_changes_is_read_again(trained, tmp_path):
    path = shutil.copytree(trained, tmp_path / "data")
    before = origin_of(path)
    metadata = read_metadata(path / "train")
    write_metadata(path / "train", metadata.model_copy(update={"task": None}))
    assert origin_of(path).data != before.data
