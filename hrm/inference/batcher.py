"""Dynamic batching: puzzles that come at any time think side by side.

One thread runs ACT steps over all puzzles of a model. A puzzle joins at the next step and leaves as
soon as it has halted or is cancelled, so that nobody waits for a batch to fill or to end.

Shapes: T tokens per puzzle.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from hrm.inference.solver import Solver
from hrm.models.hrm_act_v1 import Carry
from hrm.rollout import Halting

MAX_BATCH, MAX_WAITING = 64, 256  # puzzles; one request may bring 256


class QueueFull(Exception):
    """So many puzzles wait already that no more are taken."""


class Closed(Exception):
    """The batcher is closed."""


@dataclass(frozen=True)
class Step:
    """What one ACT step answered for one puzzle."""

    number: int  # from 1
    tokens: np.ndarray  # T, int32
    confidence: np.ndarray  # T, float32: probability of each cell's token
    halt_probability: float
    halted: bool  # the last step of this puzzle


@dataclass(frozen=True)
class Question:
    """A puzzle, and how long to think about it."""

    inputs: np.ndarray  # T, int32
    identifier: int
    steps: int  # at most
    halting: Halting = "learned"
    every_step: bool = False  # tell every step, else only the last


Deliver = Callable[[int, Step | Exception], None]


@dataclass
class Ticket:
    """What was submitted together."""

    deliver: Deliver
    cancelled: bool = False

    def cancel(self) -> None:
        """Free the places of its puzzles; nothing is delivered any more after the next step."""
        self.cancelled = True


@dataclass(frozen=True)
class _Row:
    number: int  # of the ticket's questions
    question: Question
    ticket: Ticket = field(repr=False)


class Batcher:
    """Runs a solver's model for many at once. All methods may be called from any thread.

    Args:
        max_batch: puzzles that think side by side; 1 means one after the other.
        max_waiting: puzzles that may wait for a place beside them.
    """

    def __init__(
        self, solver: Solver, max_batch: int = MAX_BATCH, max_waiting: int = MAX_WAITING
    ) -> None:
        self.solver = solver
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._waiting: list[_Row] = []
        self._running: list[_Row] = []
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Puzzles that think now."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Puzzles that wait for a place."""
        return len(self._waiting)

    def submit(self, questions: Sequence[Question], deliver: Deliver) -> Ticket:
        """Take questions, all or none.

        Args:
            deliver: called from the batcher's thread with the number of a question and its next
                step, or what went wrong, which is the last then. It must return at once.

        Raises:
            QueueFull: there is no room for them.
            Closed: `close` was called.
        """
        ticket = Ticket(deliver)
        with self._changed:
            if self._closed:
                raise Closed
            staying = sum(not row.ticket.cancelled for row in [*self._running, *self._waiting])
            if staying + len(questions) > self._max_batch + self._max_waiting:
                raise QueueFull
            self._waiting += [_Row(n, question, ticket) for n, question in enumerate(questions)]
            self._changed.notify()
        return ticket

    def close(self) -> None:
        """End the thread after its present step; who still waits is told `Closed`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        carry: Carry | None = None
        while True:
            with self._changed:
                while not (self._closed or self._waiting or self._running):
                    self._changed.wait()
                stays = [n for n, row in enumerate(self._running) if not row.ticket.cancelled]
                kept = [self._running[n] for n in stays]
                waiting = [row for row in self._waiting if not row.ticket.cancelled]
                free = self._max_batch - len(kept)
                joining, self._waiting = waiting[:free], waiting[free:]
                self._running = kept + joining
                if self._closed:
                    left = self._running + self._waiting
                    self._running, self._waiting = [], []
                    break
            if not self._running:
                carry = None
                continue
            try:
                carry = self._step(carry, stays, joining)
            except Exception as error:
                failed, self._running, carry = self._running, [], None
                _tell(failed, error)
        _tell(left, Closed())

    @torch.inference_mode()
    def _step(self, carry: Carry | None, stays: list[int], joining: list[_Row]) -> Carry | None:
        """One ACT step of all running puzzles.

        Args:
            carry: of those that ran before; `stays` are its rows that go on.

        Returns:
            The carry of those that go on, None where there are none.
        """
        act, device = self.solver.model.model, self.solver.device
        if carry is not None and len(stays) < len(carry.steps):
            carry = carry.select(torch.tensor(stays, device=device)) if stays else None
        if joining:
            batch = self._batch(joining)
            fresh = replace(act.initial_carry(batch), current_data=batch)
            carry = fresh if carry is None else carry.join(fresh)
        assert carry is not None
        carry, outputs = act(carry, carry.current_data)
        confidence, tokens = outputs["logits"].float().softmax(-1).max(-1)
        halts, sure = self._halting(outputs)
        # Probabilities of a model that has diverged are NaN: it is sure of nothing then.
        told = (tokens.int(), confidence.nan_to_num(), carry.steps, halts, sure.nan_to_num())
        columns = [values.cpu().numpy() for values in told]
        goes_on: list[int] = []
        events: list[tuple[_Row, Step]] = []
        for place, row in enumerate(self._running):
            answer, confident, steps, wants, probability = (values[place] for values in columns)
            asked = row.question
            learned = asked.halting == "learned" and bool(wants)
            halted = learned or int(steps) >= asked.steps
            if halted or asked.every_step:
                step = Step(int(steps), answer, confident, float(probability), halted)
                events.append((row, step))
            if not halted:
                goes_on.append(place)
        self._running = [self._running[place] for place in goes_on]
        for row, step in events:
            row.ticket.deliver(row.number, step)
        if not goes_on:
            return None
        carry = replace(carry, halted=torch.zeros_like(carry.halted))
        return carry.select(torch.tensor(goes_on, device=device))

    def _batch(self, rows: list[_Row]) -> dict[str, Tensor]:
        inputs = torch.from_numpy(np.stack([row.question.inputs for row in rows]))
        identifiers = torch.tensor([row.question.identifier for row in rows], dtype=torch.int32)
        names = {"inputs": inputs, "puzzle_identifiers": identifiers}
        return {name: tensor.to(self.solver.device) for name, tensor in names.items()}

    def _halting(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Whether learned halting stops here, and sigmoid(q_halt)."""
        q_halt, q_continue = outputs["q_halt_logits"], outputs["q_continue_logits"]
        sure = q_halt.sigmoid()
        wants = self.solver.model.model.wants_to_halt(q_halt, q_continue)
        return wants & (sure >= self.solver.halt_probability), sure


def _tell(rows: Sequence[_Row], error: Exception) -> None:
    for row in rows:
        row.ticket.deliver(row.number, error)
