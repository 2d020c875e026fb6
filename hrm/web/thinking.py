"""Addresses that let a model think: step by step, for an answer, or to find wrong answers."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from hrm.attempts import Plan, plan_attempts
from hrm.data.fit import check_fits
from hrm.data.format import IDENTIFIERS_FILE
from hrm.data.names import read_names
from hrm.data.origin import knows_identifiers
from hrm.data.split import differs
from hrm.errors import UserError
from hrm.inference.batcher import Question, Step
from hrm.inference.inside import Inside
from hrm.inference.output import DIGITS, rounded
from hrm.inference.solver import Traits
from hrm.tasks import Poll, Polls, PuzzleError, Task
from hrm.web import schemas
from hrm.web.catalogue import Cache, Catalogue, Facts
from hrm.web.guard import Refused, TimeOver
from hrm.web.hosting import Model, Models, think

THINK_SECONDS = 60.0  # for one request
NAMES_CACHE = 2  # data sets
NDJSON: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-ndjson": {}}, "description": "a `StepAnswer` a line"}
}

Result = TypeVar("Result")


class ThinkRoutes:
    """Runs puzzles on the models; a request that lasts too long, or is left, gives up its places.

    Args:
        seconds: how long one request may think, all attempts together.
    """

    def __init__(self, catalogue: Catalogue, models: Models, seconds: float):
        self._catalogue, self._models, self._seconds = catalogue, models, seconds
        self._known: Cache[tuple[list[str], Polls]] = Cache(NAMES_CACHE)
        self.router = APIRouter(prefix="/api")
        streamed = self.router.post("/think", response_class=StreamingResponse, responses=NDJSON)
        streamed(self.think)
        self.router.post("/solve")(self.solve)
        self.router.post("/inside")(self.inside)
        self.router.post("/check")(self.check)

    async def think(self, asked: schemas.ThinkRequest, request: Request) -> StreamingResponse:
        """One JSON object a line, a `StepAnswer` per ACT step, as it is computed."""
        facts = await self._facts_of(asked)
        task = facts.task
        inputs = _read_puzzle(asked.puzzle, task)
        if asked.votes > 1 and asked.identity is not None and task.votes_by_name:
            return await self._vote(asked, asked.identity, facts, inputs, request)
        plan = _plan(task, asked)
        batcher, steps = await self._model_for(asked, facts)
        name = self._name(batcher.traits, asked.identity)
        question = Question(inputs, name, steps, asked.halting, True, plan)
        stream, end = think(batcher, [question]), self._deadline()
        first = await _while_here(request, end, anext(stream))
        lines = _lines(first, stream, _lines_of_attempts(task, plan), end)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def inside(self, asked: schemas.InsideRequest, request: Request) -> schemas.Inside:
        """The states over the ACT steps, and what a cell attends to in the last one."""
        facts = await self._facts_of(asked)
        inputs = _read_puzzle(asked.puzzle, facts.task)
        if asked.cell >= len(inputs):
            raise Refused(422, f"cell={asked.cell}: the puzzle has {len(inputs)} cells")
        batcher, steps = await self._model_for(asked, facts)
        name = self._name(batcher.traits, asked.identity)
        question = Question(inputs, name, steps, asked.halting, look_at=asked.cell)
        [[step]] = await _while_here(request, self._deadline(), _ends(batcher, [question]))
        assert step.inside is not None
        return _inside(step.inside)

    def _name(self, model: Traits, identity: schemas.Identity | None) -> int:
        """A puzzle's identifier as the model knows it."""
        if identity is None:
            return model.metadata.unseen_identifier
        return self._identifiers(model, identity.data, [identity.identifier])[0]

    async def _vote(
        self,
        asked: schemas.ThinkRequest,
        identity: schemas.Identity,
        facts: Facts,
        inputs: np.ndarray,
        request: Request,
    ) -> StreamingResponse:
        """`think` where the versions of a puzzle vote that the model knows by name."""
        if asked.restarts or asked.rollouts > 1:
            raise Refused(422, "votes go without restarts and rollouts here; ask for one of them")
        task = facts.task
        _plan(task, asked.model_copy(update={"votes": 1}))  # refuses guesses
        names, known = await asyncio.to_thread(self._names, identity.data, facts, task)
        if identity.identifier >= len(names):
            raise Refused(422, f"identifier={identity.identifier}: the model does not know it")
        try:
            poll = known.of(names[identity.identifier], inputs, asked.votes, "the puzzle")
        except UserError as error:
            raise Refused(422, str(error)) from None
        batcher, steps = await self._model_for(asked, facts)
        if not self._knows(batcher.traits, identity.data):
            reason = f"the model does not know the names of data set {identity.data!r}; use votes=1"
            raise Refused(422, reason)
        questions = [
            Question(version, name, steps, asked.halting, True)
            for version, name in zip(poll.inputs, poll.identifiers.tolist(), strict=True)
        ]
        stream, end = think(batcher, questions), self._deadline()
        first = await _while_here(request, end, anext(stream))
        lines = _lines(first, stream, _lines_of_votes(task, poll), end)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    def _names(self, data: str, facts: Facts, task: Task) -> tuple[list[str], Polls]:
        """Names of a data set's identifiers that the model has, and the versions among them."""
        folder, rows = self._catalogue.folder_of(data), facts.metadata.num_puzzle_identifiers

        def read() -> tuple[list[str], Polls]:
            names = read_names(folder)[:rows]
            return names, task.polls(names)

        try:
            changed = (folder / IDENTIFIERS_FILE).stat().st_mtime_ns
            return self._known.get((folder, changed, rows, facts.path), read)
        except (UserError, OSError):
            raise Refused(422, f"data set {data!r} cannot be read; it may be damaged") from None

    async def solve(self, asked: schemas.SolveRequest, request: Request) -> schemas.Answers:
        facts = await self._facts_of(asked)
        task = facts.task
        inputs = await _read_puzzles(asked.puzzles, task)
        plan = _plan(task, asked, len(inputs))
        batcher, steps = await self._model_for(asked, facts)
        name = self._name(batcher.traits, asked.identity)
        questions = [Question(tokens, name, steps, asked.halting, plan=plan) for tokens in inputs]
        ends = await _while_here(request, self._deadline(), _ends(batcher, questions))
        solutions = [_answer(tried, task, plan) for tried in ends]
        return schemas.Answers(solutions=solutions, step=batcher.traits.step)

    async def check(self, asked: schemas.CheckRequest, request: Request) -> schemas.Checked:
        """Which of some examples are answered wrongly."""
        opened = await asyncio.to_thread(self._catalogue.split, asked.data, asked.split)
        facts = await self._facts_of(asked)
        try:
            check_fits(facts.metadata, opened.metadata, asked.data)
        except UserError as error:
            raise Refused(422, str(error)) from None
        indices = range(asked.start, min(asked.start + asked.count, len(opened)))
        examples = [opened.example(index) for index in indices]
        batcher, steps = await self._model_for(asked, facts)
        own = [example.identifier for example in examples]
        names = self._identifiers(batcher.traits, asked.data, own)
        questions = [
            Question(e.inputs, name, steps, asked.halting)
            for e, name in zip(examples, names, strict=True)
        ]
        ends = await _while_here(request, self._deadline(), _ends(batcher, questions))
        wrong = [
            index
            for index, [step], example in zip(indices, ends, examples, strict=True)
            if differs(step.tokens, example.labels).any()
        ]
        return schemas.Checked(wrong=wrong, checked=len(examples), examples=len(opened))

    def _identifiers(self, model: Traits, data: str, own: Sequence[int]) -> list[int]:
        """A data set's identifiers as the model knows them, else that of unseen puzzles."""
        is_known = self._knows(model, data)
        return [model.metadata.identifier_of(number if is_known else None) for number in own]

    def _knows(self, model: Traits, data: str) -> bool:
        """Whether a data set's identifiers are those of training."""
        try:
            return knows_identifiers(model.origin, self._catalogue.folder_of(data))
        except UserError:
            raise Refused(422, f"data set {data!r} cannot be read; it may be damaged") from None

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._seconds

    async def _facts_of(self, asked: schemas.ModelRequest) -> Facts:
        if (known := self._catalogue.known_checkpoint(asked.checkpoint)) is not None:
            return known
        return await asyncio.to_thread(self._catalogue.checkpoint, asked.checkpoint)

    async def _model_for(self, asked: schemas.ModelRequest, facts: Facts) -> tuple[Model, int]:
        """The model, and how many steps it is to take at most.

        It is to be used without waiting for anything else before: who waits may find it closed.
        """
        batcher = await self._models.get(asked.checkpoint, facts)
        return batcher, asked.steps or batcher.traits.steps_at_most(asked.halting)


def _plan(task: Task, asked: schemas.Trying, puzzles: int = 1) -> Plan:
    try:
        plan = plan_attempts(task, **asked.tries)
    except UserError as error:
        raise Refused(422, str(error)) from None
    if puzzles * plan.width > schemas.MOST_PUZZLES:
        raise Refused(
            422,
            f"rollouts={asked.rollouts} of {puzzles} puzzles are more than the "
            f"{schemas.MOST_PUZZLES} that may wait at once; ask for fewer",
        )
    return plan


async def _read_puzzles(texts: Sequence[str], task: Task) -> list[np.ndarray]:
    """Puzzle by puzzle, between which others have their turn."""
    inputs = []
    for text in texts:
        inputs.append(_read_puzzle(text, task))
        await asyncio.sleep(0)
    return inputs


def _read_puzzle(text: str, task: Task) -> np.ndarray:
    try:
        inputs = task.read(text)
    except PuzzleError as error:
        raise Refused(422, error.reason, error.cell) from None
    if found := task.contradiction(inputs):
        raise Refused(422, f"the puzzle contradicts itself: {found.reason}", found.cell)
    return inputs


async def _lines(
    first: tuple[int, Step],
    stream: AsyncGenerator[tuple[int, Step]],
    line_of: Callable[[int, Step], schemas.StepAnswer],
    end: float,
) -> AsyncIterator[str]:
    """The lines of a first step and of those that follow, until the time is over."""
    number, step = first
    async with aclosing(stream):
        while True:
            line = line_of(number, step)
            yield line.model_dump_json() + "\n"
            if line.last:
                return
            try:
                number, step = await _within(end, anext(stream))
            except Refused as refused:
                yield json.dumps(refused.body) + "\n"
                return


def _lines_of_attempts(task: Task, plan: Plan) -> Callable[[int, Step], schemas.StepAnswer]:
    """What makes the lines of all attempts at one question."""
    tried: list[Step] = []  # the last step of each attempt

    def line_of(number: int, step: Step) -> schemas.StepAnswer:
        if step.halted:
            tried.append(step)
        line = _line(step, task, step.attempt, step.tokens, step.confidence, step.last)
        if step.last:
            line.best = plan.choose(tried).attempt
        return line

    return line_of


def _lines_of_votes(task: Task, poll: Poll) -> Callable[[int, Step], schemas.StepAnswer]:
    """What makes the lines of all versions of one question."""
    ends: dict[int, Step] = {}  # the last step of each version
    size = len(poll.identifiers)

    def line_of(number: int, step: Step) -> schemas.StepAnswer:
        if step.halted:
            ends[number] = step
        answer, confidence = poll.undo(number, step.tokens, step.confidence)
        line = _line(step, task, number + 1, answer, confidence, len(ends) == size)
        line.versions = size
        if line.last:
            given = [ends[n] for n in range(size)]
            sure = [one.halt_probability for one in given]
            choices = poll.count(np.stack([one.tokens for one in given]), sure)
            line.best = choices[0].first + 1
            line.voted = [
                schemas.Voted(attempt=choice.first + 1, votes=choice.votes)
                for choice in choices[: poll.tries]
            ]
        return line

    return line_of


def _line(
    step: Step, task: Task, attempt: int, tokens: np.ndarray, confidence: np.ndarray, last: bool
) -> schemas.StepAnswer:
    return schemas.StepAnswer(
        attempt=attempt,
        step=step.number,
        answer=task.grid.text(tokens),
        confidence=rounded(confidence),
        halt_probability=round(step.halt_probability, DIGITS),
        valid=step.valid,
        halted=step.halted,
        last=last,
        best=None,
        guessed=list(step.guessed) or None,
    )


def _inside(found: Inside) -> schemas.Inside:
    paths = [
        schemas.StatePath(
            name=path.name,
            places=path.places.round(DIGITS).tolist(),
            explained=path.explained,
            moved=path.moved.round(DIGITS).tolist(),
        )
        for path in found.paths
    ]
    blocks = [
        schemas.BlockAttention(block=name, heads=[rounded(head) for head in heads])
        for name, heads in found.attention.items()
    ]
    return schemas.Inside(paths=paths, attention=blocks)


def _answer(tried: Sequence[Step], task: Task, plan: Plan) -> schemas.Answer:
    """Of the last steps of all attempts at a puzzle."""
    best, (attempts, total_steps) = plan.choose(tried), plan.cost(tried)
    return schemas.Answer(
        answer=task.grid.text(best.tokens),
        confidence=rounded(best.confidence),
        halt_probability=round(best.halt_probability, DIGITS),
        valid=best.valid,
        steps=best.number,
        attempts=attempts,
        total_steps=total_steps,
    )


async def _ends(batcher: Model, questions: Sequence[Question]) -> list[list[Step]]:
    """The last step of each attempt at each question."""
    ends: list[list[Step]] = [[] for _ in questions]
    async with aclosing(think(batcher, questions)) as stream:
        async for number, step in stream:
            ends[number].append(step)
    return ends


async def _within(deadline: float, work: Awaitable[Result]) -> Result:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise TimeOver("the time for this puzzle is over; ask for fewer steps") from None


async def _while_here(request: Request, deadline: float, work: Awaitable[Result]) -> Result:
    """The result of some work, which is given up when the client leaves or the time is over."""
    running = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.wait({running, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        raise TimeOver("the time for this request is over; ask for less at once")
    finally:
        running.cancel()
        gone.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
