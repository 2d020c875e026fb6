"""hrm build arc: what the published builder writes, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data.format import IGNORE_LABEL_ID, read_metadata, read_split
from hrm.data.puzzle_dataset import PuzzleDataset, PuzzleDatasetConfig
from hrm.tasks.arc import made_up
from hrm.tasks.arc.encoding import SYMBOLS
from hrm.tasks.arc.solutions import read_test_puzzles
from hrm.tasks.arc.versions import Version

from ...conftest import ROOT
from ...keys.commands import command, done
from .tasks import DATA, TINY, Json, other_task, task, write_combined, write_folders

SCRIPT = ROOT / "dataset" / "build_arc_dataset.py"


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def built(folder: Path, *words: object) -> tuple[str, str]:
    """Build, and what is said on stdout and stderr."""
    code, out, err = command("build arc", "--output-dir", folder, *words)
    assert code == 0, err
    return out, err


def refused(folder: Path, *words: object) -> str:
    """The one line that is said; nothing is left behind."""
    before = sorted(folder.parent.iterdir())
    code, out, err = command("build arc", "--output-dir", folder, *words)
    lines = err.splitlines()
    assert (code, out) == (2, "") and lines[-1].startswith("error: "), err
    assert all(line.startswith("note: ") for line in lines[:-1])
    assert sorted(folder.parent.iterdir()) == before
    return lines[-1]


def combined(prefix: Path, *subsets: str) -> tuple[object, ...]:
    return ("--input-file-prefix", prefix, "--subsets", *(subsets or ("training", "evaluation")))


@pytest.mark.skipif(not TINY.exists(), reason="no data of the published builder here")
def test_all_files_are_the_published_builders(tmp_path: Path) -> None:
    options = json.loads((TINY / "command.json").read_text())
    words = ["--input-file-prefix", TINY / "raw/arc-agi", "--format", "original"]
    for key, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{key.replace('_', '-')}", *values]
    built(tmp_path / "data", *words)
    assert tree(tmp_path / "data") == tree(TINY / "built")


@pytest.mark.skipif(not TINY.exists(), reason="no tasks of the raw repositories here")
def test_raw_folders_give_what_combined_files_do(tmp_path: Path) -> None:
    raw = DATA / "raw-folders-sample"
    folders = [raw / "ARC-AGI/data", raw / "ConceptARC/corpus"]
    few = ("--num-aug", 4)
    built(tmp_path / "folders", "--dataset-dirs", *folders, *few)
    subsets: dict[str, dict[str, Json]] = {}
    for path in sorted(raw.rglob("*.json")):
        subsets.setdefault(path.parent.name, {})[path.stem] = json.loads(path.read_text())
    names = ["evaluation", "training", "Center", "Copy"]
    prefix = write_combined(tmp_path / "arc", **{name: subsets[name] for name in names})
    built(tmp_path / "combined", *combined(prefix, *names), *few)
    assert tree(tmp_path / "folders") == tree(tmp_path / "combined")


def test_the_script_takes_the_published_command(tmp_path: Path) -> None:
    write_combined(tmp_path / "arc", training={"a": other_task()}, evaluation={"b": task()})
    words = ["--subsets", "training", "evaluation", "--test-set-name", "evaluation"]
    words = ["--input-file-prefix", "arc", "--output-dir", "data", *words, "--num-aug", "2"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "20 training examples" not in done.stdout
    assert (
        "21 training examples (6 versions of 2 tasks) and 3 test examples (1 tasks)" in done.stdout
    )


def test_pairs_go_where_they_belong_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Demonstrations of test tasks are trained on, their test pairs are not."""
    tasks: dict[str, dict[str, Json]] = {
        "training": {"a": other_task()},  # "test" comes first in it
        "evaluation": {"b": task(2)},
    }
    prefix = write_combined(tmp_path / "arc", **tasks)
    built(tmp_path / "data", *combined(prefix), "--num-aug", 2, "--side", 8)
    names = json.loads((tmp_path / "data/identifiers.json").read_text())
    expected = {
        "train": {
            "a": tasks["training"]["a"]["test"] + tasks["training"]["a"]["train"],
            "b": tasks["evaluation"]["b"]["train"],
        },
        "test": {"b": tasks["evaluation"]["b"]["test"]},
    }
    for split, by_task in expected.items():
        metadata, sets = read_split(tmp_path / "data" / split)
        arrays = sets["all"]
        assert metadata.total_groups == len(by_task)
        assert np.diff(arrays.group_indices).tolist() == [3] * len(by_task)
        for number, identifier in enumerate(arrays.puzzle_identifiers):
            name, version = Version.parse(names[identifier])
            first, last = arrays.puzzle_indices[number : number + 2]
            rows = zip(arrays.inputs[first:last], arrays.labels[first:last], strict=True)
            for pair, tokens in zip(by_task[name], rows, strict=True):
                for grid, row in zip((pair["input"], pair["output"]), tokens, strict=True):
                    assert grid_of(row, 8) == version.apply(np.array(grid)).tolist()
    assert json.loads((tmp_path / "data/test_puzzles.json").read_text()) == tasks["evaluation"]


def grid_of(tokens: np.ndarray, side: int) -> list[list[int]]:
    """The colours of a canvas, wherever they are."""
    canvas = tokens.reshape(side, side).astype(int) - 2
    rows, columns = np.nonzero(canvas >= 0)
    inner = canvas[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (inner >= 0).all()
    return inner.tolist()


def test_many_versions_are_written_as_few_are(tmp_path: Path, monkeypatch) -> None:
    """In chunks; the result does not depend on where they end."""
    words = ("--generate", "--num-aug", 30)
    built(tmp_path / "one", *words)
    monkeypatch.setattr("hrm.tasks.arc.builder.CHUNK_EXAMPLES", 17)
    built(tmp_path / "other", *words)
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def test_versions_that_are_missing_are_said_in_one_line(tmp_path: Path) -> None:
    _, err = built(tmp_path / "data", "--generate", "--num-aug", 6000)
    assert "note:" not in err  # there may be lines of progress
    plain = {"input": [[0]], "output": [[0, 0]]}
    write_combined(tmp_path / "arc", evaluation={"a": {"train": [plain], "test": [plain]}})
    _, err = built(tmp_path / "few", *combined(tmp_path / "arc", "evaluation"))
    line = "note: augmentation not full: 1 of 1 tasks have fewer than 1,001 different versions"
    assert err == f"{line} (the fewest 2)\n"


def test_a_known_answer_that_looks_unknown_is_marked(tmp_path: Path) -> None:
    zero, other = {"input": [[1, 1]], "output": [[0]]}, {"input": [[2]], "output": [[3]]}
    asked = {"input": [[4]]}
    tasks = {
        "a": {"train": [zero], "test": [zero, other]},
        "b": {"train": [other], "test": [asked]},
    }
    folder = tmp_path / "arc" / "evaluation"
    folder.mkdir(parents=True)
    for name, value in tasks.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    _, err = built(tmp_path / "data", "--dataset-dirs", tmp_path / "arc", "--num-aug", 0)
    assert "1 test pair has no output" in err and "trained on" not in err
    found = read_test_puzzles(tmp_path / "data")
    assert [pair.solution is None for pair in found["a"]] == [False, False]
    assert found["b"][0].solution is None


def test_pairs_without_an_output_that_are_learned_are_said(tmp_path: Path) -> None:
    pair, asked = {"input": [[2]], "output": [[3]]}, {"input": [[4]]}
    task = {"train": [pair], "test": [pair]}
    for subset, value in (("evaluation", task), ("test", task | {"test": [asked]})):
        folder = tmp_path / "arc" / subset
        folder.mkdir(parents=True)
        (folder / f"{subset}-a.json").write_text(json.dumps(value))
    _, err = built(tmp_path / "data", "--dataset-dirs", tmp_path / "arc", "--num-aug", 0)
    assert "1 pair without an output is trained on as if it were [[0]]" in err


# ---- made-up tasks ----


def test_made_up_tasks_are_a_data_set(tmp_path: Path) -> None:
    out, err = built(tmp_path / "data", "--generate", "--num-aug", 20)
    assert err == "" and "(168 versions of 8 tasks)" in out
    metadata = read_metadata(tmp_path / "data/train")
    assert (metadata.grid_shape, metadata.symbols, metadata.sets) == ((6, 6), SYMBOLS, ("all",))
    config = PuzzleDatasetConfig(
        seed=0,
        dataset_path=tmp_path / "data",
        global_batch_size=32,
        test_set_mode=True,
        epochs_per_iter=1,
        rank=0,
        num_replicas=1,
    )
    batches = list(PuzzleDataset(config, "test"))
    assert sum(count for _, _, count in batches) == 8 * 21 * made_up.TESTS
    labels = batches[0][1]["labels"]
    assert ((labels == IGNORE_LABEL_ID) | (labels >= 1)).all()


@pytest.mark.parametrize("seed", range(20))
def test_made_up_tasks_show_something_and_fit(seed: int) -> None:
    for puzzle in made_up.puzzles(seed):
        assert [len(pairs) for pairs in puzzle.pairs.values()] == [20, 4]
        inputs = [x.tolist() for x, _ in puzzle.all_pairs]
        assert all(inputs.count(grid) == 1 for grid in inputs)
        for x, y in puzzle.all_pairs:
            assert x.dtype == y.dtype == np.uint8 and max(x.shape + y.shape) <= made_up.SIDE
            assert not np.array_equal(x, y)


RULES = {
    "recolour": ([[2, 1], [0, 2]], [[3, 1], [0, 3]]),
    "swap": ([[2, 1], [0, 5]], [[1, 2], [0, 5]]),
    "filter": ([[2, 1], [0, 2]], [[2, 0], [0, 2]]),
    "negative": ([[2, 1], [0, 5]], [[0, 0], [1, 0]]),
    "glow": ([[0, 0, 0], [0, 2, 5], [0, 2, 0]], [[0, 3, 0], [3, 2, 5], [3, 2, 3]]),
    "shift": ([[2, 1, 0], [0, 5, 5]], [[0, 2, 1], [0, 0, 5]]),
    "columns": ([[2, 1], [0, 5]], [[2, 1], [2, 5]]),
    "frame": ([[2]], [[1, 1, 1], [1, 2, 1], [1, 1, 1]]),
}


@pytest.mark.parametrize("name", made_up.RULES)
def test_each_rule(name: str) -> None:
    before, after = RULES[name]
    assert made_up.RULES[name](np.array(before, np.uint8)).tolist() == after


# ---- repeated tasks ----


def recoloured(value: Json, version: Version) -> Json:
    return {
        part: [{k: version.apply(np.array(g)).tolist() for k, g in p.items()} for p in pairs]
        for part, pairs in value.items()
    }


def test_a_test_task_that_is_another_task_is_reported(tmp_path: Path) -> None:
    version = Version(3, (0, 5, 4, 3, 2, 1, 9, 8, 7, 6))
    same = {f"b{n}": recoloured(task(), version) for n in range(7)}
    same["c"] = other_task()
    prefix = write_combined(tmp_path / "arc", training={"a": task()}, evaluation=same)
    _, err = built(tmp_path / "data", *combined(prefix), "--num-aug", 2)
    named = ", ".join(f"evaluation/b{n} is training/a" for n in range(5))
    assert err == f"note: test tasks that are other tasks, up to versions: 7 ({named}, …)\n"


def test_a_name_in_two_subsets_shares_identifiers(tmp_path: Path) -> None:
    subsets = {"one": {"a": task()}, "two": {"a": task()}, "evaluation": {"b": other_task()}}
    prefix = write_combined(tmp_path / "arc", **subsets)
    _, err = built(tmp_path / "data", *combined(prefix, *subsets), "--num-aug", 1)
    line = "note: names in two subsets, whose versions share identifiers: 1 (a in one and two)"
    assert err == line + "\n"
    _, sets = read_split(tmp_path / "data/train")
    assert sets["all"].puzzle_identifiers.tolist() == [1, 2, 1, 3, 4, 5]
    error = refused(tmp_path / "no", *combined(prefix, *subsets), "--test-set-name", "one")
    assert "task 'a' is in subsets one and two, of which one is a test set" in error


# ---- options ----

CONTRADICTIONS: dict[str, tuple[str, str]] = {
    "no source": ("", "name what to build from: one of --input-file-prefix"),
    "two": ("--generate --dataset-dirs a", "--dataset-dirs and --generate exclude each other"),
    "no subsets": ("--input-file-prefix a", "--input-file-prefix needs --subsets"),
    "twice": ("--input-file-prefix a --subsets b b", "b is named twice"),
    "made up": ("--generate --subsets a", "--subsets does not go with --generate"),
    "small": ("--generate --side 5", "--side 5: made-up tasks need 6 at least"),
    "large": ("--generate --side 31", "--side 31"),
    "seed": ("--generate --seed 4294967296", "--seed"),
    "versions": ("--generate --num-aug -1", "--num-aug"),
    "identifier": ("--generate --puzzle-identifiers-start 0", "--puzzle-identifiers-start"),
    "no file": ("--input-file-prefix raw/a --subsets b", "raw/a_b_challenges.json: not found"),
    "subset": ("--input-file-prefix raw/arc --subsets b", "--subsets can be evaluation, training"),
    "test set": (
        "--input-file-prefix raw/arc --subsets training",
        "--test-set-name evaluation: is no subset; there are training",
    ),
    "test set 2": (
        "--input-file-prefix raw/arc --subsets evaluation --test-set-name2 x",
        "--test-set-name2 x: is no subset",
    ),
    "no folder": ("--dataset-dirs x", "--dataset-dirs x: no such folder"),
    "file": ("--dataset-dirs raw/arc_training_solutions.json", "is a file; name its folder"),
    "no JSON": ("--dataset-dirs empty", "no .json file is in it or in its folders"),
    "no such": ("--dataset-dirs folders --subsets x", "--subsets x: no such folder; there are"),
    "same folder": ("--dataset-dirs folders/one folders", "is a subset of the same name"),
    "word": ("--generate x", "'x' is one input too many"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_one_line(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("raw", "empty"):
        Path(folder).mkdir()
    write_combined(Path("raw/arc"), training={"a": other_task()}, evaluation={"b": task()})
    write_folders(Path("folders"), one={"a": task()}, two={"b": other_task()})
    words, reason = CONTRADICTIONS[name]
    assert reason in refused(tmp_path / "data", *words.split())


def test_what_is_read_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    built(folder, "--generate", "--num-aug", 1)
    write_folders(folder / "raw", evaluation={"a": task()})
    write_combined(folder / "raw/arc", evaluation={"a": task()})
    for words in (("--dataset-dirs", folder / "raw"), combined(folder / "raw/arc", "evaluation")):
        assert "holds --" in refused(folder, *words, "--overwrite")


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hrm.data.writer.SplitWriter.add_puzzles", full)
    assert "the disk is full" in refused(tmp_path / "data", "--generate")


def test_lists_end_where_another_word_begins(tmp_path: Path) -> None:
    prefix = write_combined(
        tmp_path / "arc", training={"a": other_task()}, evaluation={"b": task()}
    )
    words = ("--num-aug", 0, *combined(prefix))
    for number, more in enumerate(((), ("overwrite=true",), ("--overwrite",))):
        done("build arc", *words, *more, "--output-dir", tmp_path / f"data{number}")
