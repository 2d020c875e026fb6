"""What lies in the roots is listed and read; what is damaged, odd or leads out of them is not."""

import errno
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from hrm.checkpoint import shipped_models
from hrm.checkpoint.finding import FIRST_SHIPPED
from hrm.data.format import METADATA_FILE, PuzzleArrays, array_path, read_metadata, write_metadata
from hrm.data.split import Group
from hrm.web import catalogue as module
from hrm.web.catalogue import LARGEST_CHUNK, Catalogue, Scan
from hrm.web.guard import Refused
from hrm.web.listing import Listing

from ..inference.test_batcher import eventually
from .serving import save_runs


@pytest.fixture
def roots(data_4x4, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Own roots of checkpoints and data; every look at them is a new scan."""
    monkeypatch.setattr(module, "SCAN_SECONDS", 1e-9)
    shutil.copytree(data_4x4, tmp_path / "data" / "sudoku")
    return save_runs(tmp_path / "checkpoints", tmp_path / "data" / "sudoku"), tmp_path / "data"


@pytest.fixture
def catalogue(roots) -> Catalogue:
    return Catalogue(*roots)


def refusal(call, *arguments: object) -> Refused:
    with pytest.raises(Refused) as refused:
        call(*arguments)
    return refused.value


def test_new_folders_show_and_the_newest_step_counts(roots, catalogue):
    runs, data = roots
    assert list(catalogue.checkpoints()) == ["tests/eager", "tests/patient"]
    shutil.copytree(runs / "tests/patient/step_7", runs / "tests/patient/step_10")
    shutil.copytree(runs / "tests/eager", runs / "deep/er/run")
    shutil.copytree(runs / "tests/eager", runs / "far/too/deep/run")
    names = ["tests/eager", "tests/patient", "tests/patient/step_7", "deep/er/run"]
    assert list(catalogue.checkpoints()) == names
    assert [catalogue.checkpoint(name).step for name in names[1:3]] == [10, 7]
    listed = Listing(catalogue).checkpoints().checkpoints
    assert [one.earlier_of for one in listed] == [None, None, "tests/patient", None]
    shutil.copytree(data / "sudoku", data / "more/sudoku")
    assert set(catalogue.datasets()) == {"more/sudoku", "sudoku"}
    names = {"deep/er/run", "tests/begun", "tests/eager", "tests/patient"}
    assert set(catalogue.runs()) == names


def test_examples_beside_a_checkpoint_are_its_data_where_there_are_no_others(roots):
    runs, data = roots
    shipped = shipped_models()
    alone = Catalogue(runs / "none", data / "none", shipped[FIRST_SHIPPED], shipped)
    assert set(alone.datasets()) == set(alone.checkpoints()) == set(shipped)
    assert all(alone.data_of(name, one) == name for name, one in alone.checkpoints().items())
    assert len(alone.split("maze-9x9", "test")) == 12
    both = Catalogue(runs, data, None, shipped)
    assert both.data_of("tests/eager", both.checkpoint("tests/eager")) == "sudoku"
    shutil.copytree(data / "sudoku", data / "maze-9x9")  # a data set of that name comes first
    assert len(both.split("maze-9x9", "test")) == 40
    assert both.data_of("maze-9x9", both.checkpoint("maze-9x9")) is None


def test_examples_that_lead_out_of_the_root_are_not_listed(roots, catalogue):
    runs, data = roots
    step = runs / "tests/eager/step_7"
    shutil.copytree(data / "sudoku/test", step / "test")
    assert "tests/eager" in catalogue.datasets()
    inputs = array_path(step / "test", "test", "inputs")
    inputs.unlink()
    inputs.symlink_to(array_path(data / "sudoku/test", "test", "inputs"))
    assert "tests/eager" not in catalogue.datasets()


def test_a_known_checkpoint_waits_for_no_scan(roots, catalogue, monkeypatch):
    assert catalogue.known_checkpoint("tests/patient") is None
    facts = catalogue.checkpoint("tests/patient")
    monkeypatch.setattr(module, "SCAN_SECONDS", 3600)
    assert catalogue.known_checkpoint("tests/patient") is facts
    assert catalogue.known_checkpoint("tests/none") is None


def test_another_look_begins_beside_where_the_last_one_is_old(monkeypatch):
    looks, begin = [], threading.Event()

    def look() -> int:
        looks.append(len(looks))
        if looks[-1]:
            assert begin.wait(60)
        return looks[-1]

    scan = Scan(look)
    monkeypatch.setattr(module, "SCAN_SECONDS", 3600)
    assert scan.last() is None
    assert scan.get() == scan.last() == 0
    scan._took = 3600.0
    monkeypatch.setattr(module, "SCAN_SECONDS", 0)
    assert scan.last() == 0
    eventually(lambda: len(looks) == 2)
    assert [scan.last() for _ in range(100)] == [0] * 100
    monkeypatch.setattr(module, "SCAN_SECONDS", 3600)
    begin.set()
    eventually(lambda: scan.last() == 1)
    assert looks == [0, 1]
    monkeypatch.setattr(module, "SCAN_SECONDS", 0)
    scan._took = 0.0
    assert scan.last() is None  # it is of long ago


def test_missing_and_empty_roots_are_empty(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        empty = Catalogue(root, root)
        assert empty.checkpoints() == empty.datasets() == empty.runs() == {}
        assert empty.default_id is None


@pytest.mark.parametrize("name", ["all_config.yaml", METADATA_FILE])
@pytest.mark.parametrize("content", [b"", b"\xff\0", b"[", b"[]", None])
def test_damaged_checkpoints_are_left_out(roots, catalogue, name, content):
    path = roots[0] / "tests/patient/step_7" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert list(catalogue.checkpoints()) == ["tests/eager"]
    assert refusal(catalogue.checkpoint, "tests/patient").status == 404


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x93NUMPY\x01\0\xff\xff{"])
@pytest.mark.parametrize("array", ["inputs", "labels", "group_indices"])
def test_damaged_data_sets_are_left_out_or_told(roots, catalogue, array, content):
    folder = roots[1] / "sudoku/test"
    array_path(folder, "test", array).write_bytes(content)
    size = catalogue.size_of(folder)
    assert (size is None) == (array == "inputs")
    told = refusal(catalogue.split, "sudoku", "test")
    assert told.status == 422 and "damaged" in told.message
    assert catalogue.split("sudoku", "train").metadata.total_groups == 100


def test_odd_shapes_of_arrays_are_told(roots, catalogue):
    folder = roots[1] / "sudoku/test"
    np.save(array_path(folder, "test", "inputs"), np.array(3))
    assert catalogue.size_of(folder) is None
    assert refusal(catalogue.split, "sudoku", "test").status == 422


def test_a_checkpoint_that_vanishes_meanwhile_is_left_out(roots, catalogue, monkeypatch):
    gone = [8, 9]
    monkeypatch.setattr(module, "saved_steps", lambda folder: [7, *gone])
    assert catalogue.checkpoint("tests/patient").step == 7


def test_a_folder_that_may_not_be_read_hides_no_other(roots, catalogue, monkeypatch):
    runs, _ = roots
    (runs / "lost+found").mkdir()
    is_file, looked = Path.is_file, Path.iterdir

    def refused(act):
        def acting(path):
            if "lost+found" in str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return act(path)

        return acting

    monkeypatch.setattr(Path, "is_file", refused(is_file))
    monkeypatch.setattr(Path, "iterdir", refused(looked))
    assert list(catalogue.checkpoints()) == ["tests/eager", "tests/patient"]
    assert set(catalogue.runs()) == {"tests/begun", "tests/eager", "tests/patient"}


def test_vocabularies_that_cannot_be_sent_are_left_out(roots, catalogue):
    """All symbols of the largest one would take 2 GB."""
    runs, data = roots
    for folder in (runs / "tests/patient/step_7", data / "sudoku/test"):
        metadata = read_metadata(folder).model_copy(update={"vocab_size": 2**31 - 1})
        write_metadata(folder, metadata)
    assert list(catalogue.checkpoints()) == ["tests/eager"]
    assert catalogue.size_of(data / "sudoku/test") is None
    assert refusal(catalogue.split, "sudoku", "test").status == 422


def test_links_that_lead_out_are_neither_listed_nor_read(roots, catalogue, tmp_path):
    runs, data = roots
    outside = tmp_path / "outside"
    shutil.copytree(runs / "tests/patient", outside / "run")
    shutil.copytree(data / "sudoku", outside / "sudoku")
    lists = (catalogue.checkpoints, catalogue.datasets, catalogue.runs)
    known = [set(listed()) for listed in lists]
    (runs / "link").symlink_to(outside)
    (runs / "tests/link").symlink_to(outside / "run")
    (runs / "up").symlink_to("../..")
    (runs / "loop").symlink_to("loop")
    (data / "link").symlink_to(outside / "sudoku")
    (runs / "metrics").mkdir()
    (runs / "metrics/metrics.jsonl").symlink_to(outside / "run/metrics.jsonl")
    (runs / "step").mkdir()
    (runs / "step/step_1").symlink_to(outside / "run/step_7")
    (runs / "weights").mkdir()
    shutil.copytree(runs / "tests/patient/step_7", runs / "weights/step_7")
    weights = runs / "weights/step_7/model.safetensors"
    weights.unlink()
    weights.symlink_to(outside / "run/step_7/model.safetensors")
    (data / "split").mkdir()
    (data / "split/train").symlink_to(outside / "sudoku/train")
    shutil.copytree(data / "sudoku/train", data / "array/train")
    array_path(data / "array/train", "train", "inputs").unlink()
    array_path(data / "array/train", "train", "inputs").symlink_to(
        array_path(outside / "sudoku/train", "train", "inputs")
    )
    (data / "file/train").mkdir(parents=True)
    (data / "file/train" / METADATA_FILE).symlink_to(outside / "sudoku/train" / METADATA_FILE)
    assert [set(listed()) for listed in lists] == known
    (runs / "inner").symlink_to(runs / "tests/patient")
    assert "inner" in catalogue.checkpoints()
    newest = runs / "tests/patient/step_8"
    newest.symlink_to(outside / "run/step_7")
    assert catalogue.checkpoint("tests/patient").step == 7


def test_names_that_cannot_be_sent_or_are_hidden_are_left_out(roots, catalogue):
    runs, data = roots
    for name in (b"bad\xff", b".hidden", b"line\nbreak", b"esc\x1b[31m"):
        shutil.copytree(runs / "tests/patient", runs / os.fsdecode(name))
        shutil.copytree(data / "sudoku", data / os.fsdecode(name))
        shutil.copytree(data / "sudoku/train", data / "sudoku" / os.fsdecode(name))
    shutil.copytree(runs / "tests/patient", runs / "Ünï çødé 数独")
    names = {"tests/eager", "tests/patient", "Ünï çødé 数独"}
    assert set(catalogue.checkpoints()) == names
    assert set(catalogue.datasets()) == {"sudoku"}
    assert set(catalogue.datasets()["sudoku"]) == {"train", "test"}
    assert set(catalogue.runs()) == names | {"tests/begun"}


def test_the_data_of_a_checkpoint_is_named_only_where_it_is_listed(roots, catalogue, tmp_path):
    data = roots[1]
    assert catalogue.dataset_id(data / "sudoku") == "sudoku"
    (data / "loop").symlink_to(data / "loop")
    odd = ("sudoku/train", ".", "..", "none", "a" * 5000, "\0", "loop", "sudoku/../../outside")
    assert [catalogue.dataset_id(data / name) for name in odd] == [None] * len(odd)


def test_the_default_is_listed_wherever_it_lies(roots, tmp_path):
    runs, data = roots
    outside = tmp_path / "elsewhere"
    shutil.copytree(runs / "tests/patient", outside / "tests")
    shutil.copytree(runs / "tests/patient", runs / "twin")
    shutil.copytree(runs / "tests/patient", outside / "twin")
    shutil.copytree(runs / "tests/patient/step_7", runs / "tests/patient/step_9")
    for path, name, target in (
        (runs / "tests/patient", "tests/patient", runs / "tests/patient/step_9"),
        (runs / "tests/patient/step_9", "tests/patient", runs / "tests/patient/step_9"),
        (
            runs / "tests/patient/step_7",
            "tests/patient/step_7",
            runs / "tests/patient/step_7",
        ),
        (outside / "tests", "tests", outside / "tests/step_7"),
        (outside / "twin", "twin", outside / "twin/step_7"),
    ):
        catalogue = Catalogue(runs, data, path)
        assert catalogue.default_id == name
        assert catalogue.checkpoint(name).path == target


@pytest.mark.parametrize(("name", "step"), [("42", None), ("step_42", 42), ("step_042", None)])
def test_only_the_name_of_a_step_says_which_it_is(roots, tmp_path, name, step):
    alone = shutil.copytree(roots[0] / "tests/patient/step_7", tmp_path / "alone" / name)
    named, listed = Catalogue(*roots, alone), Catalogue(*roots, None, {"other": alone})
    assert named.checkpoint(named.default_id).step == step
    assert listed.checkpoint("other").step == step
    shutil.copytree(alone.parent, roots[0] / "42")
    assert [f.step for n, f in listed.checkpoints().items() if n == "42"] == [step] * bool(step)


@pytest.mark.parametrize("identifiers", [[0, 0, 1, 1], [5, 6, 7, 8]])
def test_examples_of_several_sets_are_counted_through(roots, catalogue, identifiers):
    """Two sets of 3 examples each; the second puzzle has two of them."""
    folder = roots[1] / "two/test"
    folder.mkdir(parents=True)
    metadata = read_metadata(roots[1] / "sudoku/test").model_copy(
        update={"sets": ("a", "b"), "total_groups": 2, "num_puzzle_identifiers": 9}
    )
    write_metadata(folder, metadata)
    tokens = np.arange(6 * 16).reshape(6, 16) % 5
    for number, name in enumerate("ab"):
        rows, own = tokens[3 * number :][:3], identifiers[2 * number :][:2]
        arrays = PuzzleArrays(rows, rows * 0, np.int32(own), np.int32([0, 1, 3]), np.int32([0, 2]))
        for array in PuzzleArrays.__dataclass_fields__:
            np.save(array_path(folder, name, array), getattr(arrays, array))
    split = catalogue.split("two", "test")
    assert len(split) == catalogue.size_of(folder).examples == 6
    for index in range(6):
        example = split.example(index)
        np.testing.assert_array_equal(example.inputs, tokens[index])
        assert (example.labels == -100).all()  # 0 is ignored in a Sudoku
        assert example.identifier == identifiers[(0, 1, 1, 2, 3, 3)[index]]
        assert split.group(index) == (Group(0, 0, 3) if index < 3 else Group(0, 3, 6))


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def given(catalogue, after):
    """Lines, where they end, and whether they are given anew."""
    records, end, _, reset = catalogue.metrics("tests/begun", after)
    return records, end, reset


def test_only_whole_lines_are_given(roots, catalogue):
    path = roots[0] / "tests/begun/metrics.jsonl"
    first, second = lines({"step": 1}), lines({"step": 2})
    path.write_bytes(first + second[:-3])
    assert given(catalogue, 0) == ([{"step": 1.0}], len(first), False)
    path.write_bytes(first + second)
    end = len(first + second)
    assert given(catalogue, len(first)) == ([{"step": 2.0}], end, False)
    assert given(catalogue, end) == ([], end, False)
    path.write_bytes(first)
    assert given(catalogue, end) == ([{"step": 1.0}], len(first), True)
    path.write_bytes(b"")
    assert given(catalogue, end) == ([], 0, True)
    path.unlink()
    assert refusal(catalogue.metrics, "tests/begun", 0).status == 404


def test_damaged_lines_and_values_are_left_out(roots, catalogue):
    content = (
        b'{"step": 1, "a": NaN, "b": Infinity, "c": -Infinity, "d": 1e999, "e": true, "f": "x"}\n'
        b'{"step": 2, "a": 1' + b"0" * 400 + b', "b": 2}\n'
        b'\n{\n[1]\n3\nnull\n"x"\n\xff\xfe\n\0\0\0\n{"a": 1}}\n' + b"[" * 100_000 + b"\n"
        b'{"a": 9' + b"9" * 5000 + b"}\n"
        b'{"step": 3, "\\ud800": 1, "x\\u0000": 2, "ok": 3}\r\n{"step": 4}\n'
    )
    (roots[0] / "tests/begun/metrics.jsonl").write_bytes(content)
    records, end, _ = given(catalogue, 0)
    assert records == [
        {"step": 1, "a": None, "b": None, "c": None, "d": None},
        {"step": 3, "ok": 3},
        {"step": 4},
    ]
    assert end == len(content)


def test_an_answer_has_at_most_a_chunk(roots, catalogue):
    line = lines({"step": 1, "train/lm_loss": 0.5})
    count = 2 * LARGEST_CHUNK // len(line) + 10
    (roots[0] / "tests/begun/metrics.jsonl").write_bytes(line * count)
    sizes, after = [], 0
    while records := (answer := catalogue.metrics("tests/begun", after))[0]:
        assert answer[1] - after <= LARGEST_CHUNK
        sizes.append(len(records))
        after = answer[1]
    assert sum(sizes) == count and len(sizes) == 3


def test_a_line_longer_than_a_chunk_is_passed_over(roots, catalogue):
    content = b"x" * (2 * LARGEST_CHUNK + 5) + b"\n" + lines({"step": 2})
    (roots[0] / "tests/begun/metrics.jsonl").write_bytes(content)
    after, found = 0, []
    for _ in range(3):
        records, after, _, reset = catalogue.metrics("tests/begun", after)
        found += records
        assert not reset
    assert found == [{"step": 2.0}] and after == len(content)


def test_too_many_folders_end_the_scan(roots, catalogue, monkeypatch):
    monkeypatch.setattr(module, "MOST_FOLDERS", 3)
    assert catalogue.checkpoints() == {}
