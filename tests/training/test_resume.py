"""A run that was stopped and gone on with equals one that was not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hrm.checkpoint import saved_steps, step_dir
from hrm.errors import UserError
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.loop import train, with_run_name
from hrm.training.run_folder import cut_metrics, difference
from hrm.training.snapshot import Staging, _generators, _restore_generators
from tests.conftest import CUDA, ROOT, SMALL_MODEL
from tests.training.test_ranks import losses

BASE = (
    "global_batch_size=16",
    "epochs=6",
    "eval_interval=3",
    "puzzle_emb_lr=1e-2",
    "checkpoint_interval=5",
    "keep_checkpoints=null",
    *SMALL_MODEL,
    "log_interval=2",
)
SWITCHES = {
    "plain": (),
    "micro-batches": ("micro_batch_size=4",),
    "ema and clipping": ("ema=true", "grad_clip=0.5"),
    "muon and stagger": ("optimizer=muon", "stagger=true", "micro_batch_size=8", "epochs=3"),
    "bfloat16": ("arch.forward_dtype=bfloat16", "epochs=3"),
    "hints": ("hint_rate=0.6", "micro_batch_size=8", "epochs=3"),
    "no puzzle embedding": ("arch.puzzle_emb_ndim=0", "arch.q_continue=false"),
    "symbols": ("arch=symbol_equivariant", "optimizer=muon", "micro_batch_size=8", "epochs=3"),
}
ONLY_ATTENTION = ("arch.H_layers", "arch.num_heads")


def arguments(data: Path, run_dir: Path, *more: str) -> list[str]:
    base = BASE
    if "arch=symbol_equivariant" in more:
        base = tuple(key for key in BASE if not key.startswith(ONLY_ATTENTION))
    return [f"data_path={data}", f"checkpoint_path={run_dir}", *base, *more]


def run(data: Path, run_dir: Path, *more: str) -> Path:
    """Train in this process."""
    config = with_run_name(load_pretrain_config(arguments(data, run_dir, *more)))
    return train(config, Ranks(0, 1, 0), torch.device(config.device))


def killed_after(run_dir: Path, step: int, target: Path) -> Path:
    """What a run would have left, had it been killed some time after that checkpoint."""
    shutil.copytree(run_dir, target)
    for later in [s for s in saved_steps(target) if s > step]:
        shutil.rmtree(step_dir(target, later))
    return target


def assert_same_run(one: Path, other: Path) -> None:
    assert saved_steps(one)[-1] == saved_steps(other)[-1]
    last = step_dir(Path(), saved_steps(one)[-1])
    one_files, other_files = (
        sorted(path.name for path in (run / last).glob("*.safetensors")) for run in (one, other)
    )
    assert one_files == other_files and len(one_files) >= 2
    for file in one_files:
        assert (one / last / file).read_bytes() == (other / last / file).read_bytes(), file
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(data_4x4, tmp_path_factory) -> Path:
    """A run that nothing disturbed, with checkpoints at 5, 10, … and at its two evaluations."""
    torch.set_num_threads(1)
    return run(data_4x4, tmp_path_factory.mktemp("runs") / "whole")


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("name", SWITCHES)
def test_bit_for_bit(data_4x4, tmp_path, name, device):
    more = *SWITCHES[name], f"device={device}", f"deterministic={device == 'cuda'}"
    undisturbed = run(data_4x4, tmp_path / "undisturbed", *more)
    killed = killed_after(undisturbed, 15, tmp_path / "killed")
    assert_same_run(run(data_4x4, killed, *more, "resume=auto"), undisturbed)


@pytest.mark.parametrize("step", [5, 18, 20, 36])
def test_from_any_checkpoint(whole, data_4x4, tmp_path, step):
    """18 is an evaluation's, 36 the last one: the evaluation that was logged is not repeated."""
    killed = killed_after(whole, step, tmp_path / "killed")
    assert_same_run(run(data_4x4, killed, "resume=auto"), whole)


def test_killed_between_checkpoint_and_evaluation(whole, data_4x4, tmp_path):
    killed = killed_after(whole, 36, tmp_path / "killed")
    lines = (killed / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (killed / "metrics.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:30])
    assert_same_run(run(data_4x4, killed, "resume=auto"), whole)


def test_killed_before_the_first_checkpoint(whole, data_4x4, tmp_path, capsys):
    killed = killed_after(whole, 0, tmp_path / "killed")
    assert_same_run(run(data_4x4, killed, "resume=auto"), whole)
    assert "no checkpoint to resume from" in capsys.readouterr().out


def test_auto_begins_a_new_run(whole, data_4x4, tmp_path):
    assert_same_run(run(data_4x4, tmp_path / "new", "resume=auto"), whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of its own doings while compiling
def test_bit_for_bit_compiled(data_4x4, tmp_path):
    more = ("compile=true", "ema=true")
    undisturbed = run(data_4x4, tmp_path / "undisturbed", *more)
    killed = killed_after(undisturbed, 15, tmp_path / "killed")
    assert_same_run(run(data_4x4, killed, *more, "resume=auto"), undisturbed)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_bit_for_bit_on_several_ranks(data_4x4, tmp_path, run_script, ranks):
    more = ("ema=true", "global_batch_size=12", "micro_batch_size=2", "epochs=3")
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    result = run_script("pretrain.py", *arguments(data_4x4, undisturbed, *more), ranks=ranks)
    assert result.returncode == 0, result.stderr
    killed_after(undisturbed, 15, killed)
    again = arguments(data_4x4, killed, *more, "resume=auto")
    result = run_script("pretrain.py", *again, ranks=ranks)
    assert result.returncode == 0, result.stderr
    assert_same_run(killed, undisturbed)


def test_one_rank_two_ranks_one_rank(data_4x4, tmp_path, run_script):
    """Another number of ranks: the same global batches and carries, equal but for rounding."""
    more = ("epochs=8", "eval_interval=4", "checkpoint_interval=11", "log_interval=1")
    undisturbed = run(data_4x4, tmp_path / "undisturbed", *more)
    killed = killed_after(undisturbed, 11, tmp_path / "killed")
    again = arguments(data_4x4, killed, *more, "resume=auto")
    result = run_script("pretrain.py", *again, ranks=2)
    assert result.returncode == 0, result.stderr
    twice = killed_after(killed, 22, tmp_path / "twice")
    assert (twice / "metrics.jsonl").read_bytes() != (undisturbed / "metrics.jsonl").read_bytes()
    run(data_4x4, twice, *more, "micro_batch_size=8", "resume=auto")
    ours, reference = losses(twice), losses(undisturbed)
    assert ours.shape == reference.shape
    largest = ((ours - reference).abs() / reference.abs())[:31].max().item()
    print(f"1 -> 2 -> 1 ranks: largest relative difference over 20 steps {largest:.1e}")
    assert 0 < largest <= 1e-5


STOPPED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from hrm.cli.main import run
from hrm.training import graph

begin_step = graph.begin_step

def signalled(state, config):
    if state.step == 12:
        os.kill(os.getpid(), signal.SIGTERM)
    begin_step(state, config)

graph.begin_step = signalled
run("train", "pretrain.py")
"""


def test_stopped_by_sigterm(whole, data_4x4, tmp_path):
    run_dir = tmp_path / "run"
    command = [sys.executable, "-c", STOPPED.format(root=str(ROOT))]
    command += [*arguments(data_4x4, run_dir), "resume=auto"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # sums depend on the number of threads
    stopped = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert stopped.returncode == 128 + signal.SIGTERM and "Traceback" not in stopped.stderr
    assert saved_steps(run_dir)[-1] == 13
    assert_same_run(run(data_4x4, run_dir, "resume=auto"), whole)


def test_damaged_ones_are_named_and_set_aside(whole, data_4x4, tmp_path, capsys):
    killed = killed_after(whole, 20, tmp_path / "killed")
    weights = step_dir(killed, 20) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    os.truncate(step_dir(killed, 18) / "training.safetensors", 1000)
    run(data_4x4, killed, "resume=auto")
    told = capsys.readouterr().out
    assert f"{weights}: damaged" in told and "step_18/training.safetensors: truncated" in told
    assert "going on from" in told and "step_15" in told
    assert {p.name for p in killed.glob("*.damaged")} == {"step_18.damaged", "step_20.damaged"}
    assert_same_run(killed, whole)


def test_where_all_checkpoints_are_damaged_the_first_weights_are_loaded_again(
    whole, data_4x4, tmp_path
):
    more = (f"load_checkpoint={whole}", "lr=1e-3")
    begun = run(data_4x4, tmp_path / "begun", *more)
    damaged = killed_after(begun, 5, tmp_path / "damaged")
    os.truncate(step_dir(damaged, 5) / "model.safetensors", 100)
    assert_same_run(run(data_4x4, damaged, *more, "resume=auto"), begun)


def test_a_path_goes_on_in_its_own_folder(whole, data_4x4, tmp_path):
    killed = killed_after(whole, 15, tmp_path / "killed")
    values = [f"data_path={data_4x4}", *BASE, f"resume={step_dir(killed, 15)}"]
    config = with_run_name(load_pretrain_config(values))
    assert config.run_dir == killed
    assert_same_run(train(config, Ranks(0, 1, 0), torch.device("cpu")), whole)


def test_a_path_branches_off_under_another_name(whole, data_4x4, tmp_path, capsys):
    before = (whole / "metrics.jsonl").read_bytes()
    branch = run(data_4x4, tmp_path / "branch", f"resume={step_dir(whole, 15)}", "lr=5e-4")
    assert "lr was 0.001, is 0.0005" in capsys.readouterr().out
    assert (whole / "metrics.jsonl").read_bytes() == before
    lines = (branch / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps[0] == 2 and steps[-1] == 36 and saved_steps(branch)[:2] == [15, 18]


@pytest.mark.parametrize(
    "more, words",
    [
        (["arch.H_cycles=1"], ["arch.H_cycles was 2, is 1"]),
        (["global_batch_size=8"], ["global_batch_size was 16, is 8"]),
        (["seed=1"], ["seed was 0, is 1"]),
        (["eval_interval=2"], ["eval_interval was 3, is 2"]),
        (["ema=true"], ["ema was False, is True"]),
        (["stagger=true"], ["stagger was False, is True"]),
        (["puzzle_emb_dropout=0.5"], ["puzzle_emb_dropout was 0.1, is 0.5"]),
        (["optimizer=muon"], ["optimizer was adam_atan2, is muon"]),
        (["resume=nowhere"], ["resume=nowhere", "not found"]),
        (["overwrite=true"], ["resume and overwrite=true"]),
    ],
)
def test_mistakes(whole, data_4x4, tmp_path, more, words):
    killed = killed_after(whole, 15, tmp_path / "killed")
    before = {p: p.read_bytes() for p in killed.rglob("*") if p.is_file()}
    with pytest.raises(UserError) as error:
        run(data_4x4, killed, "resume=auto", *more)
    for word in words:
        assert word in str(error.value)
    assert {p: p.read_bytes() for p in killed.rglob("*") if p.is_file()} == before


def test_without_an_interval_the_epochs_are_what_may_not_change():
    keys = ["data_path=x", "eval_interval=null"]
    saved, config = (load_pretrain_config([*keys, f"epochs={n}"]) for n in (2, 3))
    assert difference("epochs_per_iteration", saved, config) == "epochs was 2, is 3"


def test_newer_checkpoints_are_not_overwritten(whole, data_4x4, tmp_path):
    copy = killed_after(whole, 36, tmp_path / "copy")
    with pytest.raises(UserError, match="step_36 is newer than step 15"):
        run(data_4x4, copy, f"resume={step_dir(copy, 15)}")
    assert_same_run(copy, whole)


def test_other_data_are_noticed(whole, data_4x4, tmp_path):
    from hrm.tasks.sudoku.builder import BuildOptions, build

    options = {"generate": (2, 2), "num_train": 100, "num_test": 40, "num_aug": 10}
    build(BuildOptions(output_dir=tmp_path / "other", seed=1, **options))
    killed = killed_after(whole, 15, tmp_path / "killed")
    with pytest.raises(UserError, match="not the data"):
        run(tmp_path / "other", killed, "resume=auto")
    shutil.copytree(data_4x4, tmp_path / "moved")
    assert_same_run(run(tmp_path / "moved", killed, "resume=auto"), whole)


def test_auto_needs_a_name(data_4x4, call_script):
    result = call_script("pretrain.py", f"data_path={data_4x4}", "resume=auto")
    assert result.returncode == 2
    assert "resume=auto needs run_name" in result.stderr


def test_two_processes_do_not_share_a_run(data_4x4, tmp_path, monkeypatch):
    from contextlib import ExitStack

    from hrm.training import run_folder

    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0)
    run_dir = tmp_path / "run"
    config = with_run_name(load_pretrain_config(arguments(data_4x4, run_dir, "resume=auto")))
    with ExitStack() as first:
        run_folder.prepare(config, "", print, first)
        with pytest.raises(UserError, match="another process"), ExitStack() as second:
            run_folder.prepare(config, "", print, second)
    with ExitStack() as third:
        run_folder.prepare(config, "", print, third)


def test_last_and_best_are_kept(data_4x4, tmp_path):
    """With a rate of 0 no evaluation is better than the first, so that is the best."""
    more = ("keep_checkpoints=2", "lr=0", "puzzle_emb_lr=0", "eval_interval=1")
    run_dir = run(data_4x4, tmp_path / "run", *more)
    assert saved_steps(run_dir) == [6, 35, 36]
    values = json.loads((step_dir(run_dir, 36) / "training.json").read_text())
    assert values["best_step"] == 6 and values["evaluations_since_best"] == 4
    run_dir = run(data_4x4, tmp_path / "every", *more, "checkpoint_every_eval=true")
    assert saved_steps(run_dir) == [6, 12, 18, 24, 30, 35, 36]


def test_early_stop(data_4x4, tmp_path, capsys):
    more = ("lr=0", "puzzle_emb_lr=0", "eval_interval=1", "early_stop=2")
    run_dir = run(data_4x4, tmp_path / "run", *more)
    assert "no better for 2 evaluations" in capsys.readouterr().out
    assert saved_steps(run_dir)[-1] == 18
    killed = killed_after(run_dir, 15, tmp_path / "killed")
    assert_same_run(run(data_4x4, killed, *more, "resume=auto"), run_dir)


def test_minutes(data_4x4, tmp_path):
    run_dir = run(data_4x4, tmp_path / "run", "checkpoint_interval=0.0000001min")
    assert saved_steps(run_dir) == list(range(1, 37))
    with pytest.raises(UserError, match="10min"):
        load_pretrain_config(["checkpoint_interval=5hours"])


def test_all_random_generators_go_on():
    def draw() -> list[float]:
        return [random.gauss(0, 1), random.random(), np.random.normal(), torch.rand(()).item()]

    random.gauss(0, 1), np.random.normal()  # leaves one cached in each
    states = Staging().copy(_generators(torch.device("cpu")))
    states = {name: tensor.clone() for name, tensor in states.items()}
    expected = [draw(), draw()]
    _restore_generators(states, torch.device("cpu"))
    assert [draw(), draw()] == expected


def test_cut_metrics(tmp_path):
    lines = ['{"step": 1, "x": 0}', "garbage", '{"step": 2, "eval/count": 4}', '{"step": 3}']
    source, said = tmp_path / "a", []
    source.write_text("\n".join(lines) + "\n")
    assert cut_metrics(source, tmp_path / "b", 2, said.append) == json.loads(lines[2])
    assert (tmp_path / "b").read_text() == f"{lines[0]}\n{lines[2]}\n"
    assert len(said) == 1 and "line 2" in said[0]
    assert cut_metrics(tmp_path / "none", tmp_path / "c", 2, said.append) is None


def test_a_checkpoint_knows_what_made_it(whole):
    values = json.loads((step_dir(whole, 36) / "training.json").read_text())
    assert values["code"]["torch"] == torch.__version__ and values["ranks"] == 1
    tensors = load_file(step_dir(whole, 36) / "training.safetensors")
    assert tensors["carry/z_H"].shape[0] == 16
    assert "optimizer/exp_avg/model.inner.lm_head.weight" in tensors
