"""A CUDA device computes what the CPU computes; beside the golden values and the exact resume of
`models/test_golden.py` and `training/test_resume.py`, which run there, too.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hrm.data.format import read_metadata
from hrm.device import to_device
from hrm.inference import Solver
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.loop import train, with_run_name
from hrm.training.sizing import for_device, memory_need
from hrm.training.state import TrainState, train_step
from tests.conftest import SMALL_MODEL, saved_run

SYMBOLS = "arch=symbol_equivariant"

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def losses(data: Path, folder: Path, *more: str) -> list[float]:
    absent = ["H_layers"] * ("arch=trm" in more) + ["H_layers", "num_heads"] * (SYMBOLS in more)
    small = [key for key in SMALL_MODEL if not any(name in key for name in absent)]
    names = f"data_path={data}", f"checkpoint_path={folder}", *small
    short = "global_batch_size=16", "epochs=2", "eval_interval=null"
    config = with_run_name(load_pretrain_config([*names, *short, *more]))
    run = train(config, Ranks(0, 1, 0), torch.device(config.device))
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["train/lm_loss"] for line in lines if "train/lm_loss" in line]


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("arch=trm",),
        (SYMBOLS,),
        ("optimizer=muon", "stagger=true"),
        ("arch=quickstart",),
    ],
)
def test_training_equals_that_on_the_cpu(data_4x4, tmp_path, more):
    there = losses(data_4x4, tmp_path / "there", *more, "device=cuda")
    here = losses(data_4x4, tmp_path / "here", *more, "device=cpu")
    assert len(there) == len(here) > 10
    torch.testing.assert_close(torch.tensor(there[:6]), torch.tensor(here[:6]), rtol=1e-3, atol=0)


@pytest.mark.filterwarnings("ignore")  # torch warns of its own doings while compiling
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_blocks_learn_the_same(data_4x4, tmp_path, dtype):
    more = f"arch.forward_dtype={dtype}", "device=cuda"
    plain = losses(data_4x4, tmp_path / "plain", *more, "compile=false")
    compiled = losses(data_4x4, tmp_path / "compiled", *more, "compile=true")
    tolerance = 1e-3 if dtype == "float32" else 5e-2
    torch.testing.assert_close(
        torch.tensor(compiled[:6]), torch.tensor(plain[:6]), rtol=tolerance, atol=0
    )
    assert compiled[-1] < 0.9 * compiled[0]


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("arch=trm", "ema=true"),
        ("arch=quickstart", "optimizer=muon", "stagger=true", "ema=true", "grad_clip=1"),
        ("micro_batch_size=4", "arch.forward_dtype=bfloat16"),
    ],
)
def test_captured_steps_are_the_same_steps(data_4x4, tmp_path, more):
    """To the bit, metrics and weights; the first three steps are not captured."""
    ends = []
    for given in ("true", "false"):
        folder = tmp_path / given
        keys = "device=cuda", "deterministic=true", "log_interval=3", f"cuda_graph={given}"
        logged = losses(data_4x4, folder, *more, *keys)
        [last] = folder.glob("step_*")
        ends.append((logged, load_file(last / "model.safetensors")))
    (logged, weights), (plainly, plain) = ends
    assert logged == plainly and len(logged) > 3
    assert all(torch.equal(weights[name], plain[name]) for name in plain)


def test_puzzles_are_solved_alike(data_4x4, tmp_path):
    saved = saved_run(data_4x4, tmp_path / "run")
    puzzles = [".3..1.3...4.4...", "1..............."] * 8
    here, there = (Solver.from_checkpoint(saved, device=name) for name in ("cpu", "cuda"))
    for mine, theirs in zip(here.solve(puzzles), there.solve(puzzles), strict=True):
        assert mine.answer == theirs.answer
        assert mine.steps == theirs.steps


@pytest.mark.parametrize("arch", ["hrm_v1", "trm", "trm_mlp", "symbol_equivariant"])
def test_the_memory_that_a_step_takes_is_foreseen(data_4x4, arch):
    """Measured once; the prediction decides the micro-batch of `auto`."""
    device = torch.device("cuda")
    more = "global_batch_size=256", "arch.forward_dtype=bfloat16", "compile=false"
    config = load_pretrain_config([f"data_path={data_4x4}", f"arch={arch}", *more])
    metadata = read_metadata(data_4x4 / "train")
    need = memory_need(config, metadata, linear_attention=True)
    config = for_device(config, device, metadata, 1, free=need.of(256, 256) * 2)
    assert config.micro_batch_size == 256
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    state = TrainState.create(config, metadata, device, Ranks(0, 1, 0))
    batch = state.model.model.blank_batch(256, "cpu")
    for _ in range(3):
        train_step(state, to_device(batch, device), config, Ranks(0, 1, 0))
    peak = torch.cuda.max_memory_allocated() - before
    print(f"{arch}: {peak / 2**20:.0f} MiB at the peak, {need.of(256, 256) / 2**20:.0f} foreseen")
    assert 0.4 * need.of(256, 256) <= peak <= 1.05 * need.of(256, 256)
