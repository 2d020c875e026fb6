"""Own grids of several sizes, from lines to a report: every command takes them."""

import json
from pathlib import Path

import pytest

from hrm.checkpoint import load_checkpoint
from hrm.web.local_page import describe_page

from ...conftest import SMALL_MODEL, Call

SHORT = ("epochs=2", "eval_interval=2", "global_batch_size=5", "arch.pos_encodings=grid")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Grids of letters of several sizes, each mirrored."""
    path = tmp_path_factory.mktemp("own") / "lines.jsonl"
    rows = ["ab", "bb", "ca", "abc", "a", "cc", "bac", "b", "cab", "ba"]
    examples = [[row] * (1 + n % 3) for n, row in enumerate(rows * 2)]
    with path.open("w") as file:
        for number, grid in enumerate(examples):
            flipped = [row[::-1] for row in grid]
            split = "train" if number < 15 else "test"
            line = {"input": grid, "output": flipped, "split": split}
            file.write(json.dumps(line) + "\n")
    return path


def test_from_lines_to_a_report(call: Call, source: Path, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    words = ("--source", str(source), "--output-dir", str(data), "--allow-leakage")
    code, out, err = call("build", "grids", *words)
    assert (code, err) == (0, "") and "grids of up to 3x3 cells, 3 symbols" in out
    assert call("train", str(data), f"checkpoint_path={run}", *SMALL_MODEL, *SHORT)[0] == 0
    code, out, _ = call("evaluate", str(run), "--device", "cpu")
    assert code == 0 and "exact_accuracy" in out

    solving = ("solve", str(run), "--device", "cpu")
    code, out, err = call(*solving, "--index", "0", "--trace")
    assert code in (0, 1) and "cells wrong" in out and "¦" in out
    for words in (("ab/ba",), ("abc\nbca",)):
        code, out, _ = call(*solving, *words)
        assert code == 0 and "the right answer is not known" in out
    grids = tmp_path / "grids.txt"
    grids.write_text("ab\nba\n\nabc\n")
    code, out, _ = call(*solving, "--file", str(grids), "--format", "json")
    shown = [json.loads(line)["puzzle"] for line in out.splitlines()]
    assert code == 0 and shown == ["ab¦ba¦¦¦_", "abc¦¦¦___"]
    code, _, err = call(*solving, "abca")
    assert code == 2 and "1x4 cells, expected at most 3x3" in err

    page = tmp_path / "report.html"
    assert call("report", str(run), "--output", str(page), "--device", "cpu")[0] == 0
    assert "¦" in page.read_text()
    assert describe_page(load_checkpoint(run))["versions"] == []
