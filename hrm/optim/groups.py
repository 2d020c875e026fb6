"""Which optimizer updates what: the groups are disjoint and leave nothing out."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from hrm.config import BelowOne, Config, Fraction, NonNegative
from hrm.models.layers import CastedBlock, CastedLinear
from hrm.models.sparse_embedding import CastedSparseEmbedding
from hrm.optim.adam_atan2 import AdamATan2
from hrm.optim.muon import Muon
from hrm.optim.sparse_sign_sgd import SparseSignSGD


class OptimConfig(Config):
    """Keys of the optimizers, of their learning rates and of the running average."""

    optimizer: Literal["adam_atan2", "muon"] = Field(
        "adam_atan2",
        description="of all dense weights; muon: of the blocks' matrices, not the rest",
    )
    lr: NonNegative = Field(7e-5, description="learning rate of all dense weights")
    lr_min_ratio: Fraction = Field(0.1, description="the cosine ends at lr · lr_min_ratio")
    lr_warmup_steps: int = Field(100, ge=0, description="steps of linear warm-up from 0")
    weight_decay: NonNegative = Field(1.0, description="decoupled, times the learning rate")
    beta1: BelowOne = Field(0.9, description="decay of Adam's first average")
    beta2: BelowOne = Field(0.95, description="decay of Adam's second average")
    muon_lr: NonNegative = Field(0.005, description="learning rate of Muon's matrices")
    muon_weight_decay: NonNegative = Field(0.1, description="their weight decay")
    muon_momentum: BelowOne = Field(0.95, description="decay of Muon's average of gradients")
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
    config: OptimConfig,
    process_group: dist.ProcessGroup | None = None,
    muon_dtype: torch.dtype | None = None,
) -> list[GroupOptimizer]:
    """One AdamATan2 over all parameters, and one SparseSignSGD per puzzle embedding, if any.

    With `optimizer=muon` the matrices of the blocks are Muon's, and AdamATan2 has the rest:
    embeddings, heads, biases of attention.

    Args:
        process_group: whose ranks' puzzle rows are summed; None: the default one.
        muon_dtype: of Muon's products; None: that of the weights.
    """
    c = config
    matrices = _matrices(model) if c.optimizer == "muon" else []
    taken = {id(layer.weight) for layer in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    dense = {"params": rest, "role": "dense", "base_lr": c.lr}
    optimizers: list[GroupOptimizer] = [
        AdamATan2([dense], lr=c.lr, betas=(c.beta1, c.beta2), weight_decay=c.weight_decay)
    ]
    if c.optimizer == "muon":
        groups: list[dict[str, Any]] = []
        for pieces in sorted({layer.fused for layer in matrices}):
            params = [layer.weight for layer in matrices if layer.fused == pieces]
            named = {"role": "matrices", "base_lr": c.muon_lr, "pieces": pieces}
            groups.append({"params": params, **named})
        muon = Muon(
            groups,
            lr=c.muon_lr,
            weight_decay=c.muon_weight_decay,
            momentum=c.muon_momentum,
            dtype=muon_dtype,
        )
        optimizers.append(muon)
    for table in _tables(model):
        lr, decay = c.puzzle_emb_lr, c.puzzle_emb_weight_decay
        sparse = SparseSignSGD(table, lr, decay, process_group)
        sparse.param_groups[0] |= {"role": "puzzle_embedding", "base_lr": lr}
        optimizers.append(sparse)
    _check_complete(model, optimizers)
    return optimizers


def set_learning_rates(
    optimizers: Sequence[GroupOptimizer], scheduled: Callable[[float], float]
) -> None:
    """Give every group the rate that `scheduled` makes of its base rate.

    Beside parameters on a device it is a tensor, so that a captured step sees it change.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate, device = scheduled(group["base_lr"]), group["params"][0].device
            if device.type == "cpu":
                group["lr"] = rate
            elif isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = torch.tensor(rate, device=device)


def _matrices(model: nn.Module) -> list[CastedLinear]:
    """Layers inside of blocks: each takes vectors to vectors of states."""
    blocks = [module for module in model.modules() if isinstance(module, CastedBlock)]
    return [m for block in blocks for m in block.modules() if isinstance(m, CastedLinear)]


def _tables(model: nn.Module) -> list[CastedSparseEmbedding]:
    return [module for module in model.modules() if isinstance(module, CastedSparseEmbedding)]


def _check_complete(model: nn.Module, optimizers: Sequence[GroupOptimizer]) -> None:
    """Every parameter and every puzzle table is updated by exactly one group."""
    held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    wanted = [*map(id, model.parameters()), *(id(table.weights) for table in _tables(model))]
    assert sorted(held) == sorted(wanted), "optimizer groups overlap or leave something out"
