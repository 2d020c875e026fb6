"""Ctrl-C, SIGTERM, SIGHUP: finish the step, save, end. A second Ctrl-C ends at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hrm.signals import Interrupted, handled_by


class StopRequest:
    """Remembers the signal that asked to end; a SIGINT after that raises `Interrupted`."""

    def __init__(self) -> None:
        self.signal = 0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise Interrupted(number)
        self.signal = number

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Receive the signals while inside."""
        with handled_by(self._receive):
            yield self
