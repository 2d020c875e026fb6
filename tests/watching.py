"""Watching a model at work."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hrm.models.act import ACT, Carry

LONG = 300  # seconds in which a process does what it does in five, on a very busy machine


def on_steps(act: ACT, look: Callable[[Carry, dict[str, Tensor]], object]) -> None:
    """From now on, `look` sees what every ACT step of `act` returns."""
    step = act.step

    def watched(carry: Carry) -> tuple[Carry, dict[str, Tensor]]:
        result = step(carry)
        look(*result)
        return result

    act.step = watched  # type: ignore[method-assign]


def rows_of_steps(act: ACT) -> list[int]:
    """From now on, the rows of every ACT step that `act` takes, in order."""
    rows: list[int] = []
    on_steps(act, lambda carry, _: rows.append(len(carry.halted)))
    return rows


def wait_for(happened: Callable[[], bool], seconds: float = LONG) -> None:
    """Until something has happened, that long at most."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def started(*command: Any, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that speaks text and does not outlive this."""
    process = subprocess.Popen(*command, text=True, **more)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
