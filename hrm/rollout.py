"""Runs puzzles until each halts; under both evaluation and solver."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hrm.models.hrm_act_v1 import Carry
from hrm.models.losses import ACTLossHead

Halting = Literal["max_steps", "learned"]


@dataclass(frozen=True)
class RolloutStep:
    """One ACT step of a batch of B puzzles."""

    carry: Carry
    outputs: dict[str, Tensor]  # as `HRMACTV1.forward` returns them
    halting: Tensor  # B, bool: puzzles whose answer is this step's
    running: Tensor  # B, bool: puzzles that had not halted before this step


def rollout(
    model: ACTLossHead, batch: dict[str, Tensor], halting: Halting = "max_steps"
) -> Iterator[RolloutStep]:
    """Run a batch from a fresh carry, one item per ACT step, until every puzzle has halted.

    Args:
        model: in evaluation mode.
        batch: `inputs` [B, T], `puzzle_identifiers` [B], and `labels` where there are some.
        halting: `max_steps` takes all steps, as the original does; `learned` halts a puzzle when
            the model's halting value says so (the rule of training, without exploration).
    """
    assert not model.training
    act = model.model
    carry = model.initial_carry(batch)
    running = torch.ones_like(carry.halted)
    while True:
        carry, outputs = act(carry, batch)
        done = carry.halted
        if halting == "learned":
            done = done | act.wants_to_halt(outputs["q_halt_logits"], outputs["q_continue_logits"])
        yield RolloutStep(carry, outputs, running & done, running)
        running = running & ~done
        if not running.any():
            return
