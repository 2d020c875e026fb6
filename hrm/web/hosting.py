"""Models that are loaded now, each with its batcher."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hrm.errors import UserError
from hrm.inference.batcher import Batcher, Closed, Question, QueueFull, Step
from hrm.inference.solver import Solver
from hrm.web.catalogue import Facts
from hrm.web.guard import Refused

MOST_MODELS = 3

log = logging.getLogger(__name__)


@dataclass
class _Loaded:
    path: Path  # of the checkpoint that was read
    batcher: Batcher


class Models:
    """Loads checkpoints when they are asked for and keeps the last used ones.

    Args:
        load: reads a checkpoint.
        limits: of each `Batcher`.
    """

    def __init__(self, load: Callable[[Path], Solver], **limits: int) -> None:
        self._load, self._limits = load, limits
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._loading = asyncio.Lock()

    def add(self, name: str, path: Path, solver: Solver) -> None:
        """Host a checkpoint that has been read already."""
        self._loaded[name] = _Loaded(path, Batcher(solver, **self._limits))

    async def get(self, name: str, facts: Facts) -> Batcher:
        """The batcher of a checkpoint; a newer step than the loaded one replaces it.

        Raises:
            Refused: the checkpoint is damaged, or all loaded models are busy.
        """
        held = self._loaded.get(name)
        if held is not None and held.path == facts.path:
            self._loaded.move_to_end(name)
            return held.batcher
        async with self._loading:
            held = self._loaded.get(name)
            if held is None or (held.path != facts.path and _is_idle(held.batcher)):
                if held is not None:
                    await self._close(name)
                await self._make_room()
                try:
                    solver = await asyncio.to_thread(self._load, facts.path)
                except UserError:
                    message = f"checkpoint {name!r} cannot be loaded; choose another one"
                    raise Refused(422, message) from None
                self.add(name, facts.path, solver)
                held = self._loaded[name]
            self._loaded.move_to_end(name)
            return held.batcher

    @property
    def names(self) -> list[str]:
        return list(self._loaded)

    @property
    def running(self) -> int:
        """Puzzles that think now."""
        return sum(held.batcher.running for held in self._loaded.values())

    @property
    def waiting(self) -> int:
        """Puzzles that wait for a place."""
        return sum(held.batcher.waiting for held in self._loaded.values())

    async def close(self) -> None:
        """End all threads."""
        await asyncio.gather(*map(self._close, self.names))

    async def _make_room(self) -> None:
        while len(self._loaded) >= MOST_MODELS:
            idle = [name for name, held in self._loaded.items() if _is_idle(held.batcher)]
            if not idle:
                raise Refused(503, "all loaded models are busy; try again")
            await self._close(idle[0])

    async def _close(self, name: str) -> None:
        await asyncio.to_thread(self._loaded.pop(name).batcher.close)


def _is_idle(batcher: Batcher) -> bool:
    return batcher.idle


async def think(
    batcher: Batcher, questions: Sequence[Question]
) -> AsyncGenerator[tuple[int, Step]]:
    """Steps of questions as they are computed, until the last attempt at each has ended.

    Whoever stops listening (closes the iterator, or is cancelled) gives up the puzzles' places.

    Raises:
        Refused: no room, at the first step; or the model failed or was closed.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[int, Step | Exception]] = asyncio.Queue()

    def deliver(number: int, item: Step | Exception) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever listened
            loop.call_soon_threadsafe(arrived.put_nowait, (number, item))

    try:
        ticket = batcher.submit(questions, deliver)
    except QueueFull:
        raise Refused(429, "too many puzzles wait already; try again") from None
    except Closed:
        raise Refused(503, "the model has just been closed; try again") from None
    try:
        left = len(questions)
        while left:
            number, item = await arrived.get()
            if isinstance(item, Closed):
                raise Refused(503, "the model has just been closed; try again")
            if isinstance(item, Exception):
                log.error("the model failed", exc_info=item)
                raise Refused(500, "the model failed at this puzzle") from item
            left -= item.last
            yield number, item
    finally:
        ticket.cancel()
