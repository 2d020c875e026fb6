"""All of a run's state as named tensors and plain values, and back.

Nothing depends on how the global batch was shared out: carries are stored in the order of its rows,
so that another number of ranks, or other micro-batches, can go on from them.

    optimizer/<key>/<parameter>    moments and step counts
    carry/<field>, carry/current_data/<name>    [global batch, …]
    metrics/<rank>/<name>          sums since the last logged line
    random/<rank>/<generator>      states of random generators
    stability/<name>               unsound steps in a row, and the first of them
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrm.checkpoint import TrainingRecord
from hrm.models.hrm_act_v1 import Carry
from hrm.optim import AdamATan2
from hrm.training.distributed import Ranks
from hrm.training.state import TrainState

COUNTERS = (
    "step",
    "iteration",
    "batch",
    "since_log",
    "best_step",
    "best_exact_accuracy",
    "evaluations_since_best",
)
CARRY_FIELDS = tuple(f.name for f in fields(Carry) if f.name != "current_data")


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at a step; tensors in host memory."""

    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    record: TrainingRecord


class Staging:
    """Host memory that the state is copied to; reused, since fresh memory costs page faults."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies that stay as they are until the next call; on CUDA pinned, and one wait."""
        kept = {}
        for name, tensor in tensors.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            kept[name] = buffer.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()
        self._buffers = kept
        return kept


def take(
    state: TrainState, ranks: Ranks, staging: Staging, more: Mapping[str, Any]
) -> Snapshot | None:
    """Copy the state to rank 0's host memory; None on the other ranks, which must call it too.

    Args:
        more: values to record besides the state's own.
    """
    carry = {f"carry/{name}": t for name, t in _joined_carry(state).items()}
    mine = {f"metrics/{name}": t for name, t in state.sums.totals().items()}
    mine |= {f"random/{name}": t for name, t in _generators(_device(state)).items()}
    collected_carry, collected = ranks.collect(carry), ranks.collect(mine)
    if not ranks.is_first:
        return None

    tensors = {f"weights/{name}": t for name, t in state.model.state_dict().items()}
    if state.ema is not None:
        tensors |= {f"ema/{name}": t for name, t in state.ema.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        for optimizer in state.optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = value
    tensors |= {f"stability/{name}": t for name, t in state.stability.tensors().items()}
    tensors |= {
        name: parts[0] if len(parts) == 1 else torch.cat(parts)
        for name, parts in collected_carry.items()
    }
    for name, parts in collected.items():
        kind, _, which = name.partition("/")
        tensors |= {f"{kind}/{rank}/{which}": part for rank, part in enumerate(parts)}
    copies = staging.copy(tensors)

    values = {name: getattr(state, name) for name in COUNTERS}
    values["ema_updates"] = 0 if state.ema is None else state.ema.updates
    values["is_sound"] = _is_sound(state)
    values |= {"ranks": ranks.size, **more}
    rest = {n: t for n, t in copies.items() if not n.startswith(("weights/", "ema/"))}
    return Snapshot(
        weights=_under("weights/", copies),
        ema=None if state.ema is None else _under("ema/", copies),
        record=TrainingRecord(rest, values),
    )


def restore(state: TrainState, snapshot: Snapshot, ranks: Ranks, micro_batch_size: int) -> None:
    """Put a snapshot, the same on every rank, into a state of the same model and batch size."""
    tensors, values = snapshot.record.tensors, snapshot.record.values
    device = _device(state)
    state.model.load_state_dict(snapshot.weights)
    if state.ema is not None and snapshot.ema is not None:
        state.ema.load(snapshot.ema, values["ema_updates"])
    for optimizer in state.optimizers:
        optimizer.state.clear()
        optimizer.zero_grad()
    (dense,) = [o for o in state.optimizers if isinstance(o, AdamATan2)]
    moments = _under("optimizer/", tensors)
    for name, parameter in state.model.named_parameters():
        dense.state[parameter] = {
            key: moments[f"{key}/{name}"].to(device if key != "step" else "cpu", copy=True)
            for key in {path.split("/")[0] for path in moments}
        }
    for name in COUNTERS:
        setattr(state, name, values[name])

    carry = _under("carry/", tensors)
    local = len(carry["row"]) // ranks.size
    state.carries = [
        _carry_of_rows(carry, slice(start, start + micro_batch_size), device)
        for start in range(ranks.rank * local, (ranks.rank + 1) * local, micro_batch_size)
    ]
    state.stability.load(_under("stability/", tensors))
    state.sums.load(_shared_sums(tensors, values["ranks"], ranks, device))
    if generators := _under(f"random/{ranks.rank}/", tensors):
        _restore_generators(generators, device)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _device(state: TrainState) -> torch.device:
    return next(state.model.parameters()).device


def _is_sound(state: TrainState) -> bool:
    """Whether the last step was sound, and left finite weights."""
    norms = torch._foreach_norm(list(state.model.parameters()))
    return bool((state.stability.in_a_row == 0) & torch.stack(norms).isfinite().all())


def _joined_carry(state: TrainState) -> dict[str, Tensor]:
    """This rank's carries as one, field by field."""
    named = [
        {name: getattr(carry, name) for name in CARRY_FIELDS}
        | {f"current_data/{name}": t for name, t in carry.current_data.items()}
        for carry in state.carries
    ]
    if len(named) == 1:
        return named[0]
    return {name: torch.cat([carry[name] for carry in named]) for name in named[0]}


def _carry_of_rows(carry: Mapping[str, Tensor], rows: slice, device: torch.device) -> Carry:
    copies = {name: t[rows].to(device, copy=True) for name, t in carry.items()}
    data = _under("current_data/", copies)
    return Carry(current_data=data, **{name: copies[name] for name in CARRY_FIELDS})


def _shared_sums(
    tensors: Mapping[str, Tensor], saved_ranks: int, ranks: Ranks, device: torch.device
) -> dict[str, Tensor]:
    """Each rank's own sums; with another number of ranks, all of them on rank 0."""
    saved = [_under(f"metrics/{rank}/", tensors) for rank in range(saved_ranks)]
    if saved_ranks == ranks.size:
        mine = saved[ranks.rank]
    else:
        total = {name: torch.stack([s[name] for s in saved]).sum(0) for name in saved[0]}
        mine = {name: t if ranks.is_first else torch.zeros_like(t) for name, t in total.items()}
    return {name: t.to(device, copy=True) for name, t in mine.items()}


def _generators(device: torch.device) -> dict[str, Tensor]:
    """States of all random generators, as bytes or integers."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert version == 3 and name == "MT19937"
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor(torch.nan if gauss is None else gauss, dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_position": torch.tensor([position, has_gauss]),
        "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    gauss = states["python_gauss"].item()
    random.setstate((3, tuple(states["python"].tolist()), None if gauss != gauss else gauss))
    position, has_gauss = states["numpy_position"].tolist()
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, states["numpy_gauss"].item()))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
