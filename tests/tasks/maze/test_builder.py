"""`hrm build maze` as typed: what is written, and what is refused."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hrm.data.format import ARRAY_NAMES, PuzzleArrays, read_arrays, read_metadata
from hrm.tasks import task_of
from hrm.tasks.dihedral import COUNT, dihedral

from ...conftest import ROOT
from ...keys.commands import command, done
from ..sudoku.test_builder import assert_refused, tree

SCRIPT = ROOT / "dataset" / "build_maze_dataset.py"
DATA = ROOT.parent / "shared" / "data"
PUBLIC, REAL = DATA / "maze" / "public", DATA / "maze-30x30-hard-1k"
ARRAYS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
FEW = ("--num-train", 6, "--num-test", 3)
NAME = "build maze"


def arrays(folder: Path, split: str, set_name: str | None = None) -> PuzzleArrays:
    return read_arrays(folder / split, set_name or split, read_metadata(folder / split))


def write_csv(path: Path, questions: np.ndarray, answers: np.ndarray) -> None:
    texts = (["".join("_# SGo"[t] for t in row) for row in rows] for rows in (questions, answers))
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "question", "answer", "rating"])
        writer.writerows(["here", *pair, 0] for pair in zip(*texts, strict=True))


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder of CSV files with 12 training and 5 test mazes of 7x7 cells."""
    made, folder = tmp_path / "made", tmp_path / "source"
    folder.mkdir()
    done(NAME, "--generate", "7x7", "--num-train", 12, "--num-test", 5, "--output-dir", made)
    for split in ("train", "test"):
        own = arrays(made, split)
        write_csv(folder / f"{split}.csv", own.inputs, own.labels)
    return folder


# ---- what is written ----


def test_generated_mazes_keep_the_contract(tmp_path):
    output = tmp_path / "deep" / "data"
    out = done(NAME, "--generate", "7x9", *FEW, "--output-dir", output)
    assert "6 training rows (6 puzzles) and 3 test puzzles" in out
    metadata = read_metadata(output / "train")
    assert metadata.model_dump() == {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": -1,
        "vocab_size": 6,
        "seq_len": 63,
        "num_puzzle_identifiers": 1,
        "total_groups": 6,
        "mean_puzzle_examples": 1.0,
        "sets": ("train",),
        "task": "maze",
        "grid_shape": (7, 9),
        "box_shape": None,
        "symbols": "_# SGo",
    }
    assert metadata.inferred_box_shape() is None
    for split, count in (("train", 6), ("test", 3)):
        own = arrays(output, split)
        assert {getattr(own, name).dtype.name for name in ARRAY_NAMES} == {"uint8", "int32"}
        assert own.puzzle_identifiers.tolist() == [0] * count
        assert own.puzzle_indices.tolist() == own.group_indices.tolist() == [*range(count + 1)]
        task = task_of(read_metadata(output / split))
        assert task.name == "maze"
        assert task.are_valid(own.labels, own.inputs) == [True] * count
    assert json.loads((output / "identifiers.json").read_text()) == ["shared"]
    assert [path.name for path in output.parent.iterdir()] == ["data"]


@pytest.mark.parametrize(("shape", "versions"), [((7, 7), range(COUNT)), ((5, 9), (0, 2, 4, 5))])
def test_training_mazes_are_turned_and_reflected(tmp_path, shape, versions):
    words = (NAME, "--generate", "{}x{}".format(*shape), *FEW)
    done(*words, "--output-dir", tmp_path / "plain")
    done(*words, "--output-dir", tmp_path / "more", "--aug")
    plain, more = (arrays(tmp_path / name, "train") for name in ("plain", "more"))
    for one, many in ((plain.inputs, more.inputs), (plain.labels, more.labels)):
        grids = [dihedral(maze.reshape(shape), n).ravel() for maze in one for n in versions]
        assert np.array_equal(many, grids)
    count = len(versions)
    assert more.group_indices.tolist() == [*range(0, 6 * count + 1, count)]
    assert more.puzzle_indices.tolist() == [*range(6 * count + 1)]
    assert tree(tmp_path / "plain" / "test") == tree(tmp_path / "more" / "test")


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the published mazes are not there")
@pytest.mark.parametrize(("golden", "flags"), [("built", ()), ("built-aug", ("--aug",))])
def test_the_original_form_byte_for_byte(tmp_path, golden, flags):
    words = ("--source-dir", PUBLIC / "csv", "--format", "original", *flags)
    done(NAME, *words, "--output-dir", tmp_path / "data")
    for split in ("train", "test"):
        theirs = json.loads((PUBLIC / golden / split / "dataset.json").read_text())
        ours = json.loads((tmp_path / "data" / split / "dataset.json").read_text())
        if flags and split == "train":
            theirs["total_puzzles"] *= 8  # theirs is the number of groups
        assert {key: ours[key] for key in theirs} == theirs
        for name in ARRAYS:
            file = f"{split}/all__{name}.npy"
            expected = (PUBLIC / golden / file).read_bytes()
            assert (tmp_path / "data" / file).read_bytes() == expected, file
    names = (
        json.loads((d / "identifiers.json").read_text())
        for d in (tmp_path / "data", PUBLIC / golden)
    )
    assert [*names] == [["<blank>"]] * 2


@pytest.mark.skipif(not REAL.is_dir(), reason="the real mazes are not there")
def test_all_real_mazes_pass_the_checks(tmp_path):
    theirs = arrays(REAL, "train", "all")
    write_csv(tmp_path / "train.csv", theirs.inputs, theirs.labels)
    words = ("--source-dir", tmp_path, "--format", "original", "--output-dir", tmp_path / "data")
    assert "1,000 training rows" in done(NAME, *words)
    for name in ARRAYS:
        file = f"train/all__{name}.npy"
        assert (tmp_path / "data" / file).read_bytes() == (REAL / file).read_bytes(), file


@pytest.mark.parametrize("kind", ["generate", "csv"])
def test_equal_seeds_equal_bytes(tmp_path, source, kind):
    words = ("--generate", "5x7", *FEW) if kind == "generate" else ("--source-dir", source)
    words += () if kind == "generate" else ("--subsample-size", 7)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        done(NAME, *words, "--aug", "--seed", seed, "--output-dir", tmp_path / name)
    first, again, other = (tree(tmp_path / name) for name in "abc")
    assert first == again and first.keys() == other.keys()
    assert first["train/train__inputs.npy"] != other["train/train__inputs.npy"]


def test_csv_without_test_split(tmp_path, source):
    (source / "test.csv").unlink()
    out = done(NAME, "--source-dir", source, "--output-dir", tmp_path / "data")
    assert "12 training rows (12 puzzles) and 0 test puzzles" in out
    assert not (tmp_path / "data" / "test").exists()


def test_the_script_does_the_same(tmp_path):
    words = ["--generate", "5x5", *map(str, FEW), "--output-dir"]
    subprocess.run([sys.executable, str(SCRIPT), *words, str(tmp_path / "a")], check=True)
    done(NAME, *words, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


# ---- what is refused ----


@pytest.mark.parametrize("file", ["train.csv", "test.csv"])
def test_a_bad_row_leaves_nothing_behind(tmp_path, source, file):
    lines = (source / file).read_text().splitlines()
    lines[4] = lines[4].replace("G", " ")
    (source / file).write_text("\n".join(lines) + "\n")
    (tmp_path / "out").mkdir()
    words = ("--source-dir", source, "--subsample-size", 1, "--output-dir", tmp_path / "out/a/b")
    assert_refused(command(NAME, *words), f"error: {source / file}:5: question: no goal")
    assert list((tmp_path / "out").iterdir()) == []


def test_splits_of_different_size_are_refused(tmp_path, source):
    (source / "test.csv").write_text("source,question,answer,rating\nx,S  G,SooG,3\n")
    result = command(NAME, "--source-dir", source, "--output-dir", tmp_path / "out")
    assert_refused(result, "test.csv:2: question: 4 characters, expected 49 (7x7)")


def test_fewer_mazes_than_asked_for_are_all_taken(tmp_path, source):
    words = (NAME, "--source-dir", source, "--output-dir", tmp_path / "out")
    code, _, err = command(*words, "--subsample-size", 13)
    assert code == 0 and "--subsample-size 13: only 12 puzzles in" in err
    assert "0 of 12 training puzzles are test puzzles up to symmetry" in err
    assert len(arrays(tmp_path / "out", "train").inputs) == 12


def test_turned_training_mazes_in_the_test_file(tmp_path, source):
    """They are counted and refused, left out of training, or allowed."""
    made = arrays(tmp_path / "made", "train")
    leaked = [1, 4, 6, 9]
    pairs = [
        [
            dihedral(tokens[row].reshape(7, 7), number).ravel()
            for row, number in zip(leaked, (0, 3, 5, 7), strict=True)
        ]
        for tokens in (made.inputs, made.labels)
    ]
    write_csv(source / "test.csv", *map(np.array, pairs))
    words = (NAME, "--source-dir", source, "--output-dir", tmp_path / "out")
    named = ("train.csv:3 is", "test.csv:2,", "train.csv:6 is", "train.csv:8 is", "…)")
    refused = command(*words, "--subsample-size", 1)
    assert_refused(refused, "4 training puzzles are test puzzles", *named, "--drop-equivalent")
    assert not (tmp_path / "out").exists()
    code, _, err = command(*words, "--drop-equivalent")
    assert code == 0 and "dropped" in err
    left = np.delete(made.inputs, leaked, axis=0)
    assert np.array_equal(arrays(tmp_path / "out", "train").inputs, left)
    done(*words, "--overwrite", "--allow-leakage")
    assert len(arrays(tmp_path / "out", "train").inputs) == 12


def test_dropping_all_mazes_is_refused(tmp_path, source):
    (source / "test.csv").write_text((source / "train.csv").read_text())
    words = ("--source-dir", source, "--output-dir", tmp_path / "out", "--drop-equivalent")
    code, _, err = command(NAME, *words)
    assert code == 2 and "--drop-equivalent leaves no training puzzle" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        ("--generate 9x9 --source-dir .", ["--source-dir and --generate exclude each other"]),
        ("--source-repo a/b --source-dir .", ["--source-repo and --source-dir exclude"]),
        ("--source-dir . --min-path 4", ["--min-path needs --generate"]),
        ("--source-dir . --num-train 4", ["--num-train needs --generate"]),
        ("--generate 9x9 --subsample-size 4", ["--subsample-size does not go with --generate"]),
        ("--generate 9x9 --allow-leakage", ["--allow-leakage does not go with"]),
        ("--generate 9x9 --drop-equivalent", ["--drop-equivalent does not go with"]),
        ("--source-dir . --drop-equivalent --allow-leakage", ["exclude each other"]),
        ("--generate 9", ["--generate 9", "ROWSxCOLUMNS"]),
        ("--generate 2x9", ["--generate 2x9", "at least 3 rows"]),
        ("--generate 200x200", ["at most 10,000 cells"]),
        ("--generate 9x9 --min-path 0", ["--min-path 0"]),
        ("--generate 9x9 --min-path 50", ["--min-path 50", "more than 48 moves"]),
        ("--generate 9x9 --num-train 0", ["--num-train 0"]),
        ("--generate 9x9 --num-test -1", ["--num-test -1"]),
        ("--generate 9x9 --format other", ["--format"]),
        ("--source-dir absent", ["--source-dir absent: no such folder"]),
        ("--source-dir .", ["train.csv: not found"]),
        ("--source-dir source --subsample-size 0", ["--subsample-size 0"]),
    ],
)  # fmt: skip
def test_contradictions_are_one_line(tmp_path, source, monkeypatch, words, reasons):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert_refused(command(NAME, "--output-dir", "out", *words.split()), *reasons)
    assert sorted(tmp_path.iterdir()) == before
