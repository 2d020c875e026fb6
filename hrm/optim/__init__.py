"""Optimizers: AdamATan2 for parameters, sparse sign-SGD for the puzzle embedding."""

import torch.distributed as dist
from torch import nn

from hrm.models.sparse_embedding import CastedSparseEmbedding
from hrm.optim.adam_atan2 import AdamATan2
from hrm.optim.sparse_sign_sgd import SparseSignSGD

__all__ = ["AdamATan2", "SparseSignSGD", "build_optimizers"]


def build_optimizers(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    puzzle_emb_lr: float,
    puzzle_emb_weight_decay: float,
    process_group: dist.ProcessGroup | None = None,
) -> list[AdamATan2 | SparseSignSGD]:
    """One AdamATan2 over all parameters, and one SparseSignSGD per puzzle embedding, if any."""
    optimizers: list[AdamATan2 | SparseSignSGD] = [
        AdamATan2(model.parameters(), lr=lr, betas=betas, weight_decay=weight_decay)
    ]
    optimizers += [
        SparseSignSGD(module, puzzle_emb_lr, puzzle_emb_weight_decay, process_group)
        for module in model.modules()
        if isinstance(module, CastedSparseEmbedding)
    ]
    return optimizers
