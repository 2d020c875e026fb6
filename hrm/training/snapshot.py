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
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from hrm.checkpoint import TrainingRecord
from hrm.data.format import IGNORE_LABEL_ID
from hrm.errors import UserError, first_mistake
from hrm.models.hrm_act_v1 import Carry
from hrm.optim import AdamATan2
from hrm.training.distributed import Ranks
from hrm.training.state import TrainState

Count = Annotated[int, Field(ge=0, lt=2**53)]
LARGEST_JOB = 2**20  # ranks
ALIGNMENT = 64  # bytes
SMALL_TENSORS = 2**20  # bytes, for step counts, metrics and random generators
CARRY_FIELDS = tuple(f.name for f in fields(Carry) if f.name != "current_data")


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at a step; tensors in host memory."""

    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    record: TrainingRecord


class Counters(BaseModel):
    """Fields of `TrainState` that are plain numbers."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    step: Count
    iteration: Count
    batch: Count
    since_log: Count
    best_step: Count | None
    best_exact_accuracy: Annotated[float, Field(ge=0, le=1)] | None
    evaluations_since_best: Count


class Values(Counters):
    """What a record must hold besides tensors."""

    ema_updates: Count
    is_sound: bool
    ranks: Annotated[int, Field(gt=0, le=LARGEST_JOB)]
    data: str
    wandb_run_id: str | None = None


def check_values(values: object, source: Path) -> None:
    """Raise `UserError` unless a run can go on from a record with these values."""
    try:
        Values.model_validate(values)
    except ValidationError as error:
        key, reason = first_mistake(error)
        told = f"{source}: was not written to be gone on from ({key}: {reason})"
        raise UserError(told) from None


class Staging:
    """Host memory that the state is copied to; reused, since fresh memory costs page faults."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._thread: Thread | None = None

    def reserve(self, size: int, pinned: bool) -> None:
        """Get that many bytes, beside whatever else goes on."""

        def get() -> None:
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=pinned).fill_(0)

        self._thread = Thread(target=get, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the memory is there: Python must not end while a thread is inside torch."""
        if self._thread is not None:
            self._thread.join()

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies that stay as they are until the next call; on CUDA pinned, and one wait."""
        self.wait()
        on_cuda = any(tensor.is_cuda for tensor in tensors.values())
        size = sum(_padded_bytes(tensor) for tensor in tensors.values())
        if size > len(self._memory):
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=on_cuda)
        copies, end = {}, 0
        for name, tensor in tensors.items():
            start, end = end, end + _padded_bytes(tensor)
            memory = self._memory[start : start + tensor.nbytes].view(tensor.dtype)
            copies[name] = memory.view(tensor.shape)
            copies[name].copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        if on_cuda:
            torch.cuda.synchronize()
        return copies


def _padded_bytes(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT


def expected_bytes(state: TrainState, batch_size: int) -> int:
    """Size of a snapshot, a little more than less."""
    weights = list(state.model.state_dict().values()) * (1 if state.ema is None else 2)
    moments = [*state.model.parameters()] * 2
    carry = list(_blank_carry(state, batch_size).values())
    return sum(map(_padded_bytes, [*weights, *moments, *carry])) + SMALL_TENSORS


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

    values = {name: getattr(state, name) for name in Counters.model_fields}
    values["ema_updates"] = 0 if state.ema is None else state.ema.updates
    values["is_sound"] = _is_sound(state)
    values |= {"ranks": ranks.size, **more}
    rest = {n: t for n, t in copies.items() if not n.startswith(("weights/", "ema/"))}
    return Snapshot(
        weights=_under("weights/", copies),
        ema=None if state.ema is None else _under("ema/", copies),
        record=TrainingRecord(rest, values),
    )


def check(state: TrainState, snapshot: Snapshot, batch_size: int, source: Path) -> None:
    """Compare a snapshot with a state of the run's model, before `restore` takes it.

    Args:
        batch_size: rows of all ranks.
        source: what to name in an error.

    Raises:
        UserError: a tensor is missing, or of another shape or dtype; a token is none.
    """
    tensors, ranks = snapshot.record.tensors, snapshot.record.values["ranks"]
    _compare(state.model.state_dict(), snapshot.weights, source)
    if state.ema is not None:
        _compare(state.ema.state_dict(), snapshot.ema or {}, source)
    expected = {}
    for name, parameter in state.model.named_parameters():
        expected[f"optimizer/step/{name}"] = torch.empty((), device="meta")
        expected[f"optimizer/exp_avg/{name}"] = expected[f"optimizer/exp_avg_sq/{name}"] = parameter
    carry = {f"carry/{name}": t for name, t in _blank_carry(state, batch_size).items()}
    stability = {f"stability/{name}": t for name, t in state.stability.tensors().items()}
    _compare(expected | carry | stability, tensors, source)
    named = {tuple(name.split("/")[:2]) for name in tensors if name.startswith("random/")}
    if named != {("random", str(rank)) for rank in range(min(ranks, len(named) + 1))}:
        raise UserError(f"{source}: holds no random generators of {ranks} ranks")
    generators = _generators(torch.device("cpu"))
    for rank in range(ranks):
        _compare({f"random/{rank}/{name}": t for name, t in generators.items()}, tensors, source)
        for name in _under("metrics/0/", tensors):
            _compare({f"metrics/{rank}/{name}": tensors[f"metrics/0/{name}"]}, tensors, source)
    for name, tensor in tensors.items():
        if name.startswith("metrics/") and (tensor.ndim > 0 or tensor.is_complex()):
            raise UserError(f"{source}: {name} is not a number")
    _check_tokens(state, tensors, source)


def restore(state: TrainState, snapshot: Snapshot, ranks: Ranks, micro_batch_size: int) -> None:
    """Put a snapshot, the same on every rank, into a state of the same model and batch size.

    Raises:
        UserError: the state of a random generator is none.
    """
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
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
    for name in Counters.model_fields:
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
        try:
            _restore_generators(generators, device)
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise UserError(f"random generators cannot be restored ({reason})") from None


def _compare(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], source: Path) -> None:
    for name, tensor in expected.items():
        if name not in given:
            raise UserError(f"{source}: tensor {name} is missing")
        shape, dtype = list(given[name].shape), given[name].dtype
        if shape != list(tensor.shape) or dtype != tensor.dtype:
            raise UserError(
                f"{source}: tensor {name} is {dtype} {shape}, the run's is {tensor.dtype} "
                f"{list(tensor.shape)}"
            )


def _blank_carry(state: TrainState, batch_size: int) -> dict[str, Tensor]:
    """Shapes and dtypes of all ranks' carries."""
    tokens = torch.empty(
        batch_size, state.model.model.config.seq_len, dtype=torch.int32, device="meta"
    )
    rows = torch.empty(batch_size, dtype=torch.int32, device="meta")
    batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": rows}
    return _named(state.model.initial_carry(batch))


def _check_tokens(state: TrainState, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Raise `UserError` where a carry would look up what is in no table."""
    config = state.model.model.config
    inputs, labels, identifiers = (
        tensors[f"carry/current_data/{name}"] for name in ("inputs", "labels", "puzzle_identifiers")
    )
    labels = labels.where(labels != IGNORE_LABEL_ID, 0)
    in_vocabulary = [(t >= 0) & (t < config.vocab_size) for t in (inputs, labels)]
    known = identifiers < max(config.num_puzzle_identifiers, 1)
    if not all(bool(fits.all()) for fits in (*in_vocabulary, known)):
        raise UserError(f"{source}: carry/current_data holds tokens or puzzles that data do not")


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
    named = [_named(carry) for carry in state.carries]
    if len(named) == 1:
        return named[0]
    return {name: torch.cat([carry[name] for carry in named]) for name in named[0]}


def _named(carry: Carry) -> dict[str, Tensor]:
    tensors = {name: getattr(carry, name) for name in CARRY_FIELDS}
    return tensors | {f"current_data/{name}": t for name, t in carry.current_data.items()}


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
    if device.type == "mps":  # which has no float64
        mine = {name: t.float() for name, t in mine.items()}
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
    if not 0 <= position <= 624:
        raise ValueError(f"numpy's is at position {position}")
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, states["numpy_gauss"].item()))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
