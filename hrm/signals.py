"""Signals that ask a program to end: Ctrl-C, SIGTERM and, unless `nohup` has it ignored, SIGHUP."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

Handler = Callable[[int, FrameType | None], None]


PR_SET_PDEATHSIG = 1  # of Linux' prctl

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # those that ask a program to end


class Interrupted(KeyboardInterrupt):
    """The signal `number` asked the program to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class _Held:
    """Whether signals wait, and the one that does."""

    on = False
    number: int | None = None


@contextmanager
def holding_signals() -> Iterator[None]:
    """Let the handlers of `handled_by` wait while inside, for code that no exception may leave.

    Such is what numba does while it compiles, and with arguments that are Python objects: where
    one is raised, it crashes.
    """
    _Held.on = True
    try:
        yield
    finally:
        _Held.on, number, _Held.number = False, _Held.number, None
        if number is not None:
            signal.raise_signal(number)


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Let `handler` receive the signals while inside. Only the main thread can; others may not.

    An `Interrupted` that it raises where Python ignores exceptions, as in `__del__` and in
    callbacks of weak references, is not lost: the signal is sent once more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    report_ignored = sys.unraisablehook

    def handle(number: int, frame: FrameType | None) -> None:
        if _Held.on:
            _Held.number = number
        else:
            handler(number, frame)

    def send_again(ignored: "sys.UnraisableHookArgs") -> None:
        if isinstance(ignored.exc_value, Interrupted):
            later = threading.Timer(0.01, os.kill, (os.getpid(), ignored.exc_value.number))
            later.daemon = True
            later.start()
        else:
            report_ignored(ignored)

    sys.unraisablehook = send_again
    numbers = list(ENDING)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    wakeup = signal.set_wakeup_fd(-1)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(wakeup)
        sys.unraisablehook = report_ignored


@contextmanager
def watched_by(watch: Callable[[int], None]) -> Iterator[None]:
    """Let a thread hear of signals while inside, even while C code keeps Python from them.

    Nothing happens where the caller is not the main thread, which alone is sent signals.

    Args:
        watch: runs in the thread; it is given a descriptor from which it reads the signals'
            numbers, a byte each, and returns at the end of that file.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=watch, args=(reading,), daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writing)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join()
        os.close(reading)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End at a signal, while nothing is open that would have to be closed.

    A thread does it, since Python's own handlers wait until C code returns, such as the code that
    waits for other ranks.
    """

    def watch(reading: int) -> None:
        while numbers := os.read(reading, 1):
            end_at_once(numbers[0])

    with handled_by(end_at_once), watched_by(watch):
        yield


def end_with_torchrun() -> None:
    """Let Linux send SIGTERM when torchrun, which started this process, is killed.

    Otherwise its workers would train on: nothing would start them again, and for as long no other
    process could resume the run.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_stdin() -> None:
    """Send this process SIGTERM at the end of its standard input.

    Where that is a pipe, its end comes however the process at its other side ends.
    """

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise `Interrupted`, so that what is open is closed and what is half-written removed."""
    raise Interrupted(number)


def end_at_once(number: int, frame: FrameType | None = None) -> NoReturn:
    """End here and now."""
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)
