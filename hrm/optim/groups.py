"""Which optimizer updates what: the groups are disjoint and leave nothing out."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from hrm.config import BelowOne, Config, Fraction, NonNegative
from hrm.models.sparse_embedding import CastedSparseEmbedding
from hrm.optim.adam_atan2 import AdamATan2
from hrm.optim.sparse_sign_sgd import SparseSignSGD


class OptimConfig(Config):
    """Keys of the optimizers, of their learning rates and of the running average."""

    lr: NonNegative = Field(7e-5, description="learning rate of all dense weights")
    lr_min_ratio: Fraction = Field(0.1, description="the cosine ends at lr · lr_min_ratio")
    lr_warmup_steps: int = Field(100, ge=0, description="steps of linear warm-up from 0")
    weight_decay: NonNegative = Field(1.0, description="decoupled, times the learning rate")
    beta1: BelowOne = Field(0.9, description="decay of Adam's first average")
    beta2: BelowOne = Field(0.95, description="decay of Adam's second average")
    puzzle_emb_lr: NonNegative = Field(7e-5, description="learning rate of the puzzle embedding")
    puzzle_emb_weight_decay: NonNegative = Field(1.0, description="weight decay of its rows")
    ema: bool = Field(
        False, description="evaluate a running average of the weights (saved beside them)"
    )
    ema_decay: BelowOne = Field(0.999, description="decay of the running average")
    ema_warm_up: bool = Field(
        True, description="decay (1 + t)/(10 + t) at most after t steps, so that it soon follows"
    )
    ema_buffers: bool = Field(
        True, description="average the puzzle embedding, too; false: it is taken as it is"
    )
    grad_clip: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="largest norm of the gradient (of all parameters together)",
    )


class GroupOptimizer(Protocol):
    """What training needs of an optimizer: groups with `role` and `base_lr`, and these."""

    param_groups: list[dict[str, Any]]
    state: Any

    def step(self, *, only_if: Tensor | None = None) -> Any:
        """One update; False leaves weights and averages as they are."""

    def zero_grad(self) -> None: ...

    def blank_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What it keeps of a parameter, in the shapes and dtypes of a checkpoint."""

    def gradients(self) -> list[Tensor]:
        """Gradients that are not the `grad` of a parameter."""


def build_optimizers(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    puzzle_emb_lr: float,
    puzzle_emb_weight_decay: float,
    process_group: dist.ProcessGroup | None = None,
) -> list[GroupOptimizer]:
    """One AdamATan2 over all parameters, and one SparseSignSGD per puzzle embedding, if any."""
    dense = {"params": list(model.parameters()), "role": "dense", "base_lr": lr}
    optimizers: list[GroupOptimizer] = [
        AdamATan2([dense], lr=lr, betas=betas, weight_decay=weight_decay)
    ]
    for table in _tables(model):
        sparse = SparseSignSGD(table, puzzle_emb_lr, puzzle_emb_weight_decay, process_group)
        sparse.param_groups[0] |= {"role": "puzzle_embedding", "base_lr": puzzle_emb_lr}
        optimizers.append(sparse)
    _check_complete(model, optimizers)
    return optimizers


def set_learning_rates(
    optimizers: Sequence[GroupOptimizer], scheduled: Callable[[float], float]
) -> None:
    """Give every group the rate that `scheduled` makes of its base rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = scheduled(group["base_lr"])


def _tables(model: nn.Module) -> list[CastedSparseEmbedding]:
    return [module for module in model.modules() if isinstance(module, CastedSparseEmbedding)]


def _check_complete(model: nn.Module, optimizers: Sequence[GroupOptimizer]) -> None:
    """Every parameter and every puzzle table is updated by exactly one group."""
    held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    wanted = [*map(id, model.parameters()), *(id(table.weights) for table in _tables(model))]
    assert sorted(held) == sorted(wanted), "optimizer groups overlap or leave something out"
