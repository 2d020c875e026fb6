"""Every flag of `report.py` acts."""

import shutil
from pathlib import Path

import pytest
import torch

from .commands import KEYS, command, done
from .registry import Registry
from .training import PUZZLES, TEST_PUZZLES, VERSIONS

acts = Registry()


@pytest.fixture
def run_dir(plain, tmp_path) -> Path:
    """A run that a test may write into."""
    return Path(shutil.copytree(plain.path, tmp_path / "mine"))


def reported(run_dir: Path, *flags: object) -> str:
    """The page about one run, written where no picture is."""
    path = run_dir / "page.html"
    done("report", run_dir, "--device", "cpu", "--output", path, *flags)
    return path.read_text(encoding="utf-8")


@acts("runs")
def test_the_runs_are_those_that_are_named(run_dir, tmp_path, monkeypatch):
    done("report", run_dir, "--curves-only", "--device", "cpu")
    assert "Training report: mine" in (run_dir / "report.html").read_text(encoding="utf-8")
    assert (run_dir / "learning_curves.png").is_file()
    other = shutil.copytree(run_dir, tmp_path / "yours")
    monkeypatch.chdir(tmp_path)
    out = done("report", run_dir, other, "--curves-only", "--device", "cpu")
    assert "mine\n" in out and "yours\n" in out
    assert "2 runs compared" in Path("report.html").read_text(encoding="utf-8")


@acts("output")
def test_the_page_is_written_where_asked(run_dir, tmp_path):
    done("report", run_dir, "--curves-only", "--device", "cpu", "--output", tmp_path / "page.html")
    assert "Training report: mine" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not (run_dir / "report.html").exists()
    assert not (run_dir / "learning_curves.png").exists()


@acts("data")
def test_the_puzzles_are_those_of_the_data_that_are_named(run_dir, data, other_data):
    assert f"{TEST_PUZZLES} puzzles of {data}/test" in reported(run_dir)
    assert f"5 puzzles of {other_data}/test" in reported(run_dir, "--data", other_data)


@acts("split")
def test_the_split_is_the_one_that_is_named(run_dir, data):
    page = reported(run_dir, "--split", "train")
    assert f"{PUZZLES * VERSIONS} puzzles of {data}/train" in page


@acts("limit")
def test_at_most_so_many_puzzles_are_solved(run_dir, data):
    assert f"3 puzzles of {data}/test" in reported(run_dir, "--limit", 3)


@acts("curves_only")
def test_no_puzzle_is_solved_where_only_curves_are_asked_for(run_dir):
    assert "Accuracy by number of ACT steps" not in reported(run_dir, "--curves-only")
    assert "Accuracy by number of ACT steps" in reported(run_dir)


@acts("device")
def test_the_device_is_the_one_that_is_named(run_dir, monkeypatch, no_accelerator):
    code, _, err = command("report", run_dir, "--device", "cuda")
    assert code == 0 and "device=cuda: not available" in err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert f"{TEST_PUZZLES} puzzles of" in reported(run_dir)


def test_every_flag_has_a_test():
    acts.check(KEYS["report"])
