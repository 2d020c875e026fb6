"""Trains golden cases on the ranks that torchrun starts; saves what came out.

python golden_worker.py OUTPUT.pt MICRO_BATCH_SIZE … CASE.npz …
"""

import sys
from pathlib import Path
from typing import Any

import torch

from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.state import TrainState, train_step
from tests.models.test_golden import Golden


def trained(case: Path, micro: int, ranks: Ranks) -> dict[str, Any]:
    """Metrics and halted rows of every step, and the final weights."""
    golden = Golden(case)
    meta = golden.meta
    config = load_pretrain_config(
        [
            f"global_batch_size={meta['arch']['batch_size']}",
            f"micro_batch_size={micro}",
            f"lr={meta['lr']}",
            f"weight_decay={meta['weight_decay']}",
            f"beta1={meta['betas'][0]}",
            f"beta2={meta['betas'][1]}",
            f"puzzle_emb_lr={meta['puzzle_emb_lr']}",
            f"puzzle_emb_weight_decay={meta['puzzle_emb_weight_decay']}",
            "lr_warmup_steps=0",
            "lr_min_ratio=1",
        ]
    )
    model = golden.model().train()
    state = TrainState.of(model, config, ranks, meta["steps"])
    local = config.global_batch_size // ranks.size
    share = slice(ranks.rank * local, (ranks.rank + 1) * local)
    steps = []
    for s in range(meta["steps"]):
        batch = {n: t[share] for n, t in golden.under(f"train/{s}/batch/").items()}
        metrics = ranks.sum(train_step(state, batch, config, ranks))
        halted = torch.cat([carry.halted for carry in state.carries])
        steps.append({"metrics": metrics, "halted": ranks.gather_rows(halted)})
    return {"steps": steps, "final": model.state_dict()}


def main() -> None:
    output, *words = sys.argv[1:]
    micros, cases = [w for w in words if w.isdecimal()], [w for w in words if w.endswith(".npz")]
    torch.set_num_threads(1)
    ranks = Ranks.from_environment()
    with ranks.connected():
        outcomes = {
            f"{Path(case).stem} {micro}": trained(Path(case), int(micro), ranks)
            for case in cases
            for micro in micros
        }
        if ranks.is_first:
            torch.save(outcomes, output)


if __name__ == "__main__":
    main()
