"""Losses and gradients that are not finite: found and counted on the device, explained at the end.

A step is sound when every part of the loss, every gradient and the new carry are finite on every
rank. Nothing here makes the host wait for the device; it reads the counters when metrics are due.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hrm.models.act import Carry
from hrm.models.losses import ACTLossHead
from hrm.ranks import Ranks

PUZZLE_ROWS = "puzzle_emb.weights (rows of the batch)"


@dataclass
class Stability:
    """How many steps in a row were unsound, and what was wrong in the first of them."""

    names: list[str]  # what can be non-finite: loss parts, gradients
    step: Tensor  # int64 scalar: the one that is judged next
    in_a_row: Tensor  # int64 scalar
    first_step: Tensor  # int64 scalar: of the present streak of unsound ones, 0 before any
    first_wrong: Tensor  # [names] bool

    @staticmethod
    def of(model: ACTLossHead) -> "Stability":
        names = [*model.loss_names, "carry", PUZZLE_ROWS]
        names += [name for name, _ in model.named_parameters()]
        device = next(model.parameters()).device
        return Stability(
            names=names,
            step=torch.zeros((), dtype=torch.int64, device=device),
            in_a_row=torch.zeros((), dtype=torch.int64, device=device),
            first_step=torch.zeros((), dtype=torch.int64, device=device),
            first_wrong=torch.zeros(len(names), dtype=torch.bool, device=device),
        )

    def judge(self, local: Sequence[Tensor], norms: Sequence[Tensor], ranks: Ranks) -> Tensor:
        """Take in one step, the number `step`.

        Args:
            local: scalars of this rank, for the names that are no parameter's.
            norms: norm of every parameter's gradient, summed over the ranks.

        Returns:
            Whether the step is sound, a bool scalar on the device, the same on all ranks.
        """
        here = ranks.any(~torch.stack([x.isfinite() for x in local]))
        wrong = torch.cat([here, ~torch.stack(list(norms)).isfinite()])
        sound = ~wrong.any()
        starts = ~sound & (self.in_a_row == 0)
        self.first_step.copy_(torch.where(starts, self.step, self.first_step))
        self.first_wrong.copy_(torch.where(starts, wrong, self.first_wrong))
        self.in_a_row.copy_(torch.where(sound, 0, self.in_a_row + 1))
        return sound

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {
            "in_a_row": self.in_a_row,
            "first_step": self.first_step,
            "first_wrong": self.first_wrong,
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave."""
        for name, held in self.tensors().items():
            held.copy_(tensors[name])

    def first(self) -> str:
        """The first step of the present streak of unsound ones, in words."""
        wrong = [name for name, w in zip(self.names, self.first_wrong.tolist(), strict=True) if w]
        losses = [name for name in wrong if name.endswith("_loss")]
        gradients = [name for name in wrong if name.count(".") > 0]
        said = f"step {int(self.first_step)} was the first: "
        said += f"not finite: {', '.join(losses)}" if losses else "all parts of the loss are finite"
        if gradients:
            said += f"; gradients not finite in {len(gradients)} tensors, from {gradients[-1]} down"
        return said


def sound_rows(carry: Carry) -> Tensor:
    """Which sequences have a finite state, bool [B]."""
    sums = [state.flatten(1).sum(1, dtype=torch.float32) for state in carry.states.values()]
    return torch.stack(sums).sum(0).isfinite()


def explain(
    stability: Stability, model: ACTLossHead, carry: Carry, batch: dict[str, Tensor]
) -> str:
    """What went wrong first, and the first module whose output is not finite on this batch."""
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), _watched(model) as found:
        model(carry=carry, batch=batch)
    where = "the forward pass on the last batch is finite"
    if found:
        where = f"on the last batch {found[0]} is the first module whose output is not finite"
    return f"{stability.first()}; {where}"


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """While inside, collects the modules whose output is not finite, in the order of calls."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            tensors = [t for t in outputs if isinstance(t, Tensor) and t.is_floating_point()]
            if not all(bool(t.isfinite().all()) for t in tensors):
                found.append(name)

        return hook

    handles = [m.register_forward_hook(look(n)) for n, m in model.named_modules() if n]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
