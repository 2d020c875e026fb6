"""What goes on inside a model while it thinks about one puzzle: its states, its attention.

Shapes: S ACT steps, T tokens per puzzle, N heads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hrm.models.act import Carry, States
from hrm.models.layers import Attention
from hrm.models.losses import ACTLossHead


@dataclass(frozen=True)
class StatePath:
    """How one of a model's states moves over the ACT steps."""

    name: str  # such as z_H
    places: np.ndarray  # S+1 2, float32: two principal components, of the start state first
    explained: tuple[float, float]  # share of the variance over the steps that each explains
    moved: np.ndarray  # S, float32: root mean square of what each step changed


@dataclass(frozen=True)
class Inside:
    """A look inside, up to the last ACT step."""

    paths: tuple[StatePath, ...]
    cell: int  # whose attention was asked for, from 0
    attention: dict[str, np.ndarray]  # by block: N T, float32, from that cell


@dataclass
class Recorder:
    """Keeps the states of one puzzle, step by step."""

    cell: int  # whose attention is wanted, from 0
    _states: list[States] = field(default_factory=list)
    _before: Carry | None = None  # before the last step

    def begin(self, before: Carry) -> None:
        """A step is about to be taken from here; one row."""
        if not self._states:
            self._states.append(_on_host(before.states))
        self._before = before

    def end(self, after: States) -> None:
        """It was taken; states of one row."""
        self._states.append(_on_host(after))

    def look(self, model: ACTLossHead) -> Inside:
        """What was recorded; takes the last step once more, to see its attention."""
        assert self._before is not None
        paths = tuple(
            path_of(name, torch.stack([states[name][0] for states in self._states]).numpy())
            for name in sorted(self._states[0])
        )
        with attention_of(model) as seen:
            model.model.step(self._before)
        tokens = self._before.current_data["inputs"].shape[1]
        rows = {
            name: shares[0, :, self.cell - tokens, -tokens:].nan_to_num().cpu().numpy()
            for name, shares in seen.items()
        }
        return Inside(paths, self.cell, rows)


@torch.inference_mode()
def look_inside(model: ACTLossHead, puzzle: dict[str, Tensor], steps: int, cell: int = 0) -> Inside:
    """What goes on while the model takes all of so many ACT steps.

    Args:
        puzzle: `inputs` [1, T] int32 and `puzzle_identifiers` [1] int32, on the model's device.
        steps: at least 1.
        cell: whose attention is wanted, from 0.
    """
    recorder, act = Recorder(cell), model.model
    carry = act.take_new_data(act.initial_carry(puzzle), puzzle)
    for _ in range(steps):
        recorder.begin(carry)
        carry, _ = act.step(carry)
        recorder.end(carry.states)
    return recorder.look(model)


def path_of(name: str, states: np.ndarray) -> StatePath:
    """The path of a state, [S+1, …] float32, by an eigendecomposition of its Gram matrix."""
    finite = np.nan_to_num(states, posinf=0, neginf=0)  # a model may have diverged
    flat = finite.reshape(len(states), -1).astype(np.float64)
    moved = np.sqrt(np.square(np.diff(flat, axis=0)).mean(1))
    centred = flat - flat.mean(0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values = values.clip(0)
    places = (vectors * np.sqrt(values))[:, ::-1][:, :2]
    signs = np.where(places[-1] < places[0], -1.0, 1.0)  # both components grow over the steps
    first, second = (values[::-1][:2] / max(float(values.sum()), 1e-30)).tolist()
    scaled = (places * signs / np.sqrt(flat.shape[1])).astype(np.float32)
    return StatePath(name, scaled, (first, second), moved.astype(np.float32))


@contextmanager
def attention_of(model: ACTLossHead) -> Iterator[dict[str, Tensor]]:
    """Notes how much positions attend to one another, of each block's last call: [B, N, S, S].

    Empty for models without attention. Nothing else may run the model meanwhile.
    """
    seen: dict[str, Tensor] = {}

    def note(name: str, attention: Attention) -> "torch.utils.hooks.RemovableHandle":
        def look(_: torch.nn.Module, arguments: tuple[object, ...]) -> None:
            seen[name] = attention.shares(*arguments)  # type: ignore[arg-type]

        return attention.register_forward_pre_hook(look)

    modules = model.model.inner.named_modules()
    handles = [
        note(name.removesuffix(".self_attn"), module)
        for name, module in modules
        if isinstance(module, Attention)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _on_host(states: States) -> States:
    return {name: state.float().cpu() for name, state in states.items()}
