"""A run of version 0.1.0, from before tasks, cores and packages had their places, goes on.

`tests/fixtures/run_of_0.1.0/` was written by the commit 27405f6 on a CPU with AVX2: `run/` is what
lies in the run's folder after its checkpoint of step 150, `after/` what an undisturbed run ends
with, at step 186. Its data set is built anew, and must come out as it was.
"""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hrm.checkpoint import load_checkpoint
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.split import Split
from hrm.evaluation import evaluate
from hrm.inference import Solver
from hrm.ranks import Ranks
from hrm.tasks.sudoku.builder import BuildOptions, build
from hrm.training.config import load_pretrain_config
from hrm.training.loop import train

from ..conftest import ROOT

BEFORE = ROOT / "tests" / "fixtures" / "run_of_0.1.0"
DATA = Path("data/sudoku-4x4")
RUN = Path("checkpoints/p/before")
ALONE, CPU = Ranks(0, 1, 0), torch.device("cpu")
AS_TYPED = """data_path=data/sudoku-4x4 run_name=before project_name=p global_batch_size=16
epochs=30
eval_interval=15 puzzle_emb_lr=1e-2 checkpoint_interval=50 keep_checkpoints=null
arch.hidden_size=16 arch.num_heads=2 arch.H_layers=1 arch.L_layers=1 arch.halt_max_steps=4
arch.forward_dtype=float32 device=cpu compile=false progress=false log_interval=5 lr_warmup_steps=5
lr=1e-2 ema=true ema_decay=0.9 grad_clip=0.5 eval_halting=learned weight_decay=0.1
puzzle_emb_weight_decay=0.3 arch.pos_encodings=grid arch.attention_bias=grid
arch.loss.loss_type=softmax_cross_entropy"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """The run's folder, in a working directory that has its data set."""
    monkeypatch.chdir(tmp_path)
    build(BuildOptions(output_dir=DATA, generate=(2, 2), num_train=100, num_test=40, num_aug=10))
    RUN.parent.mkdir(parents=True)
    shutil.copytree(BEFORE / "run", RUN)
    return RUN


@pytest.mark.parametrize("halting", ["max_steps", "learned"])
def test_it_evaluates_to_the_same_numbers(run, halting):
    checkpoint = load_checkpoint(run)
    config = PuzzleDatasetConfig(
        seed=0,
        dataset_path=checkpoint.config.data_path,
        global_batch_size=checkpoint.config.global_batch_size,
        test_set_mode=True,
        epochs_per_iter=1,
        rank=0,
        num_replicas=1,
    )
    result = evaluate(checkpoint.model, PuzzleDataset(config, "test"), CPU, ALONE, halting)
    expected = json.loads((BEFORE / f"evaluation_{halting}.json").read_text())
    assert {"step": checkpoint.step, **result.named()} == pytest.approx(expected, rel=1e-5)


def test_it_solves_the_same_puzzles_in_the_same_way(run):
    solver = Solver.from_checkpoint(run, device="cpu")
    split = Split.open(DATA / "test")
    examples = [split.example(number) for number in range(len(split))]
    identifiers = np.array([solver.identifier_of(example.identifier) for example in examples])
    inputs = np.stack([example.inputs for example in examples])
    solutions = solver.solve(inputs, votes=3, restarts=1, puzzle_identifiers=identifiers)
    with open(BEFORE / "solved.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(solutions) == 40
    for row, solution in zip(rows, solutions, strict=True):
        assert (row["answer"], row["valid"]) == (solution.answer, str(solution.valid))
        assert int(row["steps"]) == solution.steps
        assert float(row["halt_probability"]) == pytest.approx(solution.halt_probability, abs=1e-4)


def test_it_resumes_to_the_same_end(run):
    config = load_pretrain_config([*AS_TYPED.split(), "resume=auto"])
    assert train(config, ALONE, CPU) == run
    expected = json.loads((BEFORE / "after" / "digests.json").read_text())
    last = run / "step_186"
    here = (torch.backends.cpu.get_cpu_capability(), torch.__version__)
    if here == (expected["cpu_capability"], expected["torch"]):
        found = {name: sha256(last / name) for name in expected["sha256"]}
        assert found == expected["sha256"]
        then, now = (
            [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            for folder in (BEFORE / "after", run)
        )
        known = [{name: line[name] for name in old} for old, line in zip(then, now, strict=True)]
        assert known == then  # metrics that came later stand beside them
    for name in ("model", "ema"):
        then, now = (
            load_file(folder / f"{name}.safetensors") for folder in (BEFORE / "after", last)
        )
        assert then.keys() == now.keys()
        for key, tensor in then.items():
            torch.testing.assert_close(now[key], tensor, rtol=1e-4, atol=1e-4, msg=f"{name} {key}")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
