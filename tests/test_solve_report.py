"""`solve.py` and `report.py` as typed: what they print, and one line for each mistake."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import report
import solve
from hrm.checkpoint import build_for, save_checkpoint
from hrm.config import load_pretrain_config, load_solve_config
from hrm.data.format import read_metadata
from hrm.errors import UserError, run_command
from hrm.inference import Solution
from hrm.viz import GridLook

from .conftest import SMALL_MODEL, Run
from .mutations import BYTE_MUTATIONS, assert_one_line, pick

RECORDS = (
    {"step": 10, "train/exact_accuracy": 0.25, "train/lm_loss": 1.5, "train/count": 64.0},
    {"step": 10, "eval/exact_accuracy": 0.5, "eval/accuracy": 0.75, "eval/count": 1500.0},
    {"step": 20, "train/exact_accuracy": 0.5, "train/lm_loss": 1.0, "train/count": 60.0},
    {"step": 20, "eval/exact_accuracy": 0.375, "eval/accuracy": 0.8, "eval/count": 1500.0},
)


@pytest.fixture(scope="module")
def run_dir(data_4x4, tmp_path_factory) -> Path:
    """A run's folder with one checkpoint of fresh weights."""
    folder = tmp_path_factory.mktemp("runs") / "fresh"
    config = load_pretrain_config([f"data_path={data_4x4}", "run_name=fresh", *SMALL_MODEL])
    metadata = read_metadata(data_4x4 / "train")
    torch.manual_seed(0)
    save_checkpoint(folder, 7, config, metadata, build_for(config, metadata).state_dict())
    return folder


@pytest.fixture
def call(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a script's `main` in this process: exit code, stdout, stderr."""

    def run(main: Callable[[], None], *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        monkeypatch.setenv("COLUMNS", "100")
        code = 0
        try:
            run_command(main)
        except SystemExit as exit:
            code = int(exit.code or 0)
        return code, *capsys.readouterr()

    return run


def write_metrics(folder: Path, tail: str = "") -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in RECORDS) + tail)
    return path


def test_solve_shows_the_first_test_puzzle_step_by_step(run_script: Run, run_dir, data_4x4):
    done = run_script("solve.py", f"checkpoint={run_dir}")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"puzzle 0 of 40 in {data_4x4 / 'test'}, {run_dir / 'step_7'}"
    assert "givens" in lines[2] and "step 1, halt 0.7%" in lines[2]
    assert "\x1b" not in done.stdout
    assert lines[-1].startswith("not solved: ") and lines[-1].endswith("after 4 ACT steps")


LOOK = GridLook((4, 4), (2, 2), ".1234")
RIGHT = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1])
GIVEN = np.where(np.arange(16) % 3 == 0, RIGHT, 0)


def solution(*steps: np.ndarray) -> Solution:
    logits = np.linspace(-2, 2, len(steps), dtype=np.float32)
    return Solution(GIVEN, np.stack(steps), logits, -logits)


def test_verdict_counts_from_the_step_that_stays_right():
    wrong = np.where(np.arange(16) == 1, 3, RIGHT)
    task = solve.Task("", GIVEN, RIGHT)
    right = solve.verdict(solution(RIGHT, wrong, RIGHT, RIGHT), task, LOOK)
    assert right == "solved exactly in 4 ACT steps (right from step 3 on)"
    not_right = solve.verdict(solution(RIGHT, wrong), task, LOOK)
    assert not_right == "not solved: 1 of 16 cells wrong after 2 ACT steps"


def test_verdict_without_an_answer_goes_by_the_rules():
    task = solve.Task("", GIVEN)
    valid = solve.verdict(solution(RIGHT), task, LOOK)
    assert valid == "solved: a valid solution in 1 ACT step"
    maze = GridLook((4, 4), None, "_# SGo")
    unknown = solve.verdict(solution(RIGHT, RIGHT), task, maze)
    assert unknown == "answered in 2 ACT steps; the right answer is not known"


def test_steps_that_change_nothing_share_a_grid():
    wrong = np.where(np.arange(16) == 1, 3, RIGHT)
    drawn = solve.draw(solution(wrong, RIGHT, RIGHT), solve.Task("", GIVEN, RIGHT), LOOK, False)
    titles = next(line for line in drawn.splitlines() if "step" in line)
    assert titles.split("   ")[0] == "puzzle, 6 givens"
    assert "step 1, halt 11.9%" in titles and titles.endswith("steps 2-3, halt 88.1%")
    assert drawn.splitlines()[3].count("!3") == 1 and drawn.splitlines()[3].count("+2") == 1


def test_solve_takes_a_puzzle_and_says_that_it_has_no_solution(call, run_dir):
    puzzle = "1100" + "0" * 12
    code, out, err = call(solve.main, f"checkpoint={run_dir / 'step_7'}", f"puzzle={puzzle}")
    assert (code, err) == (0, "")
    assert "│ 1  1 │ .  . │" in out
    assert out.splitlines()[-1] == (
        "not solved: no valid solution after 4 ACT steps; "
        "it has no solution: 1 is given 2 times in row 1"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["puzzle=12"], "puzzle: 2 characters, expected 16 (4x4)"),
        (["puzzle=" + "x" * 16], "puzzle: character 'x' is not one of '.1234'"),
        (["index=40"], "index=40: "),
        (["split=other"], "no other/dataset.json; name a data set with data_path="),
        (["halting=never"], "solve.py: halting: "),
        (["indx=1"], "solve.py: indx: unknown key"),
    ],
)
def test_solve_refuses_in_one_line(call, run_dir, arguments, message):
    code, out, err = call(solve.main, f"checkpoint={run_dir}", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_solve_as_a_command_refuses_without_a_traceback(run_script: Run, run_dir):
    done = run_script("solve.py", f"checkpoint={run_dir}", "puzzle=12")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: puzzle: 2 characters, expected 16 (4x4)\n"


def test_solve_needs_a_checkpoint():
    with pytest.raises(UserError, match="solve.py: checkpoint: is required"):
        load_solve_config([])


@pytest.mark.parametrize("puzzle", ["0012003400000000", "1e10", "# S ${x}", "{a: b}", ""])
def test_solve_takes_the_puzzle_literally(puzzle):
    config = load_solve_config(["checkpoint=x", "index=3", f"puzzle={puzzle}"])
    assert (config.puzzle, config.index) == (puzzle, 3)


@pytest.mark.parametrize("script", [solve, report])
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
