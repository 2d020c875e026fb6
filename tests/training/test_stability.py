"""Losses and gradients that are not finite: skipped, counted, rolled back, explained."""

import json

import pytest
import torch

from hrm.checkpoint import saved_steps
from hrm.errors import TrainingDiverged
from hrm.models.losses import ACTLossHead
from hrm.optim import AdamATan2, Muon, conditional
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.loop import train, with_run_name
from hrm.training.snapshot import Staging, take
from hrm.training.splits import open_split
from hrm.training.state import TrainState, train_step
from tests.conftest import ROOT, SMALL_MODEL
from tests.training.test_loop import read_metrics
from tests.training.test_resume import arguments

ALONE, CPU = Ranks(0, 1, 0), torch.device("cpu")


class Poison:
    """Makes the loss of chosen calls NaN, as an overflow would."""

    def __init__(self, monkeypatch, calls: set[int] | range):
        self.calls, self.call = calls, 0
        original = ACTLossHead.sequence_losses

        def poisoned(head, outputs, labels):
            losses = original(head, outputs, labels)
            if head.training:
                self.call += 1
                if self.call in self.calls:
                    losses["q_halt_loss"] = losses["q_halt_loss"] * torch.nan
            return losses

        monkeypatch.setattr(ACTLossHead, "sequence_losses", poisoned)


def run(data, run_dir, *more):
    config = with_run_name(load_pretrain_config(arguments(data, run_dir, *more)))
    return train(config, ALONE, CPU)


@pytest.fixture
def state_and_batch(data_4x4):
    def make(*more: str):
        values = [f"data_path={data_4x4}", "global_batch_size=16", "ema=false", *SMALL_MODEL, *more]
        config = load_pretrain_config([*values, "epochs=4", "eval_interval=4"])
        train_set = open_split(config, ALONE, "train")
        state = TrainState.create(config, train_set.metadata, CPU, ALONE)
        return state, train_set.batch(0, 0)[1], config

    return make


def test_an_unsound_step_changes_no_weight(state_and_batch, monkeypatch):
    Poison(monkeypatch, {2})
    state, batch, config = state_and_batch("puzzle_emb_lr=1e-2")
    train_step(state, batch, config, ALONE)
    before = {name: t.clone() for name, t in state.model.state_dict().items()}
    metrics = train_step(state, batch, config, ALONE)
    assert all(torch.equal(t, before[name]) for name, t in state.model.state_dict().items())
    assert metrics["skipped_steps"] == 1 and metrics["examples"] == 0
    assert all(value == 0 for name, value in metrics.items() if name != "skipped_steps")
    assert state.stability.in_a_row == 1 and state.stability.first_step == 2
    assert not state.model.model.inner.puzzle_emb.lookups

    metrics = train_step(state, batch, config, ALONE)
    assert metrics["skipped_steps"] == 0 and metrics["examples"] == 16
    assert state.stability.in_a_row == 0
    changed = [n for n, t in state.model.state_dict().items() if not torch.equal(t, before[n])]
    assert "model.inner.puzzle_emb.weights" in changed and len(changed) > 5


def test_only_sequences_with_an_unsound_state_begin_anew(state_and_batch):
    state, batch, config = state_and_batch()
    train_step(state, batch, config, ALONE)
    state.carries[0].halted[:] = False
    state.carries[0].states["z_L"][3, 0, 0] = torch.nan
    train_step(state, batch, config, ALONE)
    assert state.carries[0].halted.tolist() == [row == 3 for row in range(16)]
    metrics = train_step(state, batch, config, ALONE)
    assert metrics["skipped_steps"] == 0 and state.carries[0].states["z_H"].isfinite().all()


@pytest.mark.parametrize("kind", [AdamATan2, Muon])
def test_skipping_on_the_device_equals_skipping_on_the_host(monkeypatch, kind):
    """The path that never waits for the device, forced here on the CPU, is another one."""

    def updated() -> torch.Tensor:
        parameter = torch.nn.Parameter(torch.linspace(-1, 1, 6).view(2, 3))
        optimizer = kind([parameter], lr=0.1, weight_decay=0.1)
        for step in range(4):
            is_sound = step not in (0, 2)
            parameter.grad = torch.full((2, 3), 1.0 if is_sound else torch.nan)
            before = parameter.detach().clone()
            optimizer.step(only_if=torch.tensor(is_sound))
            assert torch.equal(parameter, before) != is_sound
        return parameter.detach()

    on_host = updated()
    monkeypatch.setattr(conditional, "is_on_host", lambda only_if: False)
    assert torch.equal(updated(), on_host) and on_host.isfinite().all()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_state_with_a_weight_that_is_not_finite_is_not_sound(state_and_batch, value):
    state, batch, config = state_and_batch()
    train_step(state, batch, config, ALONE)
    assert take(state, ALONE, Staging(), {}).record.values["is_sound"]
    with torch.no_grad():
        state.model.model.inner.lm_head.weight[0, 0] = value
    assert not take(state, ALONE, Staging(), {}).record.values["is_sound"]


def test_clipping_bounds_the_norm(state_and_batch, monkeypatch):
    norms = []
    original = AdamATan2.step

    def look(self, closure=None, *, only_if=None):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(grads).item())
        return original(self, closure, only_if=only_if)

    monkeypatch.setattr(AdamATan2, "step", look)
    for clip in ("null", "0.01", "1000"):
        state, batch, config = state_and_batch(f"grad_clip={clip}")
        train_step(state, batch, config, ALONE)
    free, clipped, loose = norms
    assert free > 0.01 and clipped == pytest.approx(0.01, rel=1e-3) and loose == free


def test_a_passing_fault_is_counted_and_survived(data_4x4, tmp_path, monkeypatch):
    Poison(monkeypatch, {7, 8, 12})
    run_dir = run(data_4x4, tmp_path / "run", "max_skipped_steps=3", "log_interval=1")
    lines = read_metrics(run_dir)
    skipped = {x["step"]: x["train/skipped_steps"] for x in lines if "train/skipped_steps" in x}
    assert skipped == {7: 1, 8: 1, 12: 1}
    losses = {x["step"]: x.get("train/lm_loss") for x in lines if "train/count" in x}
    assert losses[7] is None and losses[9] > 0 and saved_steps(run_dir)[-1] == 36


def test_losses_are_averaged_over_sound_steps(data_4x4, tmp_path, monkeypatch):
    Poison(monkeypatch, {2, 3, 4})
    run_dir = run(data_4x4, tmp_path / "run", "log_interval=4", "epochs=3")
    first = read_metrics(run_dir)[0]
    assert first["train/skipped_steps"] == 3
    assert first["train/lm_loss"] == pytest.approx(1.6, abs=0.4)  # about log 5, not a quarter


def test_a_fault_that_passes_after_going_back(data_4x4, tmp_path, monkeypatch, capsys):
    """As a flipped bit in memory would: the run goes back, and equals one that had no fault."""
    undisturbed = run(data_4x4, tmp_path / "undisturbed", "max_skipped_steps=3")
    Poison(monkeypatch, range(17, 21))
    run_dir = run(data_4x4, tmp_path / "run", "max_skipped_steps=3", "checkpoint_interval=4")
    told = capsys.readouterr().out
    assert "going back to" in told and "step_16" in told and "q_halt_loss" in told
    assert "could not be written" not in told
    for weights in ("step_18/model.safetensors", "step_36/model.safetensors"):  # 18 was faulty, too
        assert (run_dir / weights).read_bytes() == (undisturbed / weights).read_bytes()
    assert (run_dir / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()


def test_a_lasting_fault_stops_the_run_with_a_report(data_4x4, tmp_path, monkeypatch):
    Poison(monkeypatch, range(17, 1000))
    with pytest.raises(TrainingDiverged) as error:
        run(data_4x4, tmp_path / "run", "max_skipped_steps=3")
    told = str(error.value)
    assert "was the first: not finite: q_halt_loss" in told and "grad_clip" in told
    assert saved_steps(tmp_path / "run") == [5, 10, 15]
    assert error.value.exit_code == 3


def test_the_last_good_checkpoint_is_not_rotated_out(data_4x4, tmp_path, monkeypatch):
    """Steps are skipped from 17 on, noticed at 30; what is saved until then is no better."""
    Poison(monkeypatch, range(17, 1000))
    more = ("max_skipped_steps=3", "keep_checkpoints=1", "log_interval=10", "checkpoint_interval=2")
    with pytest.raises(TrainingDiverged):
        run(data_4x4, tmp_path / "run", *more)
    assert 16 in saved_steps(tmp_path / "run")


def test_the_first_module_that_overflows_is_named(data_4x4, tmp_path, monkeypatch):
    from hrm.models.layers import SwiGLU

    original = SwiGLU.forward
    count = [0]

    def overflowing(self, *arguments):
        count[0] += 1
        return original(self, *arguments) * (torch.inf if count[0] > 60 else 1)

    monkeypatch.setattr(SwiGLU, "forward", overflowing)
    with pytest.raises(TrainingDiverged, match=r"L_level\.layers\.0\.mlp is the first module"):
        run(data_4x4, tmp_path / "run", "max_skipped_steps=2")


def test_exit_code_and_one_line(data_4x4, tmp_path, call_script):
    """A rate that makes the weights overflow."""
    more = ("lr=1e30", "lr_warmup_steps=0", "weight_decay=0", "max_skipped_steps=2")
    result = call_script("pretrain.py", *arguments(data_4x4, tmp_path / "run", *more))
    assert result.returncode == 3, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and "steps in a row were not finite" in line
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])


ONE_RANK_FAILS = """
import os, sys
sys.path.insert(0, {root!r})
import torch
from hrm.cli.main import run
from hrm.models.losses import ACTLossHead

original, calls = ACTLossHead.sequence_losses, [0]

def poisoned(head, outputs, labels):
    losses = original(head, outputs, labels)
    calls[0] += head.training
    if head.training and calls[0] == 8 and os.environ["RANK"] == "1":
        losses["lm_loss"] = losses["lm_loss"] * torch.nan
    return losses

ACTLossHead.sequence_losses = poisoned
run("train", "pretrain.py")
"""


def test_a_fault_of_one_rank_is_skipped_by_all(data_4x4, tmp_path, run_script):
    """Two ranks would drift apart for good if one took a step and the other did not."""
    script = tmp_path / "script.py"
    script.write_text(ONE_RANK_FAILS.format(root=str(ROOT)))
    more = ("log_interval=1", "epochs=3")
    values = arguments(data_4x4, tmp_path / "run", *more)
    result = run_script(str(script), *values, ranks=2)
    assert result.returncode == 0, result.stderr
    lines = read_metrics(tmp_path / "run")
    skipped = {x["step"]: x["train/skipped_steps"] for x in lines if "train/skipped_steps" in x}
    assert skipped == {7: 1}  # the first call only settles the buckets
    assert all(x["train/lm_loss"] > 0 for x in lines if "train/count" in x and x["step"] != 7)
