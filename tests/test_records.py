"""`metrics.jsonl` read back: whole, cut off, damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from hrm.errors import UserError
from hrm.records import best_evaluation, last_of, read_records

from .mutations import BYTE_MUTATIONS, assert_one_line, pick

RECORDS = (
    {"step": 10, "train/exact_accuracy": 0.25, "train/lm_loss": 1.5, "train/count": 64.0},
    {"step": 10, "eval/exact_accuracy": 0.5, "eval/accuracy": 0.75, "eval/count": 1500.0},
    {"step": 20, "train/exact_accuracy": 0.5, "train/lm_loss": 1.0, "train/count": 60.0},
    {"step": 20, "eval/exact_accuracy": 0.375, "eval/accuracy": 0.8, "eval/count": 1500.0},
)


def write_metrics(folder: Path, tail: str = "") -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in RECORDS) + tail)
    return path


def test_leaves_out_a_last_line_that_was_cut_off(tmp_path, capsys):
    path = write_metrics(tmp_path, tail='{"step": 30, "train/lm_')
    assert read_records(path) == list(RECORDS)
    assert capsys.readouterr().err == f"note: {path}:5: cut off; left out\n"


def test_keeps_a_whole_last_line_without_its_line_break(tmp_path):
    path = write_metrics(tmp_path, tail='{"step": 30, "train/lm_loss": NaN, "note": "x"}')
    last = read_records(path)[-1]
    assert last.keys() == {"step", "train/lm_loss"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": not found; name the folder of a run"),
        (b"", ": holds no metrics yet"),
        (b'{"step": 1}\nnonsense\n{"step": 2}\n', ":2: damaged; delete that line"),
        (b'{"step": 1}\n[1]\n', ":2: damaged"),
        (b'{"loss": 1}\n', ":1: damaged"),
        (b"\xff\xfe\x00", ": cannot be read"),
    ],
)
def test_refuses_metrics_that_are_not_there_or_damaged(tmp_path, content, message):
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_records(path)
    assert str(caught.value).startswith(f"{path}{message}") and "\n" not in str(caught.value)


def test_survives_damaged_metrics(tmp_path, capsys):
    path = write_metrics(tmp_path)
    text = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        path.write_bytes(pick(rng, BYTE_MUTATIONS)(text, rng))
        try:
            read_records(path)
        except UserError as error:
            assert_one_line(error, str(path))


@pytest.mark.parametrize("value", ["1" + "0" * 400, "1e308", "-1e308", "1" * 5000])
@pytest.mark.parametrize("name", ["step", "eval/steps", "train/lm_loss"])
def test_refuses_numbers_that_no_metric_has(tmp_path, name, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "{name}": {value}}}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match="metrics.jsonl:1: damaged"):
        read_records(path)


def test_newest_and_best_records():
    assert last_of(RECORDS, "eval") is RECORDS[3] and last_of(RECORDS, "train") is RECORDS[2]
    assert best_evaluation(RECORDS, "exact_accuracy") is RECORDS[1]
    assert (
        last_of(RECORDS[:1], "eval") == {}
        and best_evaluation(RECORDS[:1], "exact_accuracy") is None
    )


def test_the_best_is_by_the_metric_that_is_asked_for():
    assert best_evaluation(RECORDS, "unknown") is None
    scored = [r | {"eval/score": -r["step"]} for r in RECORDS if "eval/exact_accuracy" in r]
    assert best_evaluation(scored, "score") is scored[0]
