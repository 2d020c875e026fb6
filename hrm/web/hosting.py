"""Models that are loaded now, each with its batcher, mostly in a process of its own."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hrm.errors import UserError
from hrm.inference.batcher import Closed, Deliver, Question, QueueFull, Step, Ticket
from hrm.inference.solver import Traits
from hrm.web.catalogue import Facts
from hrm.web.guard import Refused

MOST_MODELS = 3

log = logging.getLogger(__name__)


class Model(Protocol):
    """What the server needs of a `Batcher` or `RemoteBatcher`."""

    @property
    def traits(self) -> Traits: ...
    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def idle(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def submit(self, questions: Sequence[Question], deliver: Deliver) -> Ticket: ...
    def close(self) -> None: ...


@dataclass
class _Loaded:
    path: Path  # of the checkpoint that was read
    batcher: Model


class Models:
    """Loads checkpoints when they are asked for and keeps the last used ones.

    Args:
        load: reads a checkpoint, which takes a while.
    """

    def __init__(self, load: Callable[[Path], Model]) -> None:
        self._load = load
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._loading = asyncio.Lock()

    def add(self, name: str, path: Path, batcher: Model) -> None:
        """Host a checkpoint that has been read already."""
        self._loaded[name] = _Loaded(path, batcher)

    async def get(self, name: str, facts: Facts) -> Model:
        """The batcher of a checkpoint; a newer step than the loaded one replaces it.

        One whose process has ended is loaded again.

        Raises:
            Refused: the checkpoint is damaged, or all loaded models are busy.
        """
        held = self._loaded.get(name)
        if held is not None and held.path == facts.path and not held.batcher.closed:
            self._loaded.move_to_end(name)
            return held.batcher
        async with self._loading:
            held = self._loaded.get(name)
            if held is not None and (
                held.batcher.closed or (held.path != facts.path and held.batcher.idle)
            ):
                await self._close(name)
                held = None
            if held is None:
                await self._make_room()
                try:
                    self.add(name, facts.path, await self._loading_of(facts.path))
                except UserError as error:
                    log.warning("%s: %s", name, error)
                    message = f"checkpoint {name!r} cannot be loaded; choose another one"
                    raise Refused(422, message) from None
                held = self._loaded[name]
            self._loaded.move_to_end(name)
            return held.batcher

    async def _loading_of(self, path: Path) -> Model:
        """A model that is loaded in a thread; whoever is cancelled leaves none behind."""
        loading = asyncio.ensure_future(asyncio.to_thread(self._load, path))
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_close_unused)
            raise

    @property
    def names(self) -> list[str]:
        return [name for name, held in self._loaded.items() if not held.batcher.closed]

    @property
    def running(self) -> int:
        """Puzzles that think now."""
        return sum(held.batcher.running for held in self._loaded.values())

    @property
    def waiting(self) -> int:
        """Puzzles that wait for a place."""
        return sum(held.batcher.waiting for held in self._loaded.values())

    async def close(self) -> None:
        """End all threads and processes."""
        await asyncio.gather(*map(self._close, list(self._loaded)))

    async def _make_room(self) -> None:
        while len(self._loaded) >= MOST_MODELS:
            idle = [name for name, held in self._loaded.items() if held.batcher.idle]
            if not idle:
                raise Refused(503, "all loaded models are busy; try again")
            await self._close(idle[0])

    async def _close(self, name: str) -> None:
        await asyncio.to_thread(self._loaded.pop(name).batcher.close)


def _close_unused(loading: asyncio.Future[Model]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().close()


async def think(batcher: Model, questions: Sequence[Question]) -> AsyncGenerator[tuple[int, Step]]:
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
