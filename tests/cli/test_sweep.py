"""`hrm sweep` as typed: stopped, gone on with, failing; and one line for each mistake."""

import csv
import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from hrm.cli.sweep import places
from hrm.errors import UserError
from hrm.ranks import Ranks
from hrm.records import last_of, read_records
from hrm.report.settings import Measured, as_html, as_text, best_run, ranked
from hrm.training import sweep_jobs
from hrm.training.config import load_train_config
from hrm.training.loop import train
from hrm.training.run_folder import used_alone
from hrm.training.sweep import Outcome, SweptRun, axes_of, plan, refuse_other_sweep
from hrm.training.sweep_jobs import reason_of, run_all

from ..conftest import Call
from ..keys.training import TINY_ARCH
from ..watching import wait_for

KEYS = (
    *(*TINY_ARCH, "global_batch_size=20", "epochs=20", "eval_interval=10", "lr_warmup_steps=0"),
    *("checkpoint_interval=10", "max_skipped_steps=2", "device=cpu", "compile=false"),
)  # 100 steps
SLOWLY = """
import time
from hrm.training import graph
begin_step = graph.begin_step
def slowly(state, config):
    if state.step >= 10:
        time.sleep(0.2)
    begin_step(state, config)
graph.begin_step = slowly
main()"""  # from step 10 on, of which a checkpoint is kept


def metric_lines(folder: Path) -> str:
    return (folder / "metrics.jsonl").read_text()


def undisturbed(run_dir: Path, target: Path) -> Path:
    """The same run, trained in one go in this process."""
    config = load_train_config(run_dir / "all_config.yaml")
    place = {"checkpoint_path": target, "resume": None, "progress": False}
    return train(config.model_copy(update=place), Ranks(0, 1, 0), torch.device("cpu"))


def test_stopped_by_ctrl_c_gone_on_with_and_one_that_fails(
    call: Call, data_4x4, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as this process has
    folder = Path("checkpoints", data_4x4.name, "night")
    good, bad = folder / "lr=0.01,seed=0", folder / "lr=1e+30,seed=0"
    words = ("sweep", str(data_4x4), *KEYS, "run_name=night", "seed=choice(0)")
    both = (*words, "lr=1e-2,1e30")

    def interrupt() -> None:
        wait_for(lambda: any(good.glob("step_*/manifest.json")) or ended.is_set())
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    ended = threading.Event()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_jobs, "PROGRAM", sweep_jobs.PROGRAM.replace("\nmain()", SLOWLY))
        code, out, err = call(*both, "--jobs", "1")
    ended.set()
    assert (code, out) == (130, "") and not bad.exists()
    assert f"stopped: 0 of 2 runs are finished, the others are saved in {folder}; the same" in err
    assert json.loads((good / "outcome.json").read_text())["code"] == 143
    code, out, _ = call(*both, "--dry-run")
    assert code == 0 and "lr=0.01,seed=0   stopped at step " in out and "of 100\n" in out
    assert "lr=1e+30,seed=0  not begun\n" in out and f"2 runs in {folder}, " in out

    code, out, err = call(*both, "--jobs", "1")  # with as many threads as before
    log = (good / "log.txt").read_text()
    assert code == 1 and "going on from" in log and log.count("; the run begins") == 1
    value = last_of(read_records(good / "metrics.jsonl"), "eval")["eval/exact_accuracy"]
    assert out.splitlines()[:3] == [
        "setting   runs  exact accuracy  lowest  highest",
        f"lr=0.01    1/1  {value:>14.1%}  {value:>6.1%}  {value:>7.1%}",
        "lr=1e+30   0/1               -       -        -",
    ]
    assert "lr=1e+30,seed=0  failed at step " in out and "2 steps in a row were not f" in out
    assert f"  see {bad / 'log.txt'}\n" in out and max(map(len, out.splitlines())) <= 80
    again = undisturbed(good, tmp_path / "again")
    assert metric_lines(good) == metric_lines(again)

    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [(row["run"], row["lr"], row["seed"]) for row in rows] == [
        ("lr=0.01,seed=0", "0.01", "0"),
        ("lr=1e+30,seed=0", "1e+30", "0"),
    ]
    newest = last_of(read_records(good / "metrics.jsonl"), "eval")
    assert rows[0]["state"] == "finished" and rows[0]["step"] == str(newest["step"]) == "100"
    for name in ("exact_accuracy", "accuracy", "steps", "lm_loss"):
        assert float(rows[0][name]) == newest[f"eval/{name}"], name
    assert "were not finite; " in rows[1]["state"]
    assert f"| lr=0.01 | 1/1 | {value:.1%} |" in (folder / "sweep.md").read_text()
    page = (folder / "report.html").read_text()
    assert "Settings</h2>" in page and "<title>2 runs compared" in page
    assert f'<th scope="row">lr=0.01</th><td>1/1</td><td>{value:.1%}</td>' in page

    before = (good / "outcome.json").stat()
    code, out, _ = call(*words, "lr=choice(0.010)")
    assert code == 0 and "\nlr=0.01   1/1" in out and "1e+30" not in out
    assert (good / "outcome.json").stat() == before, "a finished run is left alone"

    for changed, told in (
        ("weight_decay=0.5", "weight_decay was 1.0, is 0.5 now, which makes another sweep; name"),
        ("arch.expansion=2", "arch.expansion was 1.0, is 2.0 now"),
    ):
        code, out, err = call(*both, changed)
        assert (code, out) == (2, "") and told in err and err.count("\n") == 1
    with used_alone(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("hrm.training.run_folder.LOCK_SECONDS", 0)
        code, _, err = call(*both)
        assert code == 2 and err == f"error: {folder}: another process works on this sweep; " + (
            "stop it first\n"
        )


# ---- planning ----


def planned(data: Path, *words: str):
    return plan([f"data_path='{data}'", *KEYS, *words], "cfg_pretrain")


def test_values_are_written_as_hydra_writes_them(data_4x4):
    axes = axes_of(["seed=range(0,3)", "lr=1e-3,3e-4", "+ema=choice(true,false)", "epochs=5"])
    assert [(axis.key, axis.overrides) for axis in axes] == [
        ("ema", ["+ema=True", "+ema=False"]),
        ("lr", ["lr=0.001", "lr=0.0003"]),
        ("seed", ["seed=0", "seed=1", "seed=2"]),
    ]


def test_folders_are_named_by_values_and_found_again(data_4x4, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = planned(
        data_4x4, "seed=0,1", "arch.loss.loss_type=softmax_cross_entropy,stablemax_cross_entropy"
    )
    base = Path("checkpoints", data_4x4.name, "sweep-loss_type-seed")
    assert [run.folder.relative_to(base).name for run in sweep.runs] == [
        f"loss_type={loss}_cross_entropy,seed={seed}"
        for loss in ("softmax", "stablemax")
        for seed in (0, 1)
    ]
    assert [run.setting for run in sweep.runs[::2]] == [
        "loss_type=softmax_cross_entropy",
        "loss_type=stablemax_cross_entropy",
    ]
    assert {run.config.seed for run in sweep.runs} == {0, 1}
    for words in (("lr=1e-3,2e-3", "seed=7"), ("seed=7", "lr=0.001,0.0020")):
        assert [run.name for run in planned(data_4x4, *words).runs] == ["lr=0.001", "lr=0.002"]
    several = planned(
        data_4x4, "grad_clip=null,0.1", "run_name=x", "project_name=p", "ema=true,false"
    )
    assert several.runs[0].folder == Path("checkpoints/p/x/ema=true,grad_clip=null")
    named = planned(data_4x4, "seed=0,1", "checkpoint_path=mine")
    assert named.runs[1].folder == Path("mine/seed=1") and named.runs[1].setting == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lr=1e-3"], "no key has several values; give some, such as seed=0,1,2"),
        (["lrr=1,2"], "lrr: unknown key; did you mean lr?"),
        (["lr=1e-3,many"], "lr: Input should be a valid number"),
        (["lr=1e-3,0.001"], "lr=0.001: these values stand there twice"),
        (["lr=1,2", "lr=3,4"], "lr=3,4: lr has several values twice"),
        (["lr=interval(0,1)"], "lr=interval(0,1): cannot be read"),
        (["arch=glob(*)"], "arch=glob(*): cannot be read"),
        (["seed=range(0,2000)"], "more than 1,000; give fewer values"),
        (["arch.num_heads=2,3"], "num_heads 3"),
        (["global_batch_size=20,30", "micro_batch_size=20"], "global_batch_size=30: micro_batch"),
        (
            ["seed=0,1", "resume=auto", "run_name=x"],
            "resume: a sweep goes on by itself; leave it out",
        ),
        (["seed=0,1", "overwrite=true"], "overwrite: a sweep goes on by itself"),
        (["seed=0,1", "data_path=nowhere"], "nowhere/train/dataset.json"),
    ],
)
def test_refuses_in_one_line_before_any_run(
    call: Call, data_4x4, tmp_path, monkeypatch, words, told
):
    monkeypatch.chdir(tmp_path)
    data = [] if any(word.startswith("data_path") for word in words) else [str(data_4x4)]
    code, out, err = call("sweep", *data, *KEYS, *words)
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


def test_hrm_train_names_hrm_sweep(call: Call, data_4x4):
    code, _, err = call("train", str(data_4x4), "lr=1e-3,3e-4")
    assert code == 2 and err == (
        "error: configuration: lr=1e-3,3e-4: several values; hrm sweep trains with each of them\n"
    )


def test_it_is_no_job_for_torchrun(call: Call, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = call("sweep", "x", "seed=0,1")
    assert code == 2 and "start it without torchrun" in err


def test_other_data_are_another_sweep(data_4x4, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = planned(data_4x4, "seed=0,1", "epochs=1", "eval_interval=1")
    train(sweep.runs[0].config, Ranks(0, 1, 0), torch.device("cpu"))
    refuse_other_sweep(sweep)
    monkeypatch.setattr("hrm.training.sweep.fingerprint", lambda *_: "another")
    with pytest.raises(UserError, match="seed=0: was trained on other data than data_path="):
        refuse_other_sweep(sweep)


# ---- processes ----


def test_processes_share_cores_and_take_turns_on_gpus(data_4x4, monkeypatch):
    sweep = planned(data_4x4, "seed=0,1,2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("hrm.cli.sweep.usable_cores", lambda: 4)
    assert places(sweep, None) == [{"OMP_NUM_THREADS": "1"}] * 3
    assert places(sweep, 2) == [{"OMP_NUM_THREADS": "2"}] * 2
    assert places(sweep, 9) == [{"OMP_NUM_THREADS": "1"}] * 3, "no more than there are runs"
    monkeypatch.setattr("hrm.cli.sweep.memory", lambda: 1e9)
    assert len(places(sweep, None)) == 1, "no more than memory holds"
    monkeypatch.setattr("hrm.cli.sweep.memory", lambda: 1e6)
    assert len(places(sweep, None)) == 1, "not even one fits: one is tried"
    monkeypatch.setattr("hrm.cli.sweep.memory", lambda: 0.0)
    assert len(places(sweep, None)) == 3, "nobody knows"
    monkeypatch.setattr("hrm.cli.sweep.memory", lambda: 1e9)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert places(sweep, 2) == [{"OMP_NUM_THREADS": "3"}] * 2
    for asked, threads in (("2,1", "2"), ("0", "2"), ("", "2"), ("many", "2"), ("1", "1")):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert places(sweep, 2) == [{"OMP_NUM_THREADS": threads}] * 2
    monkeypatch.setattr("hrm.device.pick_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(sweep, None)] == ["4", "5"]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(sweep, 3)] == ["4", "5", "4"]


def run_both(data_4x4) -> int:
    """Two runs at once, in whose place `PROGRAM` runs."""
    runs = planned(data_4x4, "seed=0,1").runs
    return run_all(runs, lambda run: [str(run.folder)], [{}, {}], lambda run: None)


def test_a_run_that_cannot_begin_lets_the_others_save(data_4x4, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[2])
def save(*_):
    (folder / "saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
(folder / "ready").touch()
time.sleep(60)
"""
    monkeypatch.setattr(sweep_jobs, "PROGRAM", program)
    opened, first = sweep_jobs._open_log, planned(data_4x4, "seed=0,1").runs[0].folder

    def open_log(run):
        if run.folder == first:
            return opened(run)
        wait_for((first / "ready").exists)
        raise UserError("the disk is full")

    monkeypatch.setattr(sweep_jobs, "_open_log", open_log)
    with pytest.raises(UserError, match="the disk is full"):
        run_both(data_4x4)
    assert (first / "saved").exists()


def test_an_outcome_that_cannot_be_kept_ends_no_run(data_4x4, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program = "import pathlib, sys; pathlib.Path(sys.argv[2], 'done').touch()"
    monkeypatch.setattr(sweep_jobs, "PROGRAM", program)
    noted = SweptRun.note

    def note(run, outcome):
        if outcome.code is not None:
            raise UserError("the disk is full")
        noted(run, outcome)

    monkeypatch.setattr(SweptRun, "note", note)
    assert run_both(data_4x4) == 0
    assert len(list(tmp_path.rglob("done"))) == 2
    assert capsys.readouterr().err.count("warning: the disk is full; what became of") == 2


def test_why_a_run_has_failed(data_4x4, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = planned(data_4x4, "seed=0,1").runs[0]
    for code, log, reason, failed in (
        (-9, "", "killed by SIGKILL, perhaps for memory", True),
        (3, "a\nerror: no better\n\n", "no better", True),
        (1, "", "exit code 1", True),
        (143, "stopped", "stopped", False),
        (-15, "", "killed by SIGTERM", False),
    ):
        run.note(Outcome(code, 1.0))
        (run.folder / "log.txt").write_text(log)
        assert (reason_of(run), run.has_failed, run.is_finished) == (reason, failed, False)
    (run.folder / "outcome.json").write_text('{"code": ')
    assert run.outcome is None


# ---- the comparison ----


def result(setting: str, seed: int, value: float | None) -> Measured:
    record = {} if value is None else {"step": 5.0, "eval/exact_accuracy": value}
    state = "finished" if value is not None else "failed at step 2 of 5: a|b"
    known = {"lr": setting, "seed": str(seed)}
    return Measured(
        f"{setting},seed={seed}", setting, known, state, value is not None, record, 1.0, ""
    )


def test_mean_and_spread_are_over_the_seeds_of_a_setting():
    runs = [result("lr=1", 0, 0.25), result("lr=1", 1, 0.75), result("lr=2", 0, None)]
    runs += [result("lr=2", 1, 0.5), result("lr=3", 0, None), result("lr=4", 0, 0.75)]
    found = ranked(runs)
    assert [setting.cells for setting in found] == [
        ("lr=4", "1/1", "75.0%", "75.0%", "75.0%"),
        ("lr=1", "2/2", "50.0% ± 35.4%", "25.0%", "75.0%"),
        ("lr=2", "1/2", "50.0%", "50.0%", "50.0%"),
        ("lr=3", "0/1", "-", "-", "-"),
    ]
    assert (best := best_run(found)) is not None and best.name == "lr=4,seed=0"
    assert best_run(ranked([result("lr=3", 0, None)])) is None
    page = as_html(found)
    assert page.count("<figure>") == 1 and "50.0% ± 35.4%" in page
    long = [result(f"a_very_long_key_of_a_schema=0.{n}", 0, 0.5) for n in range(4)]
    assert "<figure>" not in as_html(ranked(long))


def test_a_long_setting_takes_several_lines_of_a_terminal():
    name = "H_cycles=1,L_cycles=2,hidden_size=128,weight_decay=0.01"
    text = as_text(ranked([result(name, seed, 0.5) for seed in (0, 1)]))
    assert text.splitlines()[1].startswith("H_cycles=1, L_cycles=2,")
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(line.split("  2/2")[0].strip() for line in text.splitlines()[1:]) == (
        name.replace(",", ", ")
    )
