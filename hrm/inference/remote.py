"""A model in a process of its own, which computes while this one talks to clients.

Python runs one thread of a process at a time: beside an event loop a batcher's thread gets half of
the time that it needs. The process runs an ordinary `Batcher`; questions and cancellations go to it
through a pipe, and the steps of all puzzles come back at once after every ACT step.
"""

import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from weakref import WeakValueDictionary

from hrm.config import DeviceName, WeightsName
from hrm.errors import UserError, explained
from hrm.inference.batcher import (
    MAX_BATCH,
    MAX_WAITING,
    Batcher,
    Closed,
    Deliver,
    Question,
    QueueFull,
    Step,
    Ticket,
)
from hrm.inference.process import ModelProcess
from hrm.inference.solver import Solver, Traits

Asked = tuple[int, Sequence[Question] | None]  # number of a ticket; None: it is cancelled
Told = tuple[int, int, Step | Exception]  # numbers of a ticket and of one of its questions
Report = tuple[int, int, list[Told]]  # how many run, how many wait, and what is delivered

log = logging.getLogger(__name__)


class ModelFailed(Exception):
    """The model's process failed, or has ended; the text says how."""


class RemoteTicket(Ticket):
    """What was submitted together to a model in another process."""

    def __init__(
        self, deliver: Deliver, widths: dict[int, int], let_go: Callable[[], None]
    ) -> None:
        super().__init__(deliver)
        self.widths = widths  # places that each question may need that is still open
        self._let_go = let_go

    def cancel(self) -> None:
        super().cancel()
        self._let_go()


class RemoteBatcher:
    """A `Batcher` in another process. All methods may be called from any thread.

    Args:
        path, device, weights: as `Solver.from_checkpoint`, which runs in the process.
        max_batch, max_waiting: as `Batcher`.
        process: one that has been started before; it is this object's from now on.

    Raises:
        UserError: as `Solver.from_checkpoint`, or the process ended while it loaded the model.
        ModelFailed: the model cannot be loaded for another reason.
    """

    def __init__(
        self,
        path: Path,
        device: DeviceName = "auto",
        weights: WeightsName = "auto",
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        process: ModelProcess | None = None,
    ) -> None:
        self._process = process or ModelProcess()
        try:
            self.traits = self._load(path, device, weights, max_batch, max_waiting)
        except BaseException:
            self._process.close()
            raise
        self._places = max_batch + max_waiting  # that no open question may need
        self.running = self.waiting = 0  # attempts at puzzles that think, and that wait for a place
        self._open: dict[int, RemoteTicket] = {}
        self._numbers = count()
        self._closed = False
        self._lock = threading.Lock()
        self._asked: SimpleQueue[Asked | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=work, name=f"model {self._process.pid}", daemon=True)
            for work in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def _load(self, path: Path, *arguments: object) -> Traits:
        try:
            self._process.pipe.send((path, *arguments))
            answer = self._process.pipe.recv()
        except (EOFError, OSError):
            how = self._process.end()
            raise UserError(
                f"{path}: the process that was to load it ended by {how}; is there enough memory?"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def pid(self) -> int:
        """Of the model's process."""
        return self._process.pid

    @property
    def idle(self) -> bool:
        """Whether no puzzle thinks or waits."""
        return not self._open

    @property
    def closed(self) -> bool:
        """Whether no more questions are taken: `close` was called, or the process has ended."""
        return self._closed

    def submit(self, questions: Sequence[Question], deliver: Deliver) -> Ticket:
        """Take questions, all or none; as `Batcher.submit`.

        Where the process ends, every question that is open is told `ModelFailed`.
        """
        widths = {number: question.plan.width for number, question in enumerate(questions)}
        number = next(self._numbers)
        ticket = RemoteTicket(deliver, widths, partial(self._let_go, number))
        with self._lock:
            if self._closed:
                raise Closed
            needed = sum(widths.values())
            if needed > self._places:
                raise QueueFull
            self._places -= needed
            self._open[number] = ticket
            self._asked.put((number, questions))
        return ticket

    def close(self) -> None:
        """End the process at once; who still waits is told `Closed`."""
        self._end(Closed())
        self._process.end()
        for thread in self._threads:
            thread.join()
        self._process.close()

    def _let_go(self, number: int) -> None:
        with self._lock:
            if (ticket := self._open.pop(number, None)) is not None:
                self._places += sum(ticket.widths.values())
                self._asked.put((number, None))

    def _end(self, error: Exception) -> bool:
        """Take no more questions and tell the open ones why; returns whether any were taken."""
        with self._lock:
            was_open, self._closed = not self._closed, True
            left, self._open = self._open, {}
            self.running = self.waiting = 0
        self._asked.put(None)
        for ticket in left.values():
            for number in ticket.widths:
                ticket.deliver(number, error)
        return was_open

    def _send(self) -> None:
        try:
            while (asked := self._asked.get()) is not None:
                self._process.pipe.send(asked)
        except OSError:
            pass  # the process has ended, as the other thread sees

    def _receive(self) -> None:
        try:
            while True:
                self._take_in(*self._process.pipe.recv())
        except (EOFError, OSError):
            how = f"the process of the model ended by {self._process.end()}"
        if self._end(ModelFailed(how)):
            log.error(how)

    def _take_in(self, running: int, waiting: int, told: list[Told]) -> None:
        self.running, self.waiting = running, waiting
        for number, question, item in told:
            with self._lock:
                ticket = self._open.get(number)
                if ticket is None:
                    continue
                if isinstance(item, Exception) or item.last:
                    self._places += ticket.widths.pop(question)
                    if not ticket.widths:
                        del self._open[number]
            ticket.deliver(question, item)


def host(pipe: Connection) -> None:
    """Run a model for the process at the other end of a pipe, until that end is closed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # when to end is the other process's decision
    try:
        path, device, weights, max_batch, max_waiting = pipe.recv()
        try:
            solver = Solver.from_checkpoint(path, device, weights)
            pipe.send(solver.traits)
        except Exception as error:
            known = explained(error)  # memory may be full
            is_known = isinstance(known, UserError)
            pipe.send(UserError(str(known)) if is_known else ModelFailed(traceback.format_exc()))
        else:
            _serve(pipe, solver, max_batch, max_waiting)
        pipe.recv()
    except (EOFError, OSError):
        os._exit(0)  # at once, in the middle of a step


def _serve(pipe: Connection, solver: Solver, max_batch: int, max_waiting: int) -> None:
    """Take questions in this thread, and report from the batcher's."""
    told: list[Told] = []
    before = 0, 0

    def deliver(ticket: int, number: int, item: Step | Exception) -> None:
        if not isinstance(item, Step):
            item = ModelFailed("".join(traceback.format_exception(item)))
        told.append((ticket, number, item))

    def report() -> None:
        nonlocal before
        counts = batcher.running, batcher.waiting
        if not told and counts == before:
            return
        before = counts
        try:
            pipe.send((*counts, told))
        except OSError:
            os._exit(0)
        told.clear()

    batcher = Batcher(solver, max_batch, max_waiting, report)
    tickets: WeakValueDictionary[int, Ticket] = WeakValueDictionary()
    while True:
        number, questions = pipe.recv()
        if questions is not None:
            tickets[number] = batcher.submit(questions, partial(deliver, number))
        elif (ticket := tickets.get(number)) is not None:
            ticket.cancel()
