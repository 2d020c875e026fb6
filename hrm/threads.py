"""Fewer threads where another program has a core that they count on.

The threads of an operation wait for the slowest of them, and on a core that is shared that one has
to wait for its turn: two threads beside one busy program have been ten to twenty times slower than
one thread.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from hrm import machine
from hrm.progress import say

FEW_NUMBERS = 2**15  # in the states of three 9x9 Sudokus
SLOW = 3.0  # times as long as the fastest
LASTING = 10.0  # seconds of slowness before threads are changed
CALM = 60.0  # seconds before they are all tried again
ENOUGH = 5  # pieces of work to measure before the fastest one counts


@contextmanager
def sharing_cores(device: torch.device, numbers: int) -> Iterator[None]:
    """While inside, one thread of the CPU where there is little to do.

    A second one would gain next to nothing, and where another program has a core the two wait for
    each other: a puzzle that takes 0.05 s took 2.5 s so.

    Args:
        numbers: in the states of all that thinks side by side.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu" and numbers <= FEW_NUMBERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class ThreadWatch:
    """Counts how long pieces of work take, and changes the number of torch's threads meanwhile.

    Only on a CPU. With deterministic algorithms it says what it would do, since another number of
    threads may round differently.

    Args:
        work: what takes long, in messages; "steps", for example.
    """

    def __init__(
        self,
        device: torch.device,
        work: str,
        say: Callable[[str], None] = lambda line: say(line, sys.stderr),
        load: Callable[[], float] = machine.load,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._threads = torch.get_num_threads()
        self._watches = device.type == "cpu" and self._threads > 1
        self._work, self._say, self._load, self._clock = work, say, load, clock
        self._started = clock()
        self._count, self._fastest = 0, float("inf")
        self._slow = self._since_change = 0.0

    def close(self) -> None:
        """Take the number of threads that there was."""
        if self._watches:
            torch.set_num_threads(self._threads)

    def start(self) -> None:
        """A piece of work begins."""
        self._started = self._clock()

    def done(self, amount: float = 1.0) -> None:
        """It has ended, and was as much work as that."""
        now = self._clock()
        seconds, self._started = now - self._started, now
        if not self._watches:
            return
        self._count += 1
        self._fastest = min(self._fastest, seconds / amount)
        slow = self._count > ENOUGH and seconds / amount > SLOW * self._fastest
        self._slow = self._slow + seconds if slow else 0.0
        self._since_change += seconds
        if self._slow > LASTING:
            self._take_fewer(seconds / amount / self._fastest)
        elif self._since_change > CALM:
            self._take_all()

    def _take_fewer(self, times: float) -> None:
        load, cores, threads = self._load(), os.cpu_count() or 1, torch.get_num_threads()
        if load <= cores or threads == 1:
            self._slow = 0.0
            return
        fewer = max(1, threads - max(1, round(load - cores)))
        what = f"{self._work} take {times:.0f} times as long as before, for other programs are busy"
        if torch.are_deterministic_algorithms_enabled():
            self._say(
                f"{what}; deterministic=true keeps {threads} threads; stop them, or start again "
                f"with OMP_NUM_THREADS={fewer}"
            )
            self._watches = False
            return
        self._say(
            f"{what}: going on with {_threads(fewer)} instead of {threads}, which rounds "
            "differently (deterministic=true keeps them)"
        )
        torch.set_num_threads(fewer)
        self._forget()

    def _take_all(self) -> None:
        threads = torch.get_num_threads()
        more = self._threads - threads
        if not more or self._load() + more > (os.cpu_count() or 1) + 0.5:
            return
        self._say(f"the other programs are gone: going on with {_threads(self._threads)} again")
        torch.set_num_threads(self._threads)
        self._forget()

    def _forget(self) -> None:
        """Compare with what comes from here on."""
        self._count, self._fastest = 0, float("inf")
        self._slow = self._since_change = 0.0


def _threads(number: int) -> str:
    return "one thread" if number == 1 else f"{number} threads"
