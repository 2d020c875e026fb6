"""Every flag of the ARC builder acts."""

import json
from pathlib import Path

import numpy as np
import pytest

from ..tasks.arc.tasks import other_task, task, write_combined, write_folders
from .commands import KEYS, command, done
from .registry import Registry
from .test_build_flags import array, metadata

acts = Registry()


@pytest.fixture
def prefix(tmp_path) -> Path:
    """Combined files with two subsets of one task each."""
    (tmp_path / "raw").mkdir()
    subsets = {"training": {"other": other_task()}, "evaluation": {"mine": task()}}
    return write_combined(tmp_path / "raw/arc", **subsets)


def built(folder: Path, *flags: object) -> Path:
    few = () if "--num-aug" in flags else ("--num-aug", 3)
    done("build arc", "--output-dir", folder, *flags, *few)
    return folder


def names(folder: Path) -> list[str]:
    return json.loads((folder / "identifiers.json").read_text())


def combined(prefix: Path) -> tuple[object, ...]:
    return ("--input-file-prefix", prefix, "--subsets", "training", "evaluation")


@acts("output_dir")
def test_the_folder_is_the_one_that_is_named(tmp_path, monkeypatch):
    assert metadata(built(tmp_path / "mine", "--generate"))["task"] == "arc"
    monkeypatch.chdir(tmp_path)
    done("build arc", "--generate", "--num-aug", 1)
    assert metadata(Path("data/arc-aug-1000"))["task"] == "arc"


@acts("overwrite")
def test_an_earlier_data_set_is_replaced_only_where_asked(tmp_path):
    folder = built(tmp_path / "data", "--generate")
    before = names(folder)
    words = ("--output-dir", folder, "--generate", "--num-aug", 2)
    code, _, err = command("build arc", *words)
    assert code == 2 and "--overwrite" in err and names(folder) == before
    done("build arc", *words, "--overwrite")
    assert names(folder) != before


@acts("seed")
def test_versions_and_made_up_tasks_come_from_the_seed(tmp_path, prefix):
    for name, flags in {"made": ("--generate",), "read": combined(prefix)}.items():
        first, again, other = (
            built(tmp_path / f"{name}-{number}", *flags, "--seed", seed)
            for number, seed in enumerate((42, 42, 1))
        )
        assert names(first) == names(again) != names(other)
        assert np.array_equal(array(first), array(again))
    assert not np.array_equal(array(tmp_path / "made-0")[0], array(tmp_path / "made-2")[0])
    assert names(built(tmp_path / "usual", *combined(prefix))) == names(tmp_path / "read-0")


@acts("input_file_prefix", "subsets")
def test_the_named_subsets_are_read(tmp_path, prefix):
    both = built(tmp_path / "both", *combined(prefix), "--num-aug", 0)
    assert names(both) == ["<blank>", "other", "mine"]
    one = built(tmp_path / "one", *combined(prefix)[:2], "--subsets=evaluation", "--num-aug", 0)
    assert names(one) == ["<blank>", "mine"]
    words = (*combined(prefix)[:2], "subsets=evaluation,training", "--num-aug", 0)
    assert names(built(tmp_path / "turned", *words)) == ["<blank>", "mine", "other"]


@acts("dataset_dirs")
def test_folders_are_read(tmp_path):
    write_folders(tmp_path / "A", training={"b": task(), "a": other_task()})
    write_folders(tmp_path / "B", evaluation={"c": task(2)})
    flags = ("--dataset-dirs", tmp_path / "A", tmp_path / "B", "--num-aug", 0)
    assert set(names(built(tmp_path / "all", *flags))) == {"<blank>", "a", "b", "c"}
    assert names(built(tmp_path / "one", *flags, "--subsets", "evaluation")) == ["<blank>", "c"]


@acts("generate")
def test_tasks_are_made_up_where_asked(tmp_path):
    folder = built(tmp_path / "data", "--generate", "--num-aug", 0)
    assert metadata(folder)["total_groups"] == 8 == metadata(folder, "test")["total_groups"]


@acts("test_set_name", "test_set_name2")
def test_test_pairs_of_test_sets_are_in_the_test_split(tmp_path, prefix):
    def test_tasks(*flags: object) -> set[str]:
        folder = built(tmp_path / f"data{flags}", *combined(prefix), *flags)
        return set(json.loads((folder / "test_puzzles.json").read_text()))

    assert test_tasks() == {"mine"}
    assert test_tasks("--test-set-name", "training") == {"other"}
    assert test_tasks("--test-set-name2", "training") == {"mine", "other"}


@acts("num_aug")
def test_as_many_versions_are_added_as_asked(tmp_path, prefix):
    folder = built(tmp_path / "data", *combined(prefix), "--num-aug", 5)
    assert len(names(folder)) == 1 + 2 * 6
    assert names(folder)[1].startswith("other") and names(folder)[7] == "mine"


@acts("puzzle_identifiers_start")
def test_the_first_identifier_is_the_one_that_is_named(tmp_path, prefix):
    folder = built(tmp_path / "data", *combined(prefix), "--puzzle-identifiers-start", 4)
    assert names(folder)[:5] == ["<blank>"] * 4 + ["other"]
    assert array(folder, "puzzle_identifiers").tolist() == [*range(4, 12)]
    assert metadata(folder)["num_puzzle_identifiers"] == 12 == len(names(folder))


@acts("side")
def test_the_canvas_is_as_large_as_asked(tmp_path, prefix):
    assert metadata(built(tmp_path / "usual", *combined(prefix)))["grid_shape"] == [30, 30]
    assert metadata(built(tmp_path / "small", *combined(prefix), "--side", 6))["seq_len"] == 36
    assert metadata(built(tmp_path / "made", "--generate"))["grid_shape"] == [6, 6]
    words = ("--output-dir", tmp_path / "no", *combined(prefix), "--side", 3)
    code, _, err = command("build arc", *words)
    assert code == 2 and "at most 3x3 fit" in err


@acts("format")
def test_the_original_form_differs_in_metadata_only(tmp_path, prefix):
    ours = built(tmp_path / "ours", *combined(prefix))
    original = built(tmp_path / "original", *combined(prefix), "--format", "original")
    assert "task" in metadata(ours) and "task" not in metadata(original)
    assert metadata(original)["total_puzzles"] == metadata(ours)["total_puzzles"] == 8
    for path in (p for p in ours.rglob("*") if p.is_file() and p.name != "dataset.json"):
        assert path.read_bytes() == (original / path.relative_to(ours)).read_bytes()


def test_every_flag_has_a_test():
    acts.check(KEYS["build arc"])
