"""What a run that goes back to an earlier checkpoint has left behind, and what it forgets."""

from collections import Counter

import pytest

from hrm.checkpoint import saved_steps, step_dir
from hrm.training import loop
from hrm.training.config import load_pretrain_config
from hrm.training.loop import with_run_name
from hrm.training.run_folder import last_good
from tests.keys.test_run_keys import scalars
from tests.mutations import flipped
from tests.training.test_loop import read_metrics
from tests.training.test_resume import arguments
from tests.training.test_stability import Poison, run

SHORT = ("epochs=3", "eval_interval=1", "checkpoint_interval=4", "max_skipped_steps=3")  # 18 steps


def test_tensorboard_has_each_step_once(data_4x4, tmp_path, monkeypatch, capsys):
    """Steps 9 to 11 are logged before they are undone."""
    Poison(monkeypatch, range(9, 12))
    run_dir = run(data_4x4, tmp_path / "run", *SHORT, "log_interval=1", "logger=tensorboard")
    assert "going back to" in capsys.readouterr().out
    lines, shown = read_metrics(run_dir), scalars(run_dir / "tensorboard")
    assert not shown["train/skipped_steps"]
    for name in ("train/count", "train/lm_loss", "eval/count"):
        logged = [(line["step"], line[name]) for line in lines if name in line]
        assert shown[name] == [(step, pytest.approx(value)) for step, value in logged], name


class Counting:
    """An evaluator that counts the puzzles of all evaluations that it sees, as votes add up."""

    def __init__(self):
        self.seen = 0

    def update(self, step):
        self.seen += len(step.data["inputs"])

    def reduce(self, ranks):
        return {"seen": float(self.seen)}, {}


def test_an_evaluation_is_not_repeated_and_later_ones_begin_anew(data_4x4, tmp_path, monkeypatch):
    """The fault is seen at step 15; the checkpoint before is that of the evaluation at 12."""
    undisturbed = run(data_4x4, tmp_path / "undisturbed", *SHORT)
    monkeypatch.setattr(loop, "open_evaluators", lambda config, test_set: [Counting()])
    Poison(monkeypatch, range(13, 16))
    run_dir = run(data_4x4, tmp_path / "run", *SHORT, "log_interval=1")
    evaluations = {line["step"]: line for line in read_metrics(run_dir) if "eval/count" in line}
    assert {step: line.pop("eval/seen") for step, line in evaluations.items()} == {
        6: 40,
        12: 80,
        18: 40,
    }
    steps = Counter(line["step"] for line in read_metrics(run_dir) if "eval/count" in line)
    assert steps == {6: 1, 12: 1, 18: 1}
    expected = [line for line in read_metrics(undisturbed) if "eval/count" in line]
    assert list(evaluations.values()) == expected


def test_a_damaged_checkpoint_is_no_good_one(data_4x4, tmp_path):
    run_dir = run(data_4x4, tmp_path / "run", *SHORT)
    assert saved_steps(run_dir)[-2:] == [16, 18]
    file = step_dir(run_dir, 18) / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(flipped(whole, len(whole) // 2, 3))
    config = with_run_name(load_pretrain_config(arguments(data_4x4, run_dir, *SHORT)))
    start = last_good(config, print)
    assert start.checkpoint == step_dir(run_dir, 16) and saved_steps(run_dir)[-1] == 16
    assert read_metrics(run_dir)[-1]["step"] == 16
