"""All of a run's state as named tensors and plain values, and back.

The names are those of `hrm.checkpoint.training`.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrm.checkpoint.training import Counters, Snapshot, TrainingRecord, best_key, best_value
from hrm.data.format import IGNORE_LABEL_ID
from hrm.errors import UserError, one_line
from hrm.models.act import Carry
from hrm.optim.groups import GroupOptimizer
from hrm.ranks import Ranks
from hrm.training.state import TrainState

ALIGNMENT = 64  # bytes
SMALL_TENSORS = 2**20  # bytes, for step counts, metrics and random generators


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


def expected_bytes(state: TrainState, ranks: Ranks, batch_size: int) -> int:
    """Size of this rank's snapshot, a little more than less.

    Args:
        batch_size: rows of all ranks.
    """
    tensors = list(_blank_carry(state, batch_size // ranks.size).values())
    if ranks.is_first:
        tensors += list(state.model.state_dict().values()) * (1 if state.ema is None else 2)
        tensors += _blank_optimizer_state(state).values()
    return sum(map(_padded_bytes, tensors)) + SMALL_TENSORS


def take(state: TrainState, ranks: Ranks, staging: Staging, more: Mapping[str, Any]) -> Snapshot:
    """Copy to host memory what this rank saves; all ranks call it.

    Args:
        more: values to record besides the state's own.
    """
    ranks.meet()
    tensors = {f"carry/{name}": t for name, t in _joined_carry(state).items()}
    sums = state.sums.totals() if state.since_log else {}
    tensors |= {f"metrics/{ranks.rank}/{name}": t for name, t in sums.items()}
    generators = _generators(_device(state))
    tensors |= {f"random/{ranks.rank}/{name}": t for name, t in generators.items()}
    if not ranks.is_first:
        return Snapshot({}, None, TrainingRecord(staging.copy(tensors), {}))

    tensors |= {f"weights/{name}": t for name, t in state.model.state_dict().items()}
    if state.ema is not None:
        tensors |= {f"ema/{name}": t for name, t in state.ema.state_dict().items()}
    for name, parameter, optimizer in _updated(state):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    tensors |= {f"stability/{name}": t for name, t in state.stability.tensors().items()}
    copies = staging.copy(tensors)

    values = {name: getattr(state, name) for name in Counters.model_fields}
    values[best_key(state.best_metric)] = state.best_value
    values["ema_updates"] = 0 if state.ema is None else state.ema.updates
    values["is_sound"] = _is_sound(state)
    values |= {"ranks": ranks.size, **more}
    rest = {n: t for n, t in copies.items() if not n.startswith(("weights/", "ema/"))}
    return Snapshot(
        weights=_under("weights/", copies),
        ema=None if state.ema is None else _under("ema/", copies),
        record=TrainingRecord(rest, values),
    )


def check(
    state: TrainState, snapshot: Snapshot, ranks: Ranks, batch_size: int, source: Path
) -> None:
    """Compare what this rank has read with a state of the run's model, before `restore` takes it.

    Args:
        batch_size: rows of all ranks.
        source: what to name in an error.

    Raises:
        UserError: a tensor is missing, or of another shape or dtype; a token is none.
    """
    tensors, saved_ranks = snapshot.record.tensors, snapshot.record.values["ranks"]
    _compare(state.model.state_dict(), snapshot.weights, source)
    if state.ema is not None:
        _compare(state.ema.state_dict(), snapshot.ema or {}, source)
    expected = _blank_optimizer_state(state)
    carry = {
        f"carry/{name}": t for name, t in _blank_carry(state, batch_size // ranks.size).items()
    }
    stability = {f"stability/{name}": t for name, t in state.stability.tensors().items()}
    _compare(expected | carry | stability, tensors, source)
    if ranks.rank < saved_ranks:
        generators = _generators(torch.device("cpu")).items()
        _compare({f"random/{ranks.rank}/{name}": t for name, t in generators}, tensors, source)
    for rank in _ranks_of_sums(saved_ranks, ranks):
        for name in _under("metrics/0/", tensors):
            _compare({f"metrics/{rank}/{name}": tensors[f"metrics/0/{name}"]}, tensors, source)
    for name, tensor in tensors.items():
        if name.startswith("metrics/") and (tensor.ndim > 0 or tensor.is_complex()):
            raise UserError(f"{source}: {name} is not a number")
    _check_tokens(state, tensors, source)


def restore(state: TrainState, snapshot: Snapshot, ranks: Ranks, micro_batch_size: int) -> None:
    """Put a snapshot that this rank has read into a state of the same model and batch size.

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
    for name, parameter, optimizer in _updated(state):
        blank = optimizer.blank_state(parameter)
        optimizer.state[parameter] = {
            key: tensors[f"optimizer/{key}/{name}"].to(like.device, copy=True)
            for key, like in blank.items()
        }
    for name in Counters.model_fields:
        setattr(state, name, values[name])
    state.best_value = best_value(values)

    carry = _under("carry/", tensors)
    state.carries = [
        _carry_of_rows(carry, slice(start, start + micro_batch_size), device)
        for start in range(0, len(carry["row"]), micro_batch_size)
    ]
    state.stability.load(_under("stability/", tensors))
    state.sums.load(_shared_sums(tensors, values["ranks"], ranks, device))
    if generators := _under(f"random/{ranks.rank}/", tensors):
        try:
            _restore_generators(generators, device)
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:
            raise UserError(f"random generators cannot be restored ({one_line(error)})") from None


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


def _updated(state: TrainState) -> Iterator[tuple[str, Tensor, GroupOptimizer]]:
    """Every parameter by name, with the optimizer that updates it."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    for optimizer in state.optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if id(parameter) in names:  # not a puzzle table, of which nothing is kept
                yield names[id(parameter)], parameter, optimizer


def _blank_optimizer_state(state: TrainState) -> dict[str, Tensor]:
    """Names, shapes and dtypes of what the optimizers keep."""
    return {
        f"optimizer/{key}/{name}": blank
        for name, parameter, optimizer in _updated(state)
        for key, blank in optimizer.blank_state(torch.empty_like(parameter, device="meta")).items()
    }


def _blank_carry(state: TrainState, batch_size: int) -> dict[str, Tensor]:
    """Shapes and dtypes of a carry of so many rows."""
    act = state.model.model
    return act.initial_carry(act.blank_batch(batch_size, "meta")).named()


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
    named = [carry.named() for carry in state.carries]
    if len(named) == 1:
        return named[0]
    return {name: torch.cat([carry[name] for carry in named]) for name in named[0]}


def _carry_of_rows(carry: Mapping[str, Tensor], rows: slice, device: torch.device) -> Carry:
    return Carry.of({name: t[rows].to(device, copy=True) for name, t in carry.items()})


def _shared_sums(
    tensors: Mapping[str, Tensor], saved_ranks: int, ranks: Ranks, device: torch.device
) -> dict[str, Tensor]:
    """Each rank's own sums; with another number of ranks, all of them on rank 0."""
    saved = [_under(f"metrics/{rank}/", tensors) for rank in _ranks_of_sums(saved_ranks, ranks)]
    mine = {
        name: torch.stack([sums[name] for sums in saved]).sum(0) if saved else torch.zeros_like(t)
        for name, t in _under("metrics/0/", tensors).items()
    }
    if device.type == "mps":  # which has no float64
        mine = {name: t.float() for name, t in mine.items()}
    return {name: t.to(device, copy=True) for name, t in mine.items()}


def _ranks_of_sums(saved_ranks: int, ranks: Ranks) -> list[int]:
    """Whose sums this rank goes on with."""
    if saved_ranks == ranks.size:
        return [ranks.rank]
    return list(range(saved_ranks)) if ranks.is_first else []


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
