"""Every flag of the builder of own grids acts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .commands import KEYS, command, done
from .registry import Registry

acts = Registry()
EXAMPLES = [{"input": [[n, 0], [0, 0]], "output": [[0, 0], [0, n]]} for n in range(1, 9)]


def array(folder: Path, split: str = "train", name: str = "inputs") -> np.ndarray:
    return np.load(folder / split / f"all__{name}.npy")


def lines(path: Path, examples: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(example)}\n" for example in examples))
    return path


@pytest.fixture
def source(tmp_path) -> Path:
    return lines(tmp_path / "lines.jsonl", EXAMPLES)


@acts("source", "output_dir")
def test_files_and_folder_are_those_that_are_named(tmp_path, source):
    other = lines(tmp_path / "more.jsonl", EXAMPLES[:3])
    for number, (named, count) in enumerate({f"{source}": 8, f"{source},{other}": 11}.items()):
        done("build grids", "--source", named, "--output-dir", tmp_path / str(number))
        assert len(array(tmp_path / str(number))) == count
    for words in (("--source", source), ("--output-dir", tmp_path / "data")):
        code, _, err = command("build grids", *words)
        assert code == 2 and "is required" in err


@acts("overwrite")
def test_an_earlier_data_set_is_replaced_only_where_asked(tmp_path, source):
    words = ("--source", source, "--output-dir", tmp_path / "data")
    done("build grids", *words)
    code, _, err = command("build grids", *words)
    assert code == 2 and "--overwrite" in err
    lines(source, EXAMPLES[:3])
    done("build grids", *words, "--overwrite")
    assert len(array(tmp_path / "data")) == 3


@acts("test_share", "seed")
def test_a_share_becomes_test_examples_by_the_seed(tmp_path, source):
    ways = {
        "none": (),
        "half": ("--test-share", 0.5),
        "again": ("--test-share", 0.5, "--seed", 0),
        "other": ("--test-share", 0.5, "--seed", 1),
    }
    for name, flags in ways.items():
        done("build grids", "--source", source, "--output-dir", tmp_path / name, *flags)
    assert len(array(tmp_path / "none")) == 8 and not (tmp_path / "none" / "test").exists()
    half, again, other = (array(tmp_path / name, "test") for name in ("half", "again", "other"))
    assert 0 < len(half) < 8 and np.array_equal(half, again) and not np.array_equal(half, other)
    lines(source, [example | {"split": "train"} for example in EXAMPLES])
    words = ("--source", source, "--output-dir", tmp_path / "all", "--test-share", 0.5)
    code, _, err = command("build grids", *words)
    assert code == 2 and "--test-share" in err


@acts("augment", "num_aug", "seed")
def test_versions_are_made_by_the_function_that_is_named(tmp_path, source):
    (tmp_path / "own.py").write_text(
        "def augment(a, b, rng): return a, b + 1\n"
        "def turn(a, b, rng):\n    t = rng.integers(4)\n    return a + t, b\n"
    )
    words = ("--source", source, "--num-aug", 3, "--augment")
    for name, function, seed in (("usual", "", 0), ("turn", ":turn", 0), ("other", ":turn", 1)):
        folder = tmp_path / name
        hook = f"{tmp_path / 'own.py'}{function}"
        done("build grids", *words, hook, "--output-dir", folder, "--seed", seed)
        assert len(array(folder)) == 32
    usual = array(tmp_path / "usual", name="labels")
    assert (usual[1::4] == usual[::4] + 1).all()
    turned, other = array(tmp_path / "turn"), array(tmp_path / "other")
    assert (turned[::4] == other[::4]).all() and not np.array_equal(turned, other)
    for flags in (("--num-aug", 2), ("--augment", "x.py")):
        code, _, err = command("build grids", "--source", source, "--output-dir", "x", *flags)
        assert code == 2 and "go together" in err


@acts("allow_leakage")
def test_test_inputs_may_be_training_inputs_only_where_asked(tmp_path, source):
    lines(source, [*EXAMPLES, EXAMPLES[0] | {"split": "test"}])
    words = ("--source", source, "--output-dir", tmp_path / "data")
    code, _, err = command("build grids", *words)
    assert code == 2 and "1 of 1 test input is in training" in err
    assert not (tmp_path / "data").exists()
    done("build grids", *words, "--allow-leakage")
    assert len(array(tmp_path / "data", "test")) == 1


def test_every_flag_has_a_test():
    acts.check(KEYS["build grids"])
