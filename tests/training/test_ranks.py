"""Neither micro-batches nor ranks change what is computed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMALL_MODEL

STEPS = 20


def losses(run_dir: Path) -> torch.Tensor:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if "train/lm_loss" in line]
    names = ("lm_loss", "q_halt_loss", "q_continue_loss")
    return torch.tensor([[line[f"train/{name}"] for name in names] for line in train])


def counts(run_dir: Path) -> list[dict[str, float]]:
    """What is not a loss, of every training step."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    names = ("count", "accuracy", "steps", "first_step_accuracy", "first_step_exact_accuracy")
    train = [line for line in lines if "train/lm_loss" in line]
    return [{n: line[f"train/{n}"] for n in names if f"train/{n}" in line} for line in train]


def arguments(data: Path, *more: str) -> tuple[str, ...]:
    return (
        f"data_path={data}",
        "global_batch_size=16",
        "epochs=4",
        "eval_interval=4",
        "puzzle_emb_lr=1e-2",
        "ema=true",
        "eval_save_outputs=[predictions,steps,inputs]",
        *SMALL_MODEL,
        *more,
    )


def run_alone(data: Path, run_dir: Path, *more: str) -> Path:
    """A run of one process without micro-batches."""
    from hrm.ranks import Ranks
    from hrm.training.config import load_pretrain_config
    from hrm.training.loop import train

    torch.set_num_threads(1)
    config = load_pretrain_config(arguments(data, f"checkpoint_path={run_dir}", *more))
    return train(
        config.model_copy(update={"run_name": "single"}), Ranks(0, 1, 0), torch.device("cpu")
    )


@pytest.fixture(scope="module")
def single(data_4x4, tmp_path_factory) -> Path:
    return run_alone(data_4x4, tmp_path_factory.mktemp("run") / "single")


@pytest.mark.parametrize("ranks, micro", [(1, 4), (2, 8), (2, 4)])
def test_same_result(single, data_4x4, tmp_path, call_script, run_script, ranks, micro):
    run_dir = tmp_path / "run"
    more = (f"checkpoint_path={run_dir}", f"micro_batch_size={micro}")
    words = arguments(data_4x4, *more)
    if ranks == 1:
        result = call_script("pretrain.py", *words)
    else:
        result = run_script("pretrain.py", *words, ranks=ranks)
    assert result.returncode == 0, result.stderr

    ours, reference = losses(run_dir), losses(single)
    assert len(reference) >= STEPS
    difference = ((ours - reference).abs() / reference.abs())[:STEPS].max().item()
    print(f"ranks={ranks} micro_batch_size={micro}: largest relative difference {difference:.1e}")
    assert difference <= 1e-5

    (last,) = single.glob("step_*")
    for name in ("predictions", "inputs"):
        file = f"{last.name}/predictions.safetensors"
        assert torch.equal(load_file(run_dir / file)[name], load_file(single / file)[name])
    for file in ("model.safetensors", "ema.safetensors"):
        weights, expected = load_file(run_dir / last.name / file), load_file(last / file)
        for name, tensor in weights.items():
            close = (tensor - expected[name]).abs() <= 1e-4 * expected[name].abs().max()
            assert close.float().mean() >= 0.999, (file, name)


def test_two_ranks_equal_one_with_muon_and_a_staggered_carry(data_4x4, tmp_path, run_script):
    more = ("optimizer=muon", "stagger=true", "hint_rate=0.5", "epochs=2", "eval_interval=2")
    alone = run_alone(data_4x4, tmp_path / "alone", *more)
    words = arguments(data_4x4, f"checkpoint_path={tmp_path / 'two'}", "micro_batch_size=4", *more)
    result = run_script("pretrain.py", *words, ranks=2)
    assert result.returncode == 0, result.stderr
    ours, reference = losses(tmp_path / "two"), losses(alone)
    difference = ((ours - reference).abs() / reference.abs()).max().item()
    print(f"muon, 2 ranks: largest relative difference {difference:.1e} in {len(ours)} steps")
    assert len(ours) == len(reference) == 12 and difference <= 1e-5
    for mine, theirs in zip(*map(counts, (tmp_path / "two", alone)), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


def test_batch_not_divisible_by_ranks(data_4x4, run_script):
    more = ("global_batch_size=15", "run_name=x")
    result = run_script("pretrain.py", *arguments(data_4x4, *more), ranks=2)
    assert result.returncode != 0
    told = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert told == ["error: global_batch_size=15 is not divisible by 2 ranks"]
