"""`hrm report` as typed: what it prints and writes, and one line for each mistake."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hrm.checkpoint import build_for, save_checkpoint, save_config
from hrm.cli.report import summary
from hrm.data.format import read_metadata
from hrm.inference import Solver
from hrm.inference.sources import from_split
from hrm.report.runs import RunReport, solve
from hrm.training.config import load_pretrain_config

from ..conftest import SMALL_MODEL, Run
from ..test_records import RECORDS, write_metrics


def fresh_run(folder: Path, data: Path, *keys: str) -> Path:
    """A run's folder with metrics and one checkpoint of fresh weights."""
    config = load_pretrain_config([f"data_path={data}", "run_name=fresh", *SMALL_MODEL, *keys])
    metadata = read_metadata(data / "train")
    torch.manual_seed(0)
    save_checkpoint(folder, 7, config, metadata, build_for(config, metadata).state_dict())
    save_config(config, folder / "all_config.yaml")
    write_metrics(folder)
    return folder


@pytest.fixture(scope="module")
def run_dir(data_4x4, tmp_path_factory) -> Path:
    return fresh_run(tmp_path_factory.mktemp("runs") / "fresh", data_4x4)


def test_learned_halting_may_take_more_steps_than_training(call, data_4x4, tmp_path):
    run = fresh_run(tmp_path / "longer", data_4x4, "eval_max_steps=9", "eval_halt_probability=1")
    code, _, err = call("report", str(run), "--limit", "5")
    assert (code, err) == (0, "")
    assert "9.00 on average, 9 at most" in (run / "report.html").read_text()


def test_help(call):
    code, out, err = call("report", "--help")
    assert (code, err) == (0, "") and "hrm report RUN …" in out


def test_one_run_writes_page_and_curves_and_prints_the_table(call, run_dir):
    code, out, err = call("report", str(run_dir))
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
        f"learning curves: {run_dir / 'learning_curves.png'}",
        f"report: {run_dir / 'report.html'}",
    ]
    assert (run_dir / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    page = (run_dir / "report.html").read_text()
    assert "40 puzzles of" in page and "Worst failures" in page and "When it halts" in page
    assert page.count("Where the answer&#x27;s state goes") == 1 and "z_L, test[" in page
    assert {p.name for p in run_dir.iterdir()} == {
        *("all_config.yaml", "metrics.jsonl", "step_7", "learning_curves.png", "report.html"),
    }


def test_the_same_runs_give_the_same_bytes(call, run_dir, tmp_path):
    for name in ("a", "b"):
        code, _, _ = call("report", str(run_dir), "--output", str(tmp_path / name))
        assert code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_attention_is_that_of_the_first_wrong_cell_or_the_first_open_one(run_dir, data_4x4):
    solver = Solver.from_checkpoint(run_dir / "step_7", "cpu")
    [puzzle] = from_split(data_4x4, "test", solver.metadata, limit=1)
    answered = solver.solve([puzzle.inputs], halting="max_steps")[0].tokens
    wrong = answered.copy()
    wrong[[5, 9]] = answered[[5, 9]] % 4 + 1
    for answer, cell in ((wrong, 5), (answered, np.flatnonzero(puzzle.inputs == 0)[0])):
        [inside] = solve(solver, [replace(puzzle, answer=answer)]).inside.values()
        assert inside.cell == cell and len(inside.attention) > 1


def test_a_model_that_has_diverged_has_a_report_and_answers(call, data_4x4, tmp_path):
    run = fresh_run(tmp_path / "diverged", data_4x4)
    weights = load_file(run / "step_7" / "model.safetensors")
    broken = {name: tensor.fill_(float("nan")) for name, tensor in weights.items()}
    config = load_pretrain_config([*SMALL_MODEL, f"data_path={data_4x4}", "run_name=diverged"])
    save_checkpoint(run, 8, config, read_metadata(data_4x4 / "train"), broken)
    code, _, err = call("report", str(run), "--limit", "5")
    assert (code, err) == (0, "")
    code, out, _ = call("solve", str(run), "1...............", "--format", "json")
    assert code == 1 and "NaN" not in out and json.loads(out)["halt_probability"] == 0


def test_several_runs_make_one_page_in_the_current_folder(call, run_dir, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    config = (other / "all_config.yaml").read_text()
    (other / "all_config.yaml").write_text(config.replace("lr: 0.001", "lr: 0.002"))
    monkeypatch.chdir(tmp_path)
    code, out, err = call("report", str(run_dir), "other", "--limit", "5")
    assert (code, err) == (0, "") and out.endswith("report: report.html\n")
    assert out.startswith("fresh\n") and "\nother\n" in out
    page = (tmp_path / "report.html").read_text()
    assert "2 runs compared" in page and page.count("5 puzzles of") == 2
    assert '<th scope="row">lr</th><td>0.001</td><td>0.002</td>' in page
    assert '<th scope="row">epochs</th>' not in page


def test_curves_only_solves_nothing(call, run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("hrm.inference.solver.Solver.solve", None)
    target = tmp_path / "x.html"
    code, _, err = call("report", str(run_dir), "--curves-only", "--output", str(target))
    assert (code, err) == (0, "")
    page = target.read_text()
    assert "Learning curves" in page and "halts by itself" not in page


def test_without_checkpoint_and_configuration_the_curves_remain(call, tmp_path):
    write_metrics(tmp_path)
    code, out, err = call("report", str(tmp_path))
    assert code == 0 and out.endswith(f"report: {tmp_path / 'report.html'}\n")
    assert len(err.splitlines()) == 2 and all(n.startswith("note: ") for n in err.splitlines())
    page = (tmp_path / "report.html").read_text()
    assert "holds neither model.safetensors nor step_&lt;n&gt;" in page
    assert "all_config.yaml: not found" in page and page.count("<figure>") == 4


def test_without_its_data_set_a_run_keeps_its_curves(call, run_dir, tmp_path):
    target = tmp_path / "x.html"
    code, _, err = call(
        "report", str(run_dir), "--data", str(tmp_path / "gone"), "--output", str(target)
    )
    assert code == 0 and err.startswith("note: fresh: ") and err.count("\n") == 1
    page = target.read_text()
    assert "gone/test/dataset.json: not found; there is no " in page
    assert "<td>7</td>" in page and page.count("<figure>") == 4


def test_a_damaged_checkpoint_is_reported(call, run_dir, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_dir, folder)
    (folder / "step_7" / "model.safetensors").write_bytes(b"x")
    code, _, err = call("report", str(folder))
    assert code == 0 and "model.safetensors" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=nowhere"], "run=nowhere: unknown key"),
        (["lr=1/nowhere", "a"], "lr=1/nowhere: unknown key"),
        ([], "runs: "),
        (["nowhere"], "nowhere/metrics.jsonl: not found in "),
        (["a", "--limit", "0"], "limit"),
        (["a", "--split", "../x"], "split"),
        (["a", "--device", "abacus"], "device"),
        (["a", "--colour"], "--colour"),
        ([".", "."], ".: named twice"),
    ],
)
def test_refuses_in_one_line(call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("report", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_as_a_command_refuses_without_a_traceback(run_script: Run):
    done = run_script("report.py", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere/metrics.jsonl: not found")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_line_and_leaves_the_old_page(call, tmp_path, monkeypatch):
    write_metrics(tmp_path)
    target = tmp_path / "page.html"
    target.write_text("old")
    write = Path.write_text

    def full(path: Path, text: str, **options) -> int:
        write(path, text[:100], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    code, _, err = call("report", str(tmp_path), "--output", str(target))
    assert code == 2
    assert err.splitlines()[-1] == f"error: {target}: cannot be written (No space left on device)"
    assert target.read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.jsonl", "page.html"}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (".", "--output .: is a folder"),
        ("missing/page.html", "there is no folder missing"),
        ("metrics.jsonl/page.html", "there is no folder metrics.jsonl"),
    ],
)
def test_an_impossible_output_is_reported_before_the_work(
    call, tmp_path, monkeypatch, output, message
):
    write_metrics(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = call("report", ".", "--output", output)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.jsonl"}


def test_summary_works_before_the_first_evaluation():
    run = RunReport("x", Path("x"), RECORDS[:1], None, None, None, None, None)
    assert summary(run).endswith("no evaluation yet")


@pytest.mark.parametrize("value", ["-Infinity", "NaN", "9e99", "-1"])
@pytest.mark.parametrize("name", ["eval/steps", "eval/exact_accuracy", "eval/lm_loss"])
def test_draws_any_number(call, tmp_path, name, value):
    write_metrics(tmp_path, tail=f'{{"step": 30, "{name}": {value}}}\n')
    code, out, _ = call("report", str(tmp_path))
    assert code == 0 and out
