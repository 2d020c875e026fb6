"""Dynamic batching: puzzles that come at any time think side by side.

One thread runs ACT steps over all puzzles of a model. A puzzle joins at the next step and leaves as
soon as it has halted or is cancelled, so that nobody waits for a batch to fill or to end. Where
other attempts are to be made, the next wave of them waits for places again, behind the others;
guesses (`hrm/guesses.py`) are waves like the rest.

Shapes: T tokens per puzzle.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import torch
from torch import Tensor

from hrm.attempts import Attempt, Place, Plan, can_count, noise_of
from hrm.config import Halting
from hrm.guesses import Guess, Guesses, guessed_cells
from hrm.inference.inside import Inside, Recorder
from hrm.inference.solver import Solver
from hrm.rollout import Slots
from hrm.tasks import Task

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
    last: bool  # the last one that is told of the puzzle
    inside: Inside | None = None  # where it was asked for, in the last step of the first attempt
    guessed: tuple[int, ...] = ()  # cells into which guesses were written in the attempt

    @property
    def steps(self) -> int:
        """ACT steps of the attempt until now."""
        return self.number


@dataclass(frozen=True)
class Question:
    """A puzzle, and how long to think about it."""

    inputs: np.ndarray  # T, int32
    identifier: int
    steps: int  # at most
    halting: Halting = "learned"
    every_step: bool = False  # report every step, else only the last of each attempt
    plan: Plan = Plan()
    look_at: int | None = None  # a cell: its first attempt's last step tells what was inside


Deliver = Callable[[int, Step | Exception], None]


@dataclass
class Ticket:
    """What was submitted together."""

    deliver: Deliver
    cancelled: bool = False

    def cancel(self) -> None:
        """Free the places of its puzzles; nothing is delivered any more after the next step."""
        self.cancelled = True


@dataclass(eq=False)
class _Puzzle:
    """A question, and how far its attempts have come."""

    number: int  # of the ticket's questions
    question: Question
    ticket: Ticket = field(repr=False)
    waves: int = 0  # that were begun
    attempts: int = 0  # likewise
    open: int = 0  # attempts that have neither ended nor been given up
    best: Place | None = None  # of the best valid answer where that ends the search
    held: Step | None = None  # that answer; it is told when no other can be better any more
    guesses: Guesses | None = None  # from the end of its first attempt on, where it may guess

    def begin_wave(self) -> "list[_Row]":
        """The attempts of the next wave; none where there is no other."""
        plan = self.question.plan
        waves = plan.waves[self.waves : self.waves + 1]
        rows = [_Row(self, self.attempts + n, a) for n, a in enumerate(waves[0])] if waves else []
        if not waves and self.guesses is not None:
            taken = self.guesses.take()
            attempt, before = Attempt(is_guess=True), len(plan.attempts) - 1
            rows = [_Row(self, before + number, attempt, guess=guess) for number, guess in taken]
        if (cell := self.question.look_at) is not None and rows and self.attempts == 0:
            rows[0] = replace(rows[0], recorder=Recorder(cell))
        self.waves, self.attempts = self.waves + 1, self.attempts + len(rows)
        self.open = len(rows)
        return rows

    def end(self, step: Step) -> list[Step]:
        """Take in the last step of an attempt; returns those that can be told."""
        self.open -= 1
        place = step.number, step.attempt
        if not self.question.plan.is_settled([step]):
            return [step]
        if self.best is not None and place > self.best:
            return [step]
        told = [] if self.held is None else [self.held]
        self.best, self.held = place, step
        return told

    def learn(self, task: Task, row: "_Row", probabilities: np.ndarray) -> None:
        """What can be guessed after an answer that is not valid, [T, V]."""
        if row.guess is not None and self.guesses is not None:
            self.guesses.branch(row.guess, probabilities)
        elif row.number == 0:
            asked = self.question
            self.guesses = Guesses(task, asked.inputs, probabilities, asked.plan.guesses)


@dataclass(frozen=True, eq=False)
class _Row:
    """An attempt at a puzzle."""

    puzzle: _Puzzle
    number: int  # of the attempt, from 0
    attempt: Attempt
    recorder: Recorder | None = None
    guess: Guess | None = None

    @property
    def asked(self) -> np.ndarray:
        """What the model is asked, before the attempt's symmetry, [T] int32."""
        return self.puzzle.question.inputs if self.guess is None else self.guess.tokens

    @property
    def is_cancelled(self) -> bool:
        return self.puzzle.ticket.cancelled

    def is_lost(self, taken: int) -> bool:
        """Whether it cannot count any more after so many steps; guesses are few steps, and end."""
        return self.guess is None and not can_count(self.puzzle.best, self.number + 1, taken)


class Batcher:
    """Runs a solver's model for many at once. All methods may be called from any thread.

    Args:
        max_batch: attempts that think side by side; 1 means one after the other.
        max_waiting: attempts that may wait for a place beside them.
        report: called from the batcher's thread before each step, and when what became of it has
            been delivered.
    """

    def __init__(
        self,
        solver: Solver,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        report: Callable[[], None] = lambda: None,
    ) -> None:
        self.solver, self.traits = solver, solver.traits
        self._report = report
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._waiting: list[_Row] = []
        self._running: dict[int, _Row] = {}
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Attempts at puzzles that think now."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Attempts at puzzles that wait for a place."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether no puzzle thinks or waits."""
        with self._changed:
            return not (self._running or self._waiting)

    @property
    def closed(self) -> bool:
        """Whether no more questions are taken."""
        return self._closed

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
            held = {row.puzzle for row in (*self._running.values(), *self._waiting)}
            staying = [puzzle.question for puzzle in held if not puzzle.ticket.cancelled]
            places = sum(question.plan.width for question in (*staying, *questions))
            if places > self._max_batch + self._max_waiting:
                raise QueueFull
            for number, question in enumerate(questions):
                self._waiting += _Puzzle(number, question, ticket).begin_wave()
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
                gone = [n for n, row in self._running.items() if row.is_cancelled]
                waiting = [row for row in self._waiting if not row.is_cancelled]
                free = self._max_batch - len(self._running) + len(gone)
                joining = {next(numbers): row for row in waiting[:free]}
                self._waiting = waiting[free:]
                kept = {n: row for n, row in self._running.items() if n not in gone}
                self._running = kept | joining
                if self._closed:
                    left = [*self._running.values(), *self._waiting]
                    self._running, self._waiting = {}, []
                    break
            self._report()
            try:
                self._step(slots, gone, joining)
            except Exception as error:
                failed = {row.puzzle for row in self._running.values()}
                with self._changed:
                    self._running = {}
                    self._waiting = [row for row in self._waiting if row.puzzle not in failed]
                slots.clear()
                _tell_failure(failed, error)
            self._report()
        _tell_failure({row.puzzle for row in left}, Closed())

    @torch.inference_mode()
    def _step(self, slots: Slots, gone: list[int], joining: dict[int, _Row]) -> None:
        """One ACT step of all that run.

        Args:
            gone: numbers of those that were given up.
            joining: those that begin with this step, by number.
        """
        slots.drop(gone)
        slots.compact()
        alike: dict[tuple[int, Halting, int | None], list[int]] = {}
        for number, row in joining.items():
            asked = row.puzzle.question
            most = row.attempt.steps_at_most(asked.steps, self.traits.max_steps)
            limits = (most, asked.halting, row.attempt.start_seed)
            alike.setdefault(limits, []).append(number)
        for limits, those in alike.items():
            rows = [joining[number] for number in those]
            positions = torch.tensor([row.puzzle.number for row in rows])
            noise = noise_of([row.attempt for row in rows], positions)
            slots.admit(torch.tensor(those), self._batch(rows), *limits, noise)
        if not self._running:
            return
        recorded = {n: row.recorder for n, row in self._running.items() if row.recorder}
        for number, recorder in recorded.items():
            recorder.begin(slots.before(number))
        step = slots.step()
        for number, recorder in recorded.items():
            recorder.end(slots.states(number))
        outputs = step.outputs
        probabilities = outputs["logits"].float().softmax(-1)
        confidence, tokens = probabilities.max(-1)
        sure = outputs["q_halt_logits"].sigmoid()
        # Probabilities of a model that has diverged are NaN: it is sure of nothing then.
        reported = (tokens.int(), confidence.nan_to_num(), step.steps, sure.nan_to_num())
        columns = [values.cpu().numpy() for values in reported]
        ended = set(step.index[step.halting].tolist())
        events, taken = [], {}
        guessing: dict[_Row, int] = {}  # places of attempts that have ended, where guesses follow
        for place, number in enumerate(step.index.tolist()):
            row = self._running[number]
            taken[number] = int(columns[2][place])
            if number in ended and row.puzzle.question.plan.guesses:
                guessing[row] = place
            if number in ended or row.puzzle.question.every_step:
                events.append((row, number in ended, [values[place] for values in columns]))
        judged = [
            (row, replace(one, inside=row.recorder.look(self.solver.model)))
            if one.halted and row.recorder
            else (row, one)
            for row, one in self._judge(sorted(events, key=lambda event: event[0].number))
        ]
        for row, one in judged if guessing else ():
            if row in guessing and not one.valid:
                known = probabilities[guessing[row]].nan_to_num().cpu().numpy()
                row.puzzle.learn(self.solver.task, row, known)
        with self._changed:
            self._running = {n: row for n, row in self._running.items() if n not in ended}
            told = self._settle(judged, slots, taken)
        for puzzle, one in told:
            puzzle.ticket.deliver(puzzle.number, one)
        slots.compact()  # after the answers, which a failure would keep back

    def _judge(self, events: list[tuple[_Row, bool, list[np.ndarray]]]) -> list[tuple[_Row, Step]]:
        """Steps of attempts: of each whether it halted, and what the model reported."""
        if not events:
            return []
        answers = np.stack([row.attempt.undo(values[0]) for row, _, values in events])
        inputs = np.stack([row.puzzle.question.inputs for row, _, _ in events])
        answers = self.solver.task.tidied(answers, inputs)
        valid = self.solver.task.are_valid(answers, inputs)
        judged = zip(events, answers, valid, inputs, strict=True)
        return [
            (
                row,
                Step(
                    attempt=row.number + 1,
                    number=int(number),
                    tokens=answer,
                    confidence=row.attempt.undo_cells(confidence),
                    halt_probability=float(probability),
                    valid=valid,
                    halted=halted,
                    last=False,
                    guessed=guessed_cells(asked, row.asked) if row.guess else (),
                ),
            )
            for (row, halted, (_, confidence, number, probability)), answer, valid, asked in judged
        ]

    def _settle(
        self, judged: list[tuple[_Row, Step]], slots: Slots, taken: dict[int, int]
    ) -> list[tuple[_Puzzle, Step]]:
        """Give up what cannot count any more, begin next waves; returns the steps to be told.

        Args:
            taken: steps that each number has taken.
        """
        told = [(row.puzzle, step) for row, step in judged if not step.halted]
        newest: dict[_Puzzle, int] = {}  # place in `told` of the last attempt that has ended
        for row, step in judged:
            if step.halted:
                newest[row.puzzle] = len(told)
                told += [(row.puzzle, one) for one in row.puzzle.end(step)]
        lost = [number for number, row in self._running.items() if row.is_lost(taken[number])]
        slots.drop(lost)
        given_up = [self._running.pop(number) for number in lost]
        given_up += [row for row in self._waiting if row.is_lost(0)]
        self._waiting = [row for row in self._waiting if not row.is_lost(0)]
        for row in given_up:
            row.puzzle.open -= 1
        for puzzle in dict.fromkeys([*newest, *(row.puzzle for row in given_up)]):
            if puzzle.open:
                continue
            if puzzle.held is not None:
                told.append((puzzle, replace(puzzle.held, last=True)))
            elif again := puzzle.begin_wave():
                self._waiting += again
            else:
                told[newest[puzzle]] = puzzle, replace(told[newest[puzzle]][1], last=True)
        return told

    def _batch(self, rows: list[_Row]) -> dict[str, Tensor]:
        inputs = torch.from_numpy(np.stack([row.attempt.apply(row.asked) for row in rows]))
        identifiers = torch.tensor(
            [row.puzzle.question.identifier for row in rows], dtype=torch.int32
        )
        named = {"inputs": inputs, "puzzle_identifiers": identifiers}
        return {name: tensor.to(self.solver.device) for name, tensor in named.items()}


def _tell_failure(puzzles: Iterable[_Puzzle], error: Exception) -> None:
    for puzzle in puzzles:
        puzzle.ticket.deliver(puzzle.number, error)
