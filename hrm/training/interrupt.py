"""Ctrl-C, SIGTERM, SIGHUP: finish the step, save, end. A second Ctrl-C ends at once."""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hrm.signals import ENDING, Interrupted, end_at_once, handled_by, watched_by

PATIENCE = 20  # seconds without a step after a signal; torchrun kills after 30


class StopRequest:
    """Remembers the signal that asked to end; a SIGINT after that raises `Interrupted`."""

    def __init__(self) -> None:
        self.signal = 0
        self._steps = 0  # counts what `got_on` reports
        self._last = time.monotonic()
        self._longest = 0.0  # seconds between two steps
        self._is_saving = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise Interrupted(number)
        self.signal = number

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Receive the signals while inside."""
        with handled_by(self._receive):
            yield self

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End the process where it stands still after a signal.

        Code that waits for a rank that is gone never returns, and so never lets Python receive the
        signal. A thread that the signal wakes sees whether steps follow: within `PATIENCE`, or
        thrice the time that the longest took.
        """
        self._last = time.monotonic()
        with watched_by(self._watch):
            yield

    def got_on(self) -> None:
        """A step was taken, in training or in an evaluation."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        self._steps += 1

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While inside nobody expects steps."""
        self._is_saving = True
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._steps += 1
            self._is_saving = False

    def _watch(self, reading: int) -> None:
        number, steps = 0, 0
        while True:
            patience = max(PATIENCE, 3 * self._longest) if number else None
            if select.select([reading], [], [], patience)[0]:
                received = os.read(reading, 1)
                if not received:
                    return
                number = received[0] if received[0] in ENDING else number
            elif steps == self._steps and not self._is_saving:
                end_at_once(number)
            steps = self._steps
