"""What changes while a model trains."""

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hrm.checkpoint import build_for
from hrm.data.format import DatasetMetadata
from hrm.device import compile_model
from hrm.metrics import FIRST_STEP, MetricSums
from hrm.models.act import Carry
from hrm.models.losses import ACTLossHead
from hrm.models.sparse_embedding import forget_lookups
from hrm.optim.ema import EMA
from hrm.optim.groups import GroupOptimizer, build_optimizers, set_learning_rates
from hrm.optim.schedule import learning_rate
from hrm.ranks import Ranks
from hrm.tasks import Task, task_of
from hrm.training.config import PretrainConfig
from hrm.training.hints import with_hints
from hrm.training.stability import Stability, sound_rows

FIRST_STEP_METRICS = ("count", "accuracy", "exact_accuracy")


@dataclass
class TrainState:
    """Everything that a run needs to be resumed."""

    model: ACTLossHead
    parallel: nn.Module  # the model; its backward pass sums gradients over the ranks
    optimizers: list[GroupOptimizer]
    ema: EMA | None
    total_steps: int
    stability: Stability
    carries: list[Carry] = field(default_factory=list)  # one per micro-batch
    sums: MetricSums = field(default_factory=MetricSums)  # since the last line of metrics
    step: int = 0
    iteration: int = 0
    batch: int = 0  # batches taken of the iteration
    since_log: int = 0  # steps
    best_metric: str = Task.best_metric  # by which evaluations are compared
    best_step: int | None = None
    best_value: float | None = None
    evaluations_since_best: int = 0

    @staticmethod
    def create(
        config: PretrainConfig,
        metadata: DatasetMetadata,
        device: torch.device,
        ranks: Ranks,
        weights: Mapping[str, Tensor] | None = None,
    ) -> "TrainState":
        """The same on every rank; seeds all random generators.

        Args:
            weights: to begin with; None: fresh ones from `config.seed`.
        """
        torch.manual_seed(config.seed)
        random.seed(config.seed)
        np.random.seed(config.seed % 2**32)
        model = build_for(config, metadata)
        if weights is not None:
            model.load_state_dict(weights)
        model = model.to(device).train()
        compile_model(model, config.compile, device)
        return TrainState.of(
            model,
            config,
            ranks,
            config.total_steps(metadata),
            task_of(metadata).best_metric,
        )

    @staticmethod
    def of(
        model: ACTLossHead,
        config: PretrainConfig,
        ranks: Ranks,
        steps: int,
        best_metric: str = Task.best_metric,
    ) -> "TrainState":
        """The state of a model before its first step."""
        parallel = ranks.parallel(model)
        if parallel is not model:
            settle_buckets(model, parallel, config.local_micro_batch_size(ranks.size))
        averages = config.ema_decay, config.ema_warm_up, config.ema_buffers
        return TrainState(
            model=model,
            parallel=parallel,
            optimizers=build_optimizers(
                model,
                config,
                process_group=ranks.group,
                muon_dtype=(torch.bfloat16 if config.arch.forward_dtype == "bfloat16" else None),
            ),
            ema=EMA(model, *averages) if config.ema else None,
            total_steps=steps,
            stability=Stability.of(model),
            best_metric=best_metric,
        )


def settle_buckets(model: ACTLossHead, parallel: nn.Module, rows: int) -> None:
    """A forward and a backward pass on blanks, whose gradients are dropped.

    DistributedDataParallel orders the gradients that travel together after its first backward
    pass, and three or more ranks add up in another order then. A run that is resumed in a new
    process would differ in the last bit from one that was never stopped.
    """
    batch = model.model.blank_batch(rows, next(model.parameters()).device)
    _, loss, *_ = parallel(carry=model.initial_carry(batch), batch=batch)
    loss.backward()
    forget_gradients(model)


def forget_gradients(model: ACTLossHead) -> None:
    """Those of the weights, and of the rows of a puzzle embedding."""
    model.zero_grad()
    forget_lookups(model)


def train_step(
    state: TrainState,
    batch: dict[str, Tensor],
    config: PretrainConfig,
    ranks: Ranks,
) -> dict[str, Tensor]:
    """One update from this rank's share [B, …] of a global batch.

    Every micro-batch keeps its own slice of the carry; gradients add up over micro-batches and
    ranks, so that neither changes the result. A step whose loss or gradient is not finite changes
    no weight, and sequences whose state is not finite begin anew with the next batch.

    Returns:
        Metrics of this rank, summed as `ACTLossHead.forward` does, and those of first steps; 0 for
        an unsound step.
    """
    begin_step(state, config)
    return compute_step(state, batch, config, ranks)


def begin_step(state: TrainState, config: PretrainConfig) -> None:
    """The host's part of a step: all that depends on how many there were."""
    state.step += 1
    state.stability.step.fill_(state.step)
    set_learning_rates(state.optimizers, lambda base: scheduled_lr(base, state, config))
    if state.ema is not None:
        state.ema.advance()


def compute_step(
    state: TrainState, batch: dict[str, Tensor], config: PretrainConfig, ranks: Ranks
) -> dict[str, Tensor]:
    """The device's part of a step, as `train_step`.

    The host neither waits for it nor knows which step it is, and whatever lives longer than the
    step stays where it is in memory: so a CUDA graph of one step is good for all.
    """
    micro = config.local_micro_batch_size(ranks.size)
    local = config.global_batch_size // ranks.size
    metrics: dict[str, Tensor] = {}
    sound = torch.ones((), dtype=torch.bool, device=batch["inputs"].device)
    for index, start in enumerate(range(0, local, micro)):
        rows = {name: tensor[start : start + micro] for name, tensor in batch.items()}
        if index == len(state.carries):
            first_row = ranks.rank * local + start
            make = state.model.staggered_carry if config.stagger else state.model.initial_carry
            state.carries.append(make(rows, first_row))
        if config.hint_rate:
            hints = config.hint_rate, config.hint_most, config.seed
            rows = with_hints(rows, state.carries[index], *hints)
        with _reduced_later(state.parallel) if start + micro < local else nullcontext():
            carry, loss, sums, each, _ = state.parallel(
                carry=state.carries[index], batch=rows, return_keys=FIRST_STEP_METRICS
            )
            (loss / config.global_batch_size).backward()
        finite = sound_rows(carry)
        carry.halted = carry.halted | ~finite
        state.carries[index].take(carry)
        sound = sound & finite.all()
        sums |= first_step_sums(carry, each)
        metrics = {name: metrics.get(name, 0) + value for name, value in sums.items()}

    grads = [_gradient(p) for p in state.model.parameters()]
    norms = torch._foreach_norm(grads)
    parts = [metrics[name] for name in state.model.loss_names]
    parts += [torch.where(sound, 0.0, torch.nan), _sum_of_gradients(state)]
    sound = state.stability.judge(parts, norms, ranks)
    if config.grad_clip is not None:
        total = torch.linalg.vector_norm(torch.stack(norms))
        nn.utils.clip_grads_with_norm_(state.model.parameters(), config.grad_clip, total)
    for optimizer in state.optimizers:
        optimizer.step(only_if=sound)
        optimizer.zero_grad()
    if state.ema is not None:
        state.ema.follow()

    metrics = {name: torch.where(sound, value, 0) for name, value in metrics.items()}
    metrics["examples"] = sound * float(config.global_batch_size * ranks.is_first)
    metrics["skipped_steps"] = ~sound * float(ranks.is_first)
    return metrics


def first_step_sums(carry: Carry, each: dict[str, Tensor]) -> dict[str, Tensor]:
    """Metrics summed over the sequences that have taken their first ACT step.

    No update has seen their data since they were drawn; those that halt have had one for each of
    their steps.
    """
    first = carry.steps == 1
    return {f"{FIRST_STEP}{name}": (each[name] * first).sum() for name in FIRST_STEP_METRICS}


def _reduced_later(parallel: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay on this rank while inside, to be summed with those of the next backward."""
    if isinstance(parallel, DistributedDataParallel):
        return parallel.no_sync()
    return nullcontext()


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "every parameter takes part in every step"
    return parameter.grad


def _sum_of_gradients(state: TrainState) -> Tensor:
    """A scalar that is finite if this rank's gradients of looked-up puzzle rows are."""
    grads = [grad for optimizer in state.optimizers for grad in optimizer.gradients()]
    device = state.stability.in_a_row.device
    return sum((grad.sum() for grad in grads), torch.zeros((), device=device))


def scheduled_lr(base: float, state: TrainState, config: PretrainConfig) -> float:
    """`base` at the state's step."""
    return learning_rate(
        state.step, base, config.lr_warmup_steps, state.total_steps, config.lr_min_ratio
    )
