"""Standard input, output and error, whatever became of them: closed, full, or read by nobody."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TextIO


def open_streams() -> None:
    """Let standard streams that were closed lead nowhere.

    Otherwise the next file that is opened would take the place of one and receive what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the first free number
        if getattr(sys, name) is None:
            mode: Literal["r", "w"] = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


class Lasting:
    """A text stream that outlives the place that it leads to: what cannot be written is dropped."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def lasting(name: Literal["stdout", "stderr"]) -> Iterator[None]:
    """Let a standard stream be `Lasting` while inside."""
    stream = getattr(sys, name)
    setattr(sys, name, Lasting(stream))
    try:
        yield
    finally:
        setattr(sys, name, stream)
        try:
            stream.flush()
        except (OSError, ValueError):
            lead_nowhere(stream)


def lead_nowhere(stream: TextIO) -> None:
    """Drop what a stream still holds, which Python would try to write again at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
