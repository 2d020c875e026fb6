"""Runs a stream of puzzles until each halts; under both evaluation and solver.

Puzzles run side by side in slots, the rows of a carry. With learned halting a slot whose puzzle has
halted takes the next one of the stream, so that a stream costs its mean number of ACT steps.

Shapes: B slots, T tokens per puzzle.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hrm.models.losses import ACTLossHead

Halting = Literal["max_steps", "learned"]
Batch = dict[str, Tensor]

# Slots are not halved below this: a step of fewer rows is hardly cheaper, and a compiled model
# would see more shapes.
FEWEST_SLOTS = 8


@dataclass(frozen=True)
class RolloutStep:
    """One ACT step of B slots. The first three are on the host, the rest on the model's device."""

    index: Tensor  # B, int64: which puzzle of the stream the slot holds
    running: Tensor  # B, bool: false where the slot is idle, and what it holds means nothing
    halting: Tensor  # B, bool: puzzles whose answer is this step's; only running ones
    steps: Tensor  # B, int32: ACT steps that the puzzle has taken, this one included
    data: Batch  # the puzzle's own rows of the batches, [B, …]
    outputs: dict[str, Tensor]  # as `HRMACTV1.forward` returns them

    def select(self, chosen: Tensor) -> "RolloutStep":
        """The step of some slots.

        Args:
            chosen: [B] bool, on the host.
        """
        slots = chosen.nonzero().flatten()
        rows = slots.to(self.steps.device)
        return RolloutStep(
            index=self.index[slots],
            running=self.running[slots],
            halting=self.halting[slots],
            steps=self.steps[rows],
            data={name: tensor[rows] for name, tensor in self.data.items()},
            outputs={name: tensor[rows] for name, tensor in self.outputs.items()},
        )


def rollout(
    model: ACTLossHead,
    batches: Iterable[Batch],
    halting: Halting = "max_steps",
    halt_probability: float = 0.0,
    max_steps: int | None = None,
) -> Iterator[RolloutStep]:
    """Run a stream of puzzles, one item per ACT step, until every puzzle has halted.

    There are as many slots as the first batch has rows. Whenever all slots are free and no puzzle
    waits, the next batch starts afresh with its own number of rows; with `max_steps` that is so
    for every batch. Free slots at the end of the stream stay idle, and half of the slots is given
    up when the other half can hold what still runs.

    The device is asked once per step which puzzles halt.

    Args:
        model: in evaluation mode.
        batches: on the model's device: `inputs` [B, T], `puzzle_identifiers` [B], and `labels`
            where there are some. A batch is read when there is a free slot for one of its puzzles;
            it may have any number of rows.
        halting: `max_steps` takes all steps, as the original does; `learned` halts a puzzle when
            the model's halting value says so (the rule of training, without exploration).
        halt_probability: with `learned`, a puzzle halts before the last step only where
            sigmoid(q_halt), the model's probability of being right, is at least this.
        max_steps: ACT steps after which a puzzle halts; None: the model's `halt_max_steps`. More
            than in training is allowed.
    """
    assert not model.training
    limit = max_steps or model.model.config.halt_max_steps
    waiting = _Waiting(batches)
    while waiting.pull():
        yield from _run(model, waiting, halting, halt_probability, limit)


def _run(
    model: ACTLossHead,
    waiting: "_Waiting",
    halting: Halting,
    halt_probability: float,
    max_steps: int,
) -> Iterator[RolloutStep]:
    """From a fresh carry for the waiting puzzles until no slot is busy and none waits."""
    act = model.model
    index, offer = waiting.take(len(waiting))
    carry = model.initial_carry(offer)
    running = torch.ones(len(index), dtype=torch.bool)
    while True:
        carry, outputs = act(carry, offer)
        done = carry.steps >= max_steps
        if halting == "learned":
            q_halt, q_continue = outputs["q_halt_logits"], outputs["q_continue_logits"]
            sure = torch.sigmoid(q_halt) >= halt_probability
            done = done | (act.wants_to_halt(q_halt, q_continue) & sure)
        carry = replace(carry, halted=done)
        ends = running & done.cpu()
        yield RolloutStep(index, running, ends, carry.steps, carry.current_data, outputs)

        running = running & ~ends
        if not running.any() and not waiting:
            return
        offer = carry.current_data
        while not running.all() and (waiting or waiting.pull()):
            free = (~running).nonzero().flatten()
            numbers, rows = waiting.take(len(free))
            free = free[: len(numbers)]
            index = index.index_copy(0, free, numbers)
            running = running.index_fill(0, free, True)
            slots = free.to(done.device)
            offer = {n: held.index_copy(0, slots, rows[n]) for n, held in offer.items()}
        if len(kept := _kept_slots(running)) < len(running):
            index, running = index[kept], running[kept]
            slots = kept.to(done.device)
            carry, offer = carry.select(slots), {n: held[slots] for n, held in offer.items()}


def _kept_slots(running: Tensor) -> Tensor:
    """All slots, or as few of them as halving leaves with room for the running ones, int64."""
    size, busy = len(running), int(running.sum())
    while busy <= size // 2 and size // 2 >= FEWEST_SLOTS:
        size //= 2
    return running.sort(descending=True, stable=True).indices[:size]


class _Waiting:
    """Puzzles of a stream that no slot has taken yet; at most one batch of them is held."""

    def __init__(self, batches: Iterable[Batch]):
        self._batches = iter(batches)
        self._held: Batch = {}
        self._index = torch.arange(0)  # which of the stream the held ones are
        self._pulled = 0

    def __len__(self) -> int:
        return len(self._index)

    def pull(self) -> bool:
        """Hold the next batch that is not empty, where none is held; False at the end."""
        assert not self
        for batch in self._batches:
            if rows := len(batch["inputs"]):
                self._held = batch
                self._index = torch.arange(rows) + self._pulled
                self._pulled += rows
                return True
        return False

    def take(self, limit: int) -> tuple[Tensor, Batch]:
        """The first `limit` of the held ones: which of the stream they are [n], and their rows."""
        index, rows = self._index[:limit], {n: t[:limit] for n, t in self._held.items()}
        self._index = self._index[limit:]
        self._held = {name: tensor[limit:] for name, tensor in self._held.items()}
        return index, rows
