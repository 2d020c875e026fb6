"""Training without `hrm train`: a loop of one's own, and what the model then solves.

python examples/own_task.py data/stones
python examples/own_loop.py data/stones
"""

import sys
from pathlib import Path

import torch

import hrm
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.format import DatasetMetadata, read_metadata, read_split
from hrm.models.losses import ACTLossHead

ROWS = 32  # puzzles side by side; each is given new data when it halts


def small_model(metadata: DatasetMetadata) -> ACTLossHead:
    """The quickstart's kind of model with fresh weights."""
    arch = dict(hidden_size=64, num_heads=4, H_layers=1, L_layers=1, expansion=2)
    arch |= dict(H_cycles=1, L_cycles=1, halt_max_steps=8, halt_exploration_prob=0.5)
    arch |= dict(pos_encodings="grid", attention_bias="grid", puzzle_emb_ndim=0, qk_norm=True)
    arch |= dict(backprop="last_cycle", q_continue=False, forward_dtype="float32")
    shapes = metadata.model_dump(include={"seq_len", "vocab_size", "num_puzzle_identifiers"})
    arch |= shapes | dict(grid_shape=metadata.grid_shape, box_shape=metadata.box_shape)
    return hrm.build_model(arch, {"loss_type": "softmax_cross_entropy"})


def train(model: ACTLossHead, data: str, epochs: int, lr: float = 2e-3) -> None:
    """One ACT step of every row for each batch, then an update."""
    where = dict(dataset_path=Path(data), rank=0, num_replicas=1, test_set_mode=False, seed=0)
    batches = PuzzleDatasetConfig(global_batch_size=ROWS, epochs_per_iter=epochs, **where)
    optimizer, carry = torch.optim.AdamW(model.parameters(), lr), None
    for _, batch, _ in PuzzleDataset(batches, split="train"):
        carry, loss, *_ = model(carry or model.initial_carry(batch), batch)
        (loss / ROWS).backward()
        optimizer.step()
        optimizer.zero_grad()


def solved(model: ACTLossHead, data: str) -> str:
    """How much of the test split it solves, halting when it is sure."""
    metadata, sets = read_split(Path(data, "test"))
    solver = hrm.Solver(model, metadata, torch.device("cpu"))
    [test] = sets.values()
    found = solver.solve(test.inputs[:])
    right = sum(bool((s.tokens == a).all()) for s, a in zip(found, test.labels, strict=True))
    steps = sum(solution.steps for solution in found) / len(found)
    return f"{right} of {len(found)} solved exactly, {steps:.1f} ACT steps on average"


if __name__ == "__main__":
    torch.manual_seed(0)
    small = small_model(read_metadata(Path(sys.argv[1], "train")))
    train(small, sys.argv[1], epochs=int(sys.argv[2]) if sys.argv[2:] else 20)
    print(solved(small, sys.argv[1]))
