"""`report.py` as typed: what it prints, and one line for each mistake."""

import json
from pathlib import Path

import numpy as np
import pytest

import report
from hrm.errors import UserError

from .conftest import Run
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


@pytest.mark.parametrize("script", [report])
def test_help(call, script):
    code, out, err = call(script.main, "--help")
    assert (code, err) == (0, "") and f"python {script.__name__}.py" in out


def test_report_writes_the_curves_and_prints_the_table(call, tmp_path):
    write_metrics(tmp_path)
    code, out, err = call(report.main, f"run={tmp_path}")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "                        eval       train",
        "step                      20          20",
        "exact accuracy         37.5%       50.0%",
        "token accuracy         80.0%           -",
        "ACT steps                  -           -",
        "lm_loss                    -      1.0000",
        "q_halt_accuracy            -           -",
        "sequences              1,500          60",
        "best eval exact accuracy: 50.0% at step 10",
        f"learning curves: {tmp_path / 'learning_curves.png'}",
    ]
    assert (tmp_path / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_report_leaves_out_a_last_line_that_was_cut_off(tmp_path, capsys):
    path = write_metrics(tmp_path, tail='{"step": 30, "train/lm_')
    assert report.read_records(path) == list(RECORDS)
    assert capsys.readouterr().err == f"note: {path}:5: cut off; left out\n"


def test_report_keeps_a_whole_last_line_without_its_line_break(tmp_path):
    path = write_metrics(tmp_path, tail='{"step": 30, "train/lm_loss": NaN, "note": "x"}')
    last = report.read_records(path)[-1]
    assert last.keys() == {"step", "train/lm_loss"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": not found; run= must name the folder of a run"),
        (b"", ": holds no metrics yet"),
        (b'{"step": 1}\nnonsense\n{"step": 2}\n', ":2: damaged; delete that line"),
        (b'{"step": 1}\n[1]\n', ":2: damaged"),
        (b'{"loss": 1}\n', ":1: damaged"),
        (b"\xff\xfe\x00", ": cannot be read"),
    ],
)
def test_report_refuses_metrics_that_are_not_there_or_damaged(tmp_path, content, message):
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        report.read_records(path)
    assert str(caught.value).startswith(f"{path}{message}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [["run=nowhere"], [], ["nowhere"], ["run=a", "x=1"]])
def test_report_refuses_in_one_line(call, arguments):
    code, out, err = call(report.main, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1


def test_report_as_a_command_refuses_without_a_traceback(run_script: Run):
    done = run_script("report.py", "run=nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere/metrics.jsonl: not found")
    assert done.stderr.count("\n") == 1


def test_report_works_before_the_first_evaluation():
    assert report.summary(RECORDS[:1]).endswith("no evaluation yet")


def test_report_survives_damaged_metrics(tmp_path, capsys):
    path = write_metrics(tmp_path)
    text = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        path.write_bytes(pick(rng, BYTE_MUTATIONS)(text, rng))
        try:
            report.summary(report.read_records(path))
        except UserError as error:
            assert_one_line(error, str(path))


@pytest.mark.parametrize("value", ["1" + "0" * 400, "1e308", "-1e308", "1" * 5000])
@pytest.mark.parametrize("name", ["step", "eval/steps", "train/lm_loss"])
def test_report_refuses_numbers_that_no_metric_has(tmp_path, name, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "{name}": {value}}}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match="metrics.jsonl:1: damaged"):
        report.read_records(path)


@pytest.mark.parametrize("value", ["-Infinity", "9e99", "-1"])
@pytest.mark.parametrize("name", ["eval/steps", "eval/exact_accuracy"])
def test_report_draws_any_number(call, tmp_path, name, value):
    write_metrics(tmp_path, tail=f'{{"step": 30, "{name}": {value}}}\n')
    code, out, err = call(report.main, f"run={tmp_path}")
    assert (code, err) == (0, "") and out
