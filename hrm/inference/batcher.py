"""Dynamic batching: puzzles that come at any time think side by side.

One thread runs ACT steps over all puzzles of a model. A puzzle joins at the next step and leaves as
soon as it has halted or is cancelled, so that nobody waits for a batch to fill or to end. Where its
answer is not valid and another attempt is left, it waits for a place again, behind the others.

Shapes: T tokens per puzzle.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import torch
from torch import Tensor

from hrm.inference.attempts import Attempt
from hrm.inference.solver import Solver
from hrm.rollout import Halting, Slots

MAX_BATCH, MAX_WAITING = 64, 256  # puzzles; one request may bring 256


class QueueFull(Exception):
    """So many puzzles wait already that no more are taken."""


class Closed(Exception):
    """The batcher is closed."""


@dataclass(frozen=True)
class Step:
    """What one ACT step answered for one puzzle; cells and tokens are the puzzle's own."""

    attempt: int  # from 1
    number: int  # of the attempt's steps, from 1
    tokens: np.ndarray  # T, int32
    confidence: np.ndarray  # T, float32: probability of each cell's token
    halt_probability: float
    valid: bool | None  # by the rules of the task; None where they are not known
    halted: bool  # the last step of the attempt
    last: bool  # the last step of the puzzle: valid, or no attempt is left


@dataclass(frozen=True)
class Question:
    """A puzzle, and how long to think about it."""

    inputs: np.ndarray  # T, int32
    identifier: int
    steps: int  # at most
    halting: Halting = "learned"
    every_step: bool = False  # report every step, else only the last of each attempt
    attempts: Sequence[Attempt] = (Attempt(),)  # one after the other until an answer is valid


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
    tried: int = 0  # attempts that have ended

    @property
    def attempt(self) -> Attempt:
        return self.question.attempts[self.tried]

    @property
    def has_more(self) -> bool:
        """Whether another attempt is left after this one."""
        return self.tried + 1 < len(self.question.attempts)


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
        self._running: dict[int, _Row] = {}
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

    @property
    def idle(self) -> bool:
        """Whether no puzzle thinks or waits."""
        with self._changed:
            return not (self._running or self._waiting)

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
            held = [*self._running.values(), *self._waiting]
            staying = sum(not row.ticket.cancelled for row in held)
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
        slots = Slots(self.solver.model, self.solver.halt_probability)
        numbers = count()  # of the puzzles that have run
        while True:
            with self._changed:
                while not (self._closed or self._waiting or self._running):
                    self._changed.wait()
                gone = [n for n, row in self._running.items() if row.ticket.cancelled]
                waiting = [row for row in self._waiting if not row.ticket.cancelled]
                free = self._max_batch - len(self._running) + len(gone)
                joining = {next(numbers): row for row in waiting[:free]}
                self._waiting = waiting[free:]
                kept = {n: row for n, row in self._running.items() if n not in gone}
                self._running = kept | joining
                if self._closed:
                    left = [*self._running.values(), *self._waiting]
                    self._running, self._waiting = {}, []
                    break
            try:
                self._step(slots, gone, joining)
            except Exception as error:
                failed, self._running = list(self._running.values()), {}
                slots.clear()
                _report_failure(failed, error)
        _report_failure(left, Closed())

    @torch.inference_mode()
    def _step(self, slots: Slots, gone: list[int], joining: dict[int, _Row]) -> None:
        """One ACT step of all running puzzles.

        Args:
            gone: numbers of those that were given up.
            joining: those that begin with this step, by number.
        """
        slots.drop(gone)
        slots.compact()
        alike: dict[tuple[int, Halting, int | None], list[int]] = {}
        for number, row in joining.items():
            asked = row.question
            limits = (asked.steps, asked.halting, row.attempt.start_seed)
            alike.setdefault(limits, []).append(number)
        for limits, those in alike.items():
            slots.admit(torch.tensor(those), self._batch([joining[n] for n in those]), *limits)
        if not self._running:
            return
        step = slots.step()
        slots.compact()
        outputs = step.outputs
        confidence, tokens = outputs["logits"].float().softmax(-1).max(-1)
        sure = outputs["q_halt_logits"].sigmoid()
        # Probabilities of a model that has diverged are NaN: it is sure of nothing then.
        reported = (tokens.int(), confidence.nan_to_num(), step.steps, sure.nan_to_num())
        columns = [values.cpu().numpy() for values in reported]
        ended = set(step.index[step.halting].tolist())
        events = []
        for place, number in enumerate(step.index.tolist()):
            row = self._running[number]
            if number in ended or row.question.every_step:
                events.append((row, number in ended, [values[place] for values in columns]))
        taken = self._judge(events)
        again = [
            replace(row, tried=row.tried + 1) for row, one in taken if one.halted and not one.last
        ]
        with self._changed:
            self._running = {n: row for n, row in self._running.items() if n not in ended}
            self._waiting += again
        for row, one in taken:
            row.ticket.deliver(row.number, one)

    def _judge(self, events: list[tuple[_Row, bool, list[np.ndarray]]]) -> list[tuple[_Row, Step]]:
        """What is delivered: of each puzzle whether it halted, and what the model reported."""
        if not events:
            return []
        answers = np.stack([row.attempt.undo(values[0]) for row, _, values in events])
        inputs = np.stack([row.question.inputs for row, _, _ in events])
        judged = zip(events, answers, self.solver.task.are_valid(answers, inputs), strict=True)
        return [
            (
                row,
                Step(
                    attempt=row.tried + 1,
                    number=int(number),
                    tokens=answer,
                    confidence=row.attempt.undo_cells(confidence),
                    halt_probability=float(probability),
                    valid=valid,
                    halted=halted,
                    last=halted and (bool(valid) or not row.has_more),
                ),
            )
            for (row, halted, (_, confidence, number, probability)), answer, valid in judged
        ]

    def _batch(self, rows: list[_Row]) -> dict[str, Tensor]:
        inputs = torch.from_numpy(
            np.stack([row.attempt.apply(row.question.inputs) for row in rows])
        )
        identifiers = torch.tensor([row.question.identifier for row in rows], dtype=torch.int32)
        named = {"inputs": inputs, "puzzle_identifiers": identifiers}
        return {name: tensor.to(self.solver.device) for name, tensor in named.items()}


def _report_failure(rows: Sequence[_Row], error: Exception) -> None:
    for row in rows:
        row.ticket.deliver(row.number, error)
