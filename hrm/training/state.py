"""What changes while a model trains."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from hrm.checkpoint import build_for
from hrm.config import PretrainConfig
from hrm.data.format import DatasetMetadata
from hrm.device import compile_model
from hrm.models.hrm_act_v1 import Carry
from hrm.models.losses import ACTLossHead
from hrm.optim import SparseSignSGD, build_optimizers
from hrm.optim.ema import EMA
from hrm.optim.schedule import learning_rate, total_steps
from hrm.training.distributed import Ranks


@dataclass
class TrainState:
    """Model, optimizers, average, carries (one per micro-batch) and the step."""

    model: ACTLossHead
    optimizers: list[Optimizer]
    ema: EMA | None
    total_steps: int
    step: int = 0
    carries: list[Carry] = field(default_factory=list)

    @staticmethod
    def create(
        config: PretrainConfig, metadata: DatasetMetadata, device: torch.device, ranks: Ranks
    ) -> "TrainState":
        """Fresh weights from `config.seed`, the same on every rank."""
        torch.manual_seed(config.seed)
        model = build_for(config, metadata).to(device).train()
        ranks.broadcast_model(model)
        compile_model(model, config.compile, device)
        return TrainState(
            model=model,
            optimizers=build_optimizers(
                model,
                lr=config.lr,
                weight_decay=config.weight_decay,
                betas=(config.beta1, config.beta2),
                puzzle_emb_lr=config.puzzle_emb_lr,
                puzzle_emb_weight_decay=config.puzzle_emb_weight_decay,
            ),
            ema=EMA(model, config.ema_decay) if config.ema else None,
            total_steps=total_steps(
                config.epochs,
                metadata.total_groups,
                metadata.mean_puzzle_examples,
                config.global_batch_size,
            ),
        )


def train_step(
    state: TrainState,
    batch: dict[str, Tensor],
    config: PretrainConfig,
    ranks: Ranks,
) -> dict[str, Tensor]:
    """One update from this rank's share [B, …] of a global batch.

    Every micro-batch keeps its own slice of the carry; gradients add up over micro-batches and
    ranks, so that neither changes the result.

    Returns:
        Metrics of this rank, summed as `ACTLossHead.forward` does.
    """
    state.step += 1
    micro = config.local_micro_batch_size(ranks.size)
    local = config.global_batch_size // ranks.size
    metrics: dict[str, Tensor] = {}
    for index, start in enumerate(range(0, local, micro)):
        rows = {name: tensor[start : start + micro] for name, tensor in batch.items()}
        if index == len(state.carries):
            first_row = ranks.rank * local + start
            state.carries.append(state.model.initial_carry(rows, first_row))
        state.carries[index], loss, sums, _, _ = state.model(carry=state.carries[index], batch=rows)
        (loss / config.global_batch_size).backward()
        metrics = {name: metrics.get(name, 0) + value for name, value in sums.items()}

    ranks.sum_gradients(state.model.parameters())
    for optimizer in state.optimizers:
        base = config.puzzle_emb_lr if isinstance(optimizer, SparseSignSGD) else config.lr
        for group in optimizer.param_groups:
            group["lr"] = scheduled_lr(base, state, config)
        optimizer.step()
        optimizer.zero_grad()
    if state.ema is not None:
        state.ema.update()
    return metrics


def scheduled_lr(base: float, state: TrainState, config: PretrainConfig) -> float:
    """`base` at the state's step."""
    return learning_rate(
        state.step, base, config.lr_warmup_steps, state.total_steps, config.lr_min_ratio
    )
