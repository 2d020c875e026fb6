"""Trains a golden case on the ranks that torchrun starts, or in micro-batches; saves the outcome.

python golden_worker.py CASE.npz MICRO_BATCH_SIZE OUTPUT.pt
"""

import sys
from pathlib import Path

import torch

from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.state import TrainState, train_step
from tests.models.test_golden import Golden


def main() -> None:
    golden, micro, output = Golden(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
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
    torch.set_num_threads(1)
    ranks = Ranks.from_environment()
    with ranks.connected():
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
        if ranks.is_first:
            torch.save({"steps": steps, "final": model.state_dict()}, output)


if __name__ == "__main__":
    main()
