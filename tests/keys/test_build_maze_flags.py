"""Every flag of the builder of mazes acts."""

from pathlib import Path

import numpy as np
import pytest

from hrm.hub import Choose, Repository

from .commands import KEYS, command, done
from .registry import Registry
from .test_build_flags import array, metadata

acts = Registry()
FEW = ("--num-train", 6, "--num-test", 3)


def built(folder: Path, *flags: object) -> Path:
    done("build maze", "--output-dir", folder, *flags)
    return folder


def generated(folder: Path, *flags: object) -> Path:
    return built(folder, "--generate", "5x7", *FEW, *flags)


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder of CSV files with 6 training and 3 test mazes of 5x5 cells."""
    folder, made = tmp_path / "source", built(tmp_path / "made", "--generate", "5x5", *FEW)
    folder.mkdir()
    for split in ("train", "test"):
        pairs = zip(array(made, split=split), array(made, "labels", split), strict=True)
        texts = [",".join("".join("_# SGo"[t] for t in row) for row in pair) for pair in pairs]
        (folder / f"{split}.csv").write_text("\n".join(["question,answer", *texts]) + "\n")
    return folder


@acts("output_dir")
def test_the_folder_is_the_one_that_is_named(tmp_path, monkeypatch):
    assert metadata(generated(tmp_path / "mine"))["total_groups"] == 6
    monkeypatch.chdir(tmp_path)
    done("build maze", "--generate", "5x7", *FEW)
    assert metadata(Path("data/maze-30x30-hard-1k"))["total_groups"] == 6


@acts("overwrite")
def test_an_earlier_data_set_is_replaced_only_where_asked(tmp_path):
    folder = generated(tmp_path / "data")
    before = array(folder)
    words = ("--output-dir", folder, "--generate", "5x7", *FEW, "--seed", 5)
    code, _, err = command("build maze", *words)
    assert code == 2 and "--overwrite" in err and np.array_equal(array(folder), before)
    done("build maze", *words, "--overwrite")
    assert not np.array_equal(array(folder), before)


@acts("seed")
def test_mazes_and_the_draw_come_from_the_seed(tmp_path, source):
    ways = {
        "generated": ("--generate", "5x7", *FEW),
        "drawn": ("--source-dir", source, "--subsample-size", 3),
    }
    for name, flags in ways.items():
        first, again, other = (
            array(built(tmp_path / f"{name}-{number}", *flags, "--seed", seed))
            for number, seed in enumerate((0, 0, 1))
        )
        assert np.array_equal(first, again) and not np.array_equal(first, other), name


@acts("source_repo")
def test_mazes_are_downloaded_from_the_repository_that_is_named(tmp_path, source, monkeypatch):
    asked: list[str] = []

    def fetch(repository: Repository, choose: Choose, *_: object) -> Path:
        asked.append(str(repository))
        assert choose(["README.md", "train.csv", "test.csv"]) == ["train.csv", "test.csv"]
        return source

    monkeypatch.setattr("hrm.tasks.building.fetch", fetch)
    built(tmp_path / "theirs", "--source-repo", "some/where")
    built(tmp_path / "usual")
    assert asked == ["hf://datasets/some/where", "hf://datasets/sapientinc/maze-30x30-hard-1k"]


@acts("source_dir")
def test_mazes_are_read_from_the_folder_that_is_named(tmp_path, source):
    folder = built(tmp_path / "data", "--source-dir", source)
    assert metadata(folder)["grid_shape"] == [5, 5]
    for split in ("train", "test"):
        for name in ("inputs", "labels"):
            made = array(tmp_path / "made", name, split)
            assert np.array_equal(array(folder, name, split), made)


@acts("generate")
@pytest.mark.parametrize("shape", [[5, 7], [7, 6]])
def test_generated_mazes_have_the_shape_that_is_asked(tmp_path, shape):
    made = metadata(built(tmp_path / "data", "--generate", "{}x{}".format(*shape), *FEW))
    assert (made["grid_shape"], made["seq_len"]) == (shape, shape[0] * shape[1])


@acts("min_path")
def test_paths_are_as_long_as_asked(tmp_path):
    words = ("--generate", "9x9", "--num-train", 40, "--num-test", 20)
    usual, long, short = (
        built(tmp_path / name, *words, *flags)
        for name, flags in (
            ("usual", ()),
            ("long", ("--min-path", 26)),
            ("short", ("--min-path", 2)),
        )
    )
    for split in ("train", "test"):
        least = [(array(d, "labels", split) == 5).sum(1).min() + 1 for d in (usual, long, short)]
        assert least[0] >= 16 and least[1] >= 26 and least[2] < 16


@acts("num_train", "num_test")
def test_as_many_mazes_are_generated_as_asked(tmp_path):
    folder = built(tmp_path / "data", "--generate", "5x7", "--num-train", 7, "--num-test", 2)
    assert len(array(folder)) == 7 and len(array(folder, split="test")) == 2
    usual = built(tmp_path / "usual", "--generate", "7x7", "--min-path", 2)
    assert len(array(usual)) == 1000 and len(array(usual, split="test")) == 500


@acts("subsample_size")
def test_as_many_mazes_are_drawn_as_asked(tmp_path, source):
    drawn = array(built(tmp_path / "drawn", "--source-dir", source, "--subsample-size", 4))
    known = {row.tobytes() for row in array(tmp_path / "made")}
    assert len(drawn) == 4 and {row.tobytes() for row in drawn} < known
    assert len(array(tmp_path / "drawn", split="test")) == 3


@acts("allow_leakage", "drop_equivalent")
def test_test_mazes_in_training_are_allowed_or_dropped_where_asked(tmp_path, source):
    lines = (source / "train.csv").read_text().splitlines(keepends=True)
    (source / "test.csv").write_text("".join(lines[:3]))
    words = ("build maze", "--source-dir", source, "--output-dir")
    code, _, err = command(*words, tmp_path / "none")
    assert code == 2 and "--allow-leakage" in err and not (tmp_path / "none").exists()
    done(*words, tmp_path / "all", "--allow-leakage")
    done(*words, tmp_path / "rest", "--drop-equivalent")
    assert len(array(tmp_path / "all")) == 6
    assert np.array_equal(array(tmp_path / "rest"), array(tmp_path / "all")[2:])


@acts("aug")
def test_mazes_are_turned_and_reflected_where_asked(tmp_path, source):
    plain = array(built(tmp_path / "plain", "--source-dir", source))
    more = array(built(tmp_path / "more", "--source-dir", source, "--aug"))
    assert np.array_equal(more[::8], plain) and len(np.unique(more, axis=0)) == 8 * len(plain)
    assert len(array(tmp_path / "more", split="test")) == 3


@acts("format")
def test_the_original_form_is_written_where_asked(tmp_path):
    ours = generated(tmp_path / "ours")
    original = generated(tmp_path / "original", "--format", "original")
    assert np.array_equal(array(original), array(ours))
    assert metadata(original)["sets"] == ["all"] and metadata(ours)["sets"] == ["train"]
    ids = [metadata(folder)["blank_identifier_id"] for folder in (ours, original)]
    assert ids == [-1, 0]


def test_every_flag_has_a_test():
    acts.check(KEYS["build maze"])
