"""Every flag of the Sudoku builder acts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.hub import Choose, Repository
from hrm.tasks import processes
from hrm.tasks.sudoku.difficulty import count_guesses
from hrm.tasks.sudoku.generator import generate_split
from hrm.tasks.sudoku.rules import SYMBOLS
from tests.tasks.sudoku.test_search import assert_minimal

from .commands import KEYS, command, done
from .registry import Registry

acts = Registry()
FEW = ("--num-train", 6, "--num-test", 3)
RATINGS = [1, 5, 2, 9, 5, 7]


def built(folder: Path, *flags: object) -> Path:
    done("build sudoku", "--output-dir", folder, *flags)
    return folder


def generated(folder: Path, *flags: object) -> Path:
    return built(folder, "--generate", "2x2", *FEW, *flags)


def metadata(folder: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((folder / split / "dataset.json").read_text())


def array(folder: Path, name: str = "inputs", split: str = "train") -> np.ndarray:
    [path] = (folder / split).glob(f"*__{name}.npy")
    return np.load(path)


def csv(questions: np.ndarray, answers: np.ndarray, ratings: list[int]) -> str:
    def text(tokens: np.ndarray) -> str:
        return "".join(SYMBOLS[token] for token in tokens)

    rows = zip(questions, answers, ratings, strict=True)
    lines = [f"here,{text(question)},{text(answer)},{rating}" for question, answer, rating in rows]
    return "\n".join(["source,question,answer,rating", *lines]) + "\n"


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder of CSV files with 6 training and 3 test puzzles of 6x6 cells in boxes of 3x2."""
    folder = tmp_path / "source"
    folder.mkdir()
    train, test = generate_split((3, 2), 6, 3, None, 0)
    (folder / "train.csv").write_text(csv(*train, RATINGS))
    (folder / "test.csv").write_text(csv(*test, [9, 1, 5]))
    return folder


@acts("output_dir")
def test_the_folder_is_the_one_that_is_named(tmp_path, monkeypatch):
    assert metadata(generated(tmp_path / "mine"))["total_groups"] == 6
    monkeypatch.chdir(tmp_path)
    done("build sudoku", "--generate", "2x2", *FEW)
    assert metadata(Path("data/sudoku-extreme-full"))["total_groups"] == 6


@acts("overwrite")
def test_an_earlier_data_set_is_replaced_only_where_asked(tmp_path):
    folder = generated(tmp_path / "data")
    before = array(folder)
    words = ("--output-dir", folder, "--generate", "2x2", *FEW, "--seed", 5)
    code, _, err = command("build sudoku", *words)
    assert code == 2 and "--overwrite" in err and np.array_equal(array(folder), before)
    done("build sudoku", *words, "--overwrite")
    assert not np.array_equal(array(folder), before)


@acts("seed")
def test_puzzles_versions_and_the_draw_come_from_the_seed(tmp_path, source):
    ways = {
        "generated": ("--generate", "2x2", *FEW),
        "augmented": ("--source-dir", source, "--box", "3x2", "--num-aug", 2),
        "drawn": ("--source-dir", source, "--box", "3x2", "--subsample-size", 3),
    }
    for name, flags in ways.items():
        first, again, other = (
            array(built(tmp_path / f"{name}-{number}", *flags, "--seed", seed))
            for number, seed in enumerate((0, 0, 1))
        )
        assert np.array_equal(first, again) and not np.array_equal(first, other), name


@acts("source_repo")
def test_puzzles_are_downloaded_from_the_repository_that_is_named(tmp_path, source, monkeypatch):
    asked: list[str] = []

    def fetch(repository: Repository, choose: Choose, *_: object) -> Path:
        asked.append(str(repository))
        assert choose(["README.md", "train.csv", "test.csv"]) == ["train.csv", "test.csv"]
        return source

    monkeypatch.setattr("hrm.tasks.building.fetch", fetch)
    built(tmp_path / "theirs", "--source-repo", "some/where", "--box", "3x2")
    built(tmp_path / "usual", "--box", "3x2")
    assert asked == ["hf://datasets/some/where", "hf://datasets/sapientinc/sudoku-extreme"]


@acts("source_dir", "box")
def test_puzzles_are_read_from_the_folder_that_is_named(tmp_path, source):
    folder = built(tmp_path / "data", "--source-dir", source, "--box", "3x2")
    made = metadata(folder)
    assert (made["total_groups"], made["box_shape"]) == (6, [3, 2])
    rows = (source / "train.csv").read_text().splitlines()[1:]
    shown = ["".join(SYMBOLS[t] for t in row) for row in array(folder)]
    assert shown == [row.split(",")[1] for row in rows]
    words = ("--output-dir", tmp_path / "wrong", "--source-dir", source)
    code, _, err = command("build sudoku", *words)  # as 2x3, which the answers contradict
    assert code == 2 and "train.csv:2" in err


@acts("generate")
@pytest.mark.parametrize("box, shape", [("2x2", [2, 2]), ("2x3", [2, 3])])
def test_generated_puzzles_have_boxes_as_asked(tmp_path, box, shape):
    made = metadata(built(tmp_path / "data", "--generate", box, *FEW))
    side = shape[0] * shape[1]
    assert (made["box_shape"], made["grid_shape"]) == (shape, [side, side])


@acts("givens")
@pytest.mark.parametrize("given, counts", [("6", {6}), ("9-10", {9, 10})])
def test_puzzles_have_as_many_givens_as_asked(tmp_path, given, counts):
    folder = generated(tmp_path / "data", "--givens", given)
    for split in ("train", "test"):
        assert set((array(folder, split=split) > 0).sum(1).tolist()) <= counts


@acts("givens")
def test_puzzles_are_minimal_where_asked(tmp_path):
    folder = generated(tmp_path / "data", "--givens", "minimal", "--workers", 1)
    for question, answer in zip(array(folder), array(folder, "labels"), strict=True):
        assert_minimal(question, answer, (2, 2))


@acts("difficulty")
def test_puzzles_are_as_difficult_as_asked(tmp_path):
    few = ("--generate", "3x3", "--num-train", 3, "--num-test", 1, "--workers", 1)
    folder = built(tmp_path / "data", *few, "--difficulty", "1-3")
    for split in ("train", "test"):
        guesses, _ = count_guesses(array(folder, split=split), (3, 3))
        assert ((guesses >= 1) & (guesses <= 3)).all()


@pytest.mark.parametrize("number, alike", [(4, True), (1, False)])
def test_puzzles_that_are_alike_are_said_to_be(tmp_path, number, alike):
    few = ("--generate", "3x3", "--num-train", 1, "--num-test", number, "--workers", 1)
    code, _, err = command("build sudoku", "--output-dir", tmp_path / "x", *few, "--difficulty", 0)
    assert code == 0 and ("4 test puzzles, distinct solutions: 1;" in err) == alike


@pytest.mark.parametrize(
    "flags, word",
    [
        (("--generate", "3x3", "--difficulty", "5-2"), "5 is more than 2"),
        (("--generate", "3x3", "--difficulty", "5-2000"), "0-1000"),
        (("--generate", "3x3", "--difficulty", "abc"), "like-extreme"),
        (("--generate", "2x2", "--difficulty", "1-3"), "--generate 3x3"),
        (("--difficulty", "1-3"), "needs --generate"),
        (("--generate", "3x3", "--difficulty", "1-3", "--givens", "30"), "drop --givens"),
        (("--generate", "2x2", "--workers", 2), "--givens minimal"),
        (("--workers", 2), "--num-related"),
        (("--generate", "3x3", "--num-related", 2), "does not go with --generate"),
        (("--generate", "2x2", "--givens", "few"), "minimal"),
    ],
)
def test_a_difficulty_that_makes_no_sense_is_refused(tmp_path, flags, word):
    code, _, err = command("build sudoku", "--output-dir", tmp_path / "data", *flags)
    assert code == 2 and word in err and len(err.splitlines()) == 1


@acts("workers")
def test_as_many_processes_work_as_asked(tmp_path, monkeypatch):
    asked: list[int] = []

    def in_order(work, jobs, workers, heard):
        asked.append(workers)
        return processes.in_order(work, jobs, 1, heard)

    monkeypatch.setattr("hrm.tasks.sudoku.minimal.in_order", in_order)
    monkeypatch.setattr("hrm.tasks.sudoku.minimal.usable_cores", lambda: 3)
    for workers in (("--workers", 1), ("--workers", 2), (), ("--workers", 99)):
        generated(tmp_path / str(len(asked)), "--givens", "minimal", *workers)
    assert asked == [1, 2, 3, 3]  # no more than have something to do


@acts("num_related")
def test_as_many_puzzles_are_found_around_each_as_asked(tmp_path, source):
    code, _, err = command(
        "build sudoku", "--output-dir", tmp_path / "no", "--source-dir", source, "--num-related", 2,
        "--box", "3x2",
    )  # fmt: skip
    assert code == 2 and "9x9" in err and len(err.splitlines()) == 1
    train, test = generate_split((3, 3), 3, 1, (26, 26), 0)
    (source / "train.csv").write_text(csv(*train, [0] * 3))
    (source / "test.csv").write_text(csv(*test, [0]))
    flags = ("--source-dir", source, "--num-related", 2, "--workers", 1, "--num-aug", 1)
    folder = tmp_path / "data"
    code, _, err = command("build sudoku", "--output-dir", folder, *flags)
    assert code == 0 and "found around 3 training puzzles: 6\n" in err
    questions = array(folder)[::2]
    assert (questions[:3] == train[0]).all() and len(questions) == 9
    assert len(array(folder, split="test")) == 1
    assert len(json.loads((folder / "identifiers.json").read_text())) == 9


@acts("num_train", "num_test")
def test_as_many_puzzles_are_generated_as_asked(tmp_path):
    folder = built(tmp_path / "data", "--generate", "2x2", "--num-train", 7, "--num-test", 2)
    assert len(array(folder)) == 7 and len(array(folder, split="test")) == 2
    usual = built(tmp_path / "usual", "--generate", "2x2")
    assert len(array(usual)) == 1000 and len(array(usual, split="test")) == 500


@acts("subsample_size")
def test_as_many_puzzles_are_drawn_as_asked(tmp_path, source):
    flags = ("--source-dir", source, "--box", "3x2")
    whole, drawn = (
        built(tmp_path / "whole", *flags),
        built(tmp_path / "drawn", *flags, "--subsample-size", 4),
    )
    known = {row.tobytes() for row in array(whole)}
    assert len(array(drawn)) == 4 and {row.tobytes() for row in array(drawn)} < known
    assert len(array(drawn, split="test")) == 3


@acts("min_difficulty")
def test_easier_puzzles_are_left_out(tmp_path, source):
    flags = ("--source-dir", source, "--box", "3x2")
    whole = built(tmp_path / "whole", *flags)
    hard = built(tmp_path / "hard", *flags, "--min-difficulty", 5)
    chosen = [n for n, rating in enumerate(RATINGS) if rating >= 5]
    assert np.array_equal(array(hard), array(whole)[chosen])
    assert np.array_equal(array(hard, split="test"), array(whole, split="test")[[0, 2]])


@acts("allow_leakage")
def test_test_puzzles_may_be_training_puzzles_only_where_asked(tmp_path, source):
    (source / "test.csv").write_text((source / "train.csv").read_text())
    words = ("--output-dir", tmp_path / "data", "--source-dir", source, "--box", "3x2")
    code, _, err = command("build sudoku", *words)
    assert code == 2 and "--allow-leakage" in err and not (tmp_path / "data").exists()
    done("build sudoku", *words, "--allow-leakage")
    assert np.array_equal(array(tmp_path / "data"), array(tmp_path / "data", split="test"))


@acts("drop_equivalent")
def test_training_puzzles_that_are_test_puzzles_are_dropped_where_asked(tmp_path, source):
    lines = (source / "train.csv").read_text().splitlines(keepends=True)
    (source / "test.csv").write_text("".join(lines[:3]))
    words = ("--output-dir", tmp_path / "data", "--source-dir", source, "--box", "3x2")
    assert command("build sudoku", *words)[0] == 2
    done("build sudoku", *words, "--drop-equivalent")
    train, test = array(tmp_path / "data"), array(tmp_path / "data", split="test")
    assert (len(train), len(test)) == (len(lines) - 3, 2)
    assert not (train[:, None] == test).all(-1).any()


@acts("num_aug")
def test_as_many_versions_are_added_as_asked(tmp_path):
    plain, more = generated(tmp_path / "plain"), generated(tmp_path / "more", "--num-aug", 3)
    assert len(array(plain)) == 6 and len(array(more)) == 24
    assert np.array_equal(array(more)[::4], array(plain))  # the first version is the puzzle itself
    assert len(np.unique(array(more), axis=0)) > 12
    assert len(array(more, split="test")) == 3


@acts("format")
def test_the_original_form_is_written_where_asked(tmp_path):
    ours, original = (
        generated(tmp_path / "ours"),
        generated(tmp_path / "original", "--format", "original"),
    )
    assert np.array_equal(array(original), array(ours) + 1)
    assert metadata(original)["sets"] == ["all"] and metadata(ours)["sets"] == ["train"]
    assert metadata(original)["blank_identifier_id"] == 0
    assert (array(original, "puzzle_identifiers") == 0).all()


@acts("identifiers")
def test_puzzles_share_one_identifier_where_asked(tmp_path):
    own = generated(tmp_path / "own")
    shared = generated(tmp_path / "shared", "--identifiers", "shared")
    assert array(own, "puzzle_identifiers").tolist() == [0, 1, 2, 3, 4, 5]
    assert array(shared, "puzzle_identifiers").tolist() == [0] * 6
    assert (array(own, "puzzle_identifiers", "test") == -1).all()
    assert (array(shared, "puzzle_identifiers", "test") == 0).all()
    assert metadata(shared)["num_puzzle_identifiers"] == 1


def test_every_flag_has_a_test():
    acts.check(KEYS["build sudoku"])
