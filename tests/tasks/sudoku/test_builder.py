import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hrm.cli.main import main
from hrm.data import writer
from hrm.data.format import ARRAY_NAMES, read_arrays, read_metadata
from hrm.errors import UserError
from hrm.tasks.sudoku import builder, leakage
from hrm.tasks.sudoku.generator import generate_split
from hrm.tasks.sudoku.rules import SYMBOLS, is_valid_solution
from hrm.tasks.sudoku.symmetry import augment, canonical_hash

from ...hub import FakeHub, serving
from ...watching import LONG, started, wait_for

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "dataset" / "build_sudoku_dataset.py"
REAL_DIR = ROOT.parent / "shared/data/sudoku-extreme-1k"
HEADER = "source,question,answer,rating"


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run the command in this process: exit code, stdout, stderr."""

    def run_with(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hrm", "build", "sudoku", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_with


def csv_text(questions: np.ndarray, answers: np.ndarray, rating: int = 1) -> str:
    symbols = np.frombuffer(SYMBOLS.encode(), np.uint8)
    rows = (
        f"x,{symbols[question].tobytes().decode()},{symbols[answer].tobytes().decode()},{rating}"
        for question, answer in zip(questions, answers, strict=True)
    )
    return "\n".join([HEADER, *rows]) + "\n"


@pytest.fixture
def source_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    train, test = generate_split((2, 3), 20, 8, seed=9)
    (folder / "train.csv").write_text(csv_text(*train, rating=5))
    (folder / "test.csv").write_text(csv_text(*test, rating=2))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_refused(result: tuple[int, str, str], *reasons: str) -> None:
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for reason in reasons:
        assert reason in err


# ---- what is written ----


def test_generated_data_set_keeps_the_contract(run: Callable, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "data"
    arguments = ("--generate", "2x3", "--num-train", 12, "--num-test", 5, "--num-aug", 3)
    code, out, err = run("--output-dir", output, *arguments)
    assert (code, err) == (0, "")
    assert "48 training rows (12 puzzles) and 5 test puzzles" in out

    train = read_metadata(output / "train")
    assert train.model_dump() == {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": -1,
        "vocab_size": 7,
        "seq_len": 36,
        "num_puzzle_identifiers": 12,
        "total_groups": 12,
        "mean_puzzle_examples": 1.0,
        "sets": ("train",),
        "task": "sudoku",
        "grid_shape": (6, 6),
        "box_shape": (2, 3),
        "symbols": ".123456",
    }
    arrays = read_arrays(output / "train", "train", train)
    assert arrays.inputs.dtype == arrays.labels.dtype == np.uint8
    assert arrays.inputs.shape == (48, 36)
    assert arrays.puzzle_identifiers.tolist() == np.repeat(np.arange(12), 4).tolist()
    assert arrays.puzzle_indices.tolist() == list(range(49))
    assert arrays.group_indices.tolist() == list(range(0, 49, 4))
    assert {getattr(arrays, name).dtype.name for name in ARRAY_NAMES} == {"uint8", "int32"}

    test = read_metadata(output / "test")
    assert (test.sets, test.total_groups) == (("test",), 5)
    assert test.num_puzzle_identifiers == 12
    test_arrays = read_arrays(output / "test", "test", test)
    assert test_arrays.puzzle_identifiers.tolist() == [-1] * 5
    assert len(test_arrays.inputs) == 5

    names = json.loads((output / "identifiers.json").read_text())
    first_versions = np.asarray(arrays.inputs[::4])
    assert names == ["".join(SYMBOLS[cell] for cell in grid) for grid in first_versions]
    assert [path.name for path in output.parent.iterdir()] == ["data"]


def test_augmented_versions_are_the_same_puzzle(run: Callable, tmp_path: Path) -> None:
    arguments = ("--generate", "3x3", "--num-train", 10, "--num-test", 4, "--seed", 3)
    assert run("--output-dir", tmp_path / "plain", *arguments)[0] == 0
    assert run("--output-dir", tmp_path / "more", *arguments, "--num-aug", 20)[0] == 0
    plain, more = (
        read_arrays(folder / "train", "train", read_metadata(folder / "train"))
        for folder in (tmp_path / "plain", tmp_path / "more")
    )
    assert (more.inputs[::21] == plain.inputs).all()
    assert (more.labels[::21] == plain.labels).all()
    assert is_valid_solution(more.labels, (3, 3)).all()
    assert ((more.inputs == 0) | (more.inputs == more.labels)).all()
    hashes = canonical_hash(np.asarray(more.inputs), (3, 3)).reshape(10, 21)
    assert (hashes == hashes[:, :1]).all()
    assert len(np.unique(more.inputs, axis=0)) == 210
    assert tree(tmp_path / "plain" / "test") == tree(tmp_path / "more" / "test")


def test_shared_identifiers(run: Callable, tmp_path: Path) -> None:
    output = tmp_path / "data"
    arguments = ("--num-train", 6, "--num-test", 3, "--num-aug", 1, "--identifiers", "shared")
    assert run("--output-dir", output, "--generate", "2x2", *arguments)[0] == 0
    for split in ("train", "test"):
        metadata = read_metadata(output / split)
        assert metadata.num_puzzle_identifiers == 1
        assert metadata.blank_identifier_id == -1
        assert set(read_arrays(output / split, split, metadata).puzzle_identifiers) == {0}
    assert json.loads((output / "identifiers.json").read_text()) == ["shared"]


def test_original_format(run: Callable, tmp_path: Path) -> None:
    arguments = ("--generate", "3x3", "--num-train", 6, "--num-test", 3, "--num-aug", 2)
    assert run("--output-dir", tmp_path / "ours", *arguments)[0] == 0
    output = tmp_path / "original"
    assert run("--output-dir", output, *arguments, "--format", "original")[0] == 0
    for split, groups in (("train", 6), ("test", 3)):
        metadata = read_metadata(output / split)
        assert (metadata.vocab_size, metadata.pad_id, metadata.ignore_label_id) == (11, 0, 0)
        assert (metadata.blank_identifier_id, metadata.num_puzzle_identifiers) == (0, 1)
        assert (metadata.sets, metadata.total_groups) == (("all",), groups)
        stated = json.loads((output / split / "dataset.json").read_text())
        assert stated["total_puzzles"] == {"train": 18, "test": 3}[split]
        assert metadata.symbols == "_.123456789"
        ours = read_arrays(
            tmp_path / "ours" / split, split, read_metadata(tmp_path / "ours" / split)
        )
        theirs = read_arrays(output / split, "all", metadata)
        assert (theirs.inputs == ours.inputs + 1).all()
        assert (theirs.labels == ours.labels + 1).all()
        assert set(theirs.puzzle_identifiers) == {0}
        assert (theirs.group_indices == ours.group_indices).all()
    assert json.loads((output / "identifiers.json").read_text()) == ["<blank>"]


@pytest.mark.parametrize("source", ["generate", "csv"])
def test_equal_seeds_equal_bytes(
    run: Callable, tmp_path: Path, source_dir: Path, source: str
) -> None:
    arguments: tuple[object, ...] = ("--generate", "2x2", "--num-train", 20, "--num-test", 9)
    if source == "csv":
        arguments = ("--source-dir", source_dir, "--subsample-size", 9)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        output = tmp_path / name
        assert run("--output-dir", output, *arguments, "--num-aug", 5, "--seed", seed)[0] == 0
    first, again, other = (tree(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert first["train/train__inputs.npy"] != other["train/train__inputs.npy"]


def test_chunks_do_not_show(
    run: Callable, tmp_path: Path, source_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many chunks give each version its place, and whole puzzles."""
    monkeypatch.setattr(builder, "WRITE_CHUNK_ROWS", 7)
    output = tmp_path / "data"
    assert run("--output-dir", output, "--source-dir", source_dir, "--num-aug", 4)[0] == 0
    arrays = read_arrays(output / "train", "train", read_metadata(output / "train"))
    names = json.loads((output / "identifiers.json").read_text())
    assert ["".join(SYMBOLS[cell] for cell in grid) for grid in arrays.inputs[::5]] == names
    assert is_valid_solution(arrays.labels, (2, 3)).all()


def test_csv_without_test_split(run: Callable, tmp_path: Path, source_dir: Path) -> None:
    (source_dir / "test.csv").unlink()
    output = tmp_path / "data"
    code, out, _ = run("--output-dir", output, "--source-dir", source_dir, "--subsample-size", 7)
    assert code == 0
    assert "0 test puzzles" in out
    assert not (output / "test").exists()
    assert read_metadata(output / "train").total_groups == 7


def test_min_difficulty_filters_both_splits(
    run: Callable, tmp_path: Path, source_dir: Path
) -> None:
    for name, rating, splits in (("low", 2, {"train", "test"}), ("high", 3, {"train"})):
        output = tmp_path / name
        arguments = ("--source-dir", source_dir, "--min-difficulty", rating)
        assert run("--output-dir", output, *arguments)[0] == 0
        assert {path.name for path in output.iterdir() if path.is_dir()} == splits


@pytest.mark.skipif(not REAL_DIR.exists(), reason="the real puzzles are not here")
def test_real_puzzles(run: Callable, tmp_path: Path) -> None:
    output = tmp_path / "data"
    assert run("--output-dir", output, "--source-dir", REAL_DIR, "--num-aug", 2)[0] == 0
    arrays = read_arrays(output / "train", "train", read_metadata(output / "train"))
    assert is_valid_solution(arrays.labels, (3, 3)).all()
    assert len(arrays.inputs) == 3000


# ---- what is refused ----

BAD_LINES = {
    "length": (lambda row: row.replace(",", ",.", 1), "characters"),
    "character": (lambda row: row.replace(",", ",x", 1).replace(".", "", 1), "character 'x'"),
    "answer": (lambda row: ",".join([*row.split(",")[:2], "1" * 36, "5"]), "not a solved grid"),
    "rating": (lambda row: row[:-1] + "?", "rating"),
    "fields": (lambda row: "x", "fields"),
}


@pytest.mark.parametrize("file", ["train.csv", "test.csv"])
@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_row_leaves_nothing_behind(
    run: Callable, tmp_path: Path, source_dir: Path, name: str, file: str
) -> None:
    change, reason = BAD_LINES[name]
    lines = (source_dir / file).read_text().splitlines()
    lines[6] = change(lines[6])
    (source_dir / file).write_text("\n".join(lines) + "\n")
    parent = tmp_path / "out"
    parent.mkdir()
    arguments = ("--source-dir", source_dir, "--subsample-size", 1, "--min-difficulty", 0)
    result = run("--output-dir", parent / "a" / "b", *arguments)
    assert_refused(result, f"error: {source_dir / file}:7: ", reason)
    assert list(parent.iterdir()) == []


def test_duplicate_is_refused(run: Callable, tmp_path: Path, source_dir: Path) -> None:
    lines = (source_dir / "train.csv").read_text().splitlines()
    (source_dir / "train.csv").write_text("\n".join([*lines, lines[3]]) + "\n")
    result = run("--output-dir", tmp_path / "out", "--source-dir", source_dir)
    assert_refused(result, "train.csv:22: same question as in line 4")
    assert not (tmp_path / "out").exists()


def test_fewer_puzzles_than_asked_for_are_all_taken(
    run: Callable, tmp_path: Path, source_dir: Path
) -> None:
    arguments = ("--output-dir", tmp_path / "out", "--source-dir", source_dir)
    code, _, err = run(*arguments, "--subsample-size", 21)
    assert code == 0 and "--subsample-size 21: only 20 puzzles in" in err
    assert "0 of 20 training puzzles are test puzzles up to symmetry" in err
    assert read_metadata(tmp_path / "out" / "train").total_groups == 20


def test_leakage_is_refused_unless_allowed(run: Callable, tmp_path: Path, source_dir: Path) -> None:
    train, test = generate_split((2, 3), 20, 8, seed=9)
    leaked = augment(train[0][13:14], train[1][13:14], (2, 3), np.random.default_rng(0))
    assert (leaked[0] != train[0][13]).any()
    mixed = [np.concatenate([own, other]) for own, other in zip(test, leaked, strict=True)]
    (source_dir / "test.csv").write_text(csv_text(mixed[0], mixed[1]))
    arguments = ("--output-dir", tmp_path / "out", "--source-dir", source_dir)
    result = run(*arguments, "--subsample-size", 2)
    said = "1 training puzzle is a test puzzle", "train.csv:15 is", "test.csv:10", "--allow-leakage"
    assert_refused(result, *said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    assert run(*arguments, "--allow-leakage")[0] == 0


def test_all_leakage_is_counted_and_can_be_dropped(
    run: Callable, tmp_path: Path, source_dir: Path
) -> None:
    """Training puzzles are dropped, never test puzzles, whatever else is drawn of them."""
    train, _ = generate_split((2, 3), 20, 8, seed=9)
    leaked = [2, 3, 5, 11, 13]
    chosen = train[0][leaked], train[1][leaked]
    (source_dir / "test.csv").write_text(
        csv_text(*augment(*chosen, (2, 3), np.random.default_rng(0)))
    )
    arguments = ("--output-dir", tmp_path / "out", "--source-dir", source_dir)
    named = "train.csv:4 is", "test.csv:2,", "train.csv:5 is", "train.csv:7 is", "…"
    refused = run(*arguments)
    assert_refused(refused, "5 training puzzles are test puzzles", *named, "--drop-equivalent")
    assert "train.csv:13" not in refused[2]
    code, _, err = run(*arguments, "--drop-equivalent")
    assert code == 0 and err.startswith("5 training puzzles are") and "dropped" in err
    names = json.loads((tmp_path / "out" / "identifiers.json").read_text())
    questions = np.delete(train[0], leaked, axis=0)
    assert names == ["".join(".123456"[token] for token in row) for row in questions]
    assert len(np.load(tmp_path / "out/test/test__inputs.npy")) == 5


def test_dropping_all_puzzles_is_refused(run: Callable, tmp_path: Path, source_dir: Path) -> None:
    (source_dir / "test.csv").write_text((source_dir / "train.csv").read_text())
    words = ("--output-dir", tmp_path / "out", "--source-dir", source_dir, "--drop-equivalent")
    code, _, err = run(*words)
    assert code == 2 and not (tmp_path / "out").exists()
    assert err.startswith("20 training puzzles are test puzzles")
    assert "--drop-equivalent leaves no training puzzle" in err


def test_equal_hashes_alone_are_no_leakage(
    run: Callable, tmp_path: Path, source_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        leakage, "canonical_hash", lambda rows, box_shape: np.zeros(len(rows), np.uint64)
    )
    assert run("--output-dir", tmp_path / "out", "--source-dir", source_dir)[0] == 0


def test_splits_of_different_size_are_refused(
    run: Callable, tmp_path: Path, source_dir: Path
) -> None:
    train, _ = generate_split((2, 2), 3, 0, seed=0)
    (source_dir / "test.csv").write_text(csv_text(*train))
    result = run("--output-dir", tmp_path / "out", "--source-dir", source_dir)
    assert_refused(result, "test.csv:2: question: 16 characters, expected 36")


def test_other_box_shape_must_fit_the_answers(
    run: Callable, tmp_path: Path, source_dir: Path
) -> None:
    arguments = ("--output-dir", tmp_path / "out", "--source-dir", source_dir)
    assert_refused(run(*arguments, "--box", "3x2"), "train.csv:2: ", "box of 3x2")
    assert_refused(run(*arguments, "--box", "3x3"), "train.csv:2: ", "expected 81")


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        ("--generate 2x2 --source-dir .", ["--source-dir", "--generate"]),
        ("--source-repo a/b --source-dir .", ["--source-repo", "--source-dir"]),
        ("--source-dir . --givens 4-7", ["--givens", "--generate"]),
        ("--source-dir . --num-train 4", ["--num-train"]),
        ("--generate 2x2 --subsample-size 4", ["--subsample-size"]),
        ("--generate 2x2 --min-difficulty 0", ["--min-difficulty"]),
        ("--generate 2x2 --allow-leakage", ["--allow-leakage"]),
        ("--generate 2x2 --drop-equivalent", ["--drop-equivalent"]),
        ("--source-dir . --drop-equivalent --allow-leakage", ["exclude each other"]),
        ("--generate 2x2 --num-aug -1", ["--num-aug -1"]),
        ("--generate 2x2 --num-train 0", ["--num-train 0"]),
        ("--generate 2x2 --num-test -1", ["--num-test -1"]),
        ("--generate 2x2 --seed -1", ["--seed -1"]),
        ("--generate 2x2 --givens many", ["--givens many"]),
        ("--generate 2x2 --givens 4-", ["--givens 4-"]),
        ("--generate 2x2 --givens 2", ["--givens 2"]),
        ("--generate 2x2 --givens 9-4", ["--givens 9-4"]),
        ("--generate 2", ["--generate", "ROWSxCOLUMNS"]),
        ("--generate 6x6", ["--generate", "6x6"]),
        ("--generate 2x2 --identifiers per-puzzle --format original", ["--identifiers"]),
        ("--generate 2x2 --format other", ["--format"]),
        ("--generate 2x2 --sed 3", ["--sed"]),
        ("--num-aug x", ["--num-aug"]),
        ("--source-dir absent", ["--source-dir absent"]),
        ("--source-dir .", ["train.csv: not found"]),
        ("--source-dir source --subsample-size 0", ["--subsample-size 0"]),
        ("--source-dir source --min-difficulty 9", ["--min-difficulty 9"]),
    ],
)
def test_contradictions_are_one_line(
    run: Callable,
    tmp_path: Path,
    source_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    reasons: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run("--output-dir", "out", *arguments.split()), *reasons)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# ---- the output folder ----


def test_existing_folder_is_replaced_only_when_asked(run: Callable, tmp_path: Path) -> None:
    output = tmp_path / "data"
    output.mkdir()
    arguments = ("--output-dir", output, "--generate", "2x2", "--num-train", 5, "--num-test", 2)
    assert run(*arguments)[0] == 0  # an empty folder is fine
    before = tree(output)
    assert_refused(run(*arguments, "--seed", 1), f"--output-dir {output} exists", "--overwrite")
    assert_refused(run(*arguments, "--overwrite", "--givens", 2), "--givens")
    assert tree(output) == before
    assert run(*arguments, "--seed", 1, "--overwrite")[0] == 0
    assert tree(output) != before
    assert list(tmp_path.iterdir()) == [output]


def test_overwrite_spares_what_is_no_data_set(
    run: Callable, tmp_path: Path, source_dir: Path
) -> None:
    result = run("--output-dir", source_dir, "--generate", "2x2", "--overwrite")
    assert_refused(result, "not a data set")
    (source_dir / "identifiers.json").write_text("[]")
    result = run("--output-dir", source_dir, "--source-dir", source_dir, "--overwrite")
    assert_refused(result, "holds --source-dir")
    assert (source_dir / "train.csv").exists()


def test_what_another_build_has_made_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with pytest.raises(UserError, match="exists"), writer.new_dataset(target) as building:
        (building / "mine").touch()
        target.mkdir()
        (target / "identifiers.json").touch()
    assert [path.name for path in target.iterdir()] == ["identifiers.json"]
    assert list(tmp_path.iterdir()) == [target]


def test_output_may_not_be_a_file(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in ("file", "file/below"):
        assert_refused(run("--output-dir", tmp_path / output, "--generate", "2x2"), "--output-dir")


def test_full_disk_is_one_line(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer, "write_metadata", full)
    result = run("--output-dir", tmp_path / "a" / "b", "--generate", "2x2")
    assert_refused(result, "--output-dir", "disk is full")
    assert list(tmp_path.iterdir()) == []


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_leaves_nothing_behind(tmp_path: Path, signal_number: int) -> None:
    parent = tmp_path / "out"
    parent.mkdir()
    arguments = ("--generate", "3x3", "--num-train", 10**6, "--output-dir", parent / "data")
    pipe = subprocess.PIPE
    with started(command(*arguments), stdout=pipe, stderr=pipe) as process:
        wait_for(lambda: any(parent.iterdir()))
        process.send_signal(signal_number)
        out, err = process.communicate(timeout=LONG)
    assert (process.returncode, out, err) == (128 + signal_number, "", "interrupted\n")
    assert list(parent.iterdir()) == []


# ---- downloading ----


def run_download(tmp_path: Path, endpoint: str, *arguments: object) -> tuple[int, str, str]:
    environment = {
        **{
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        },
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        command("--output-dir", tmp_path / "out" / "data", *arguments),
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    return done.returncode, done.stdout, done.stderr


def test_no_network_is_one_line_soon(tmp_path: Path) -> None:
    began = time.monotonic()
    result = run_download(tmp_path, "http://127.0.0.1:9")
    assert_refused(result, "sapientinc/sudoku-extreme", "--source-dir", "--generate")
    assert time.monotonic() - began < 15
    assert not (tmp_path / "out").exists()


@pytest.fixture
def hub(source_dir: Path) -> Iterator[str]:
    train, test = ((source_dir / name).read_bytes() for name in ("train.csv", "test.csv"))
    repositories = {
        "datasets/me/both": {
            "main": {"train.csv": train, "test.csv": test},
            "first": {"train.csv": train},
        },
        "datasets/me/train-only": {"main": {"train.csv": train}},
        "datasets/me/inner": {"main": {"old/train.csv": train, "README.md": b"none"}},
        "datasets/me/bad": {"main": {"train.csv": b"no,such,header\n", "test.csv": b""}},
    }
    with serving(FakeHub(repositories)) as fake:
        yield fake.url


def test_downloads_from_a_hub(tmp_path: Path, hub: str) -> None:
    result = run_download(tmp_path, hub, "--source-repo", "me/both", "--num-aug", 1)
    assert result[0] == 0, result[2]
    assert "40 training rows (20 puzzles) and 8 test puzzles" in result[1]
    again = run_download(tmp_path, "http://127.0.0.1:9", "--source-repo", "me/both", "--overwrite")
    assert again[0] == 0
    assert "cannot be reached; train.csv, test.csv as downloaded earlier" in again[2]


def test_downloads_a_repository_without_test_split(tmp_path: Path, hub: str) -> None:
    code, out, err = run_download(tmp_path, hub, "--source-repo", "me/train-only")
    assert code == 0, err
    assert "0 test puzzles" in out
    assert err == "note: --source-repo me/train-only: has no test.csv, so there is no test split\n"


def test_downloads_a_revision_and_a_folder(tmp_path: Path, hub: str) -> None:
    for repo in ("hf://datasets/me/both@first", "me/inner/old"):
        code, out, err = run_download(tmp_path, hub, "--source-repo", repo, "--overwrite")
        assert code == 0, err
        assert "(20 puzzles) and 0 test puzzles" in out


@pytest.mark.parametrize(
    ("repo", "reason"),
    [
        ("me/absent", "no such repository, or a private one"),
        ("a b", "expected hf://user/name"),
        ("me/both@never", "has no revision never"),
        ("me/inner", "has no train.csv"),
        ("me/bad", ":1: "),
    ],
)
def test_failed_download_is_one_line(tmp_path: Path, hub: str, repo: str, reason: str) -> None:
    assert_refused(run_download(tmp_path, hub, "--source-repo", repo), reason)
    assert not (tmp_path / "out").exists()


def test_help_lists_the_options_of_the_original() -> None:
    done = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
    for option in ("output-dir", "subsample-size", "num-aug", "min-difficulty", "source-repo"):
        assert f"--{option}" in done.stdout


def test_builder_does_not_import_torch() -> None:
    check = "import sys; import hrm.tasks.sudoku.builder; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
