"""The addresses of the page's server."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from hrm.checkpoint import saved_steps
from hrm.data.format import DatasetMetadata
from hrm.data.split import differs
from hrm.inference.batcher import Batcher, Question, Step
from hrm.inference.output import DIGITS, rounded
from hrm.tasks import PuzzleError, Task, task_of
from hrm.web import schemas
from hrm.web.catalogue import Catalogue, Facts
from hrm.web.guard import LOOPBACK, Guard, Refused
from hrm.web.hosting import Models, think

STATIC = Path(__file__).parent / "static"
THINK_SECONDS = 60.0  # for one request
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error} for status in (400, 404, 408, 413, 415, 422, 429, 500, 503)
}

_NDJSON: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-ndjson": {}}, "description": "a `StepAnswer` a line"}
}
_Id = Annotated[str, Query(max_length=schemas.LONGEST_ID)]
_Index = Annotated[int, Query(ge=0, le=schemas.LARGEST_NUMBER)]

Result = TypeVar("Result")


def create_app(
    catalogue: Catalogue,
    models: Models,
    hosts: Sequence[str] | None = LOOPBACK,
    think_seconds: float = THINK_SECONDS,
) -> Guard:
    """The application, guarded; models are closed when it shuts down.

    Args:
        hosts: names that it answers to; None allows any.
        think_seconds: how long one request may think.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await models.close()

    app = FastAPI(
        title="HRM",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=ERRORS,
    )
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)

    def deadline() -> float:
        return asyncio.get_running_loop().time() + think_seconds

    async def facts_of(asked: schemas.Thinking) -> Facts:
        return await asyncio.to_thread(catalogue.checkpoint, asked.checkpoint)

    async def model_for(asked: schemas.Thinking, facts: Facts) -> tuple[Batcher, int]:
        """The model, and how many steps it is to take at most.

        It is to be used without waiting for anything else before: who waits may find it closed.
        """
        batcher = await models.get(asked.checkpoint, facts)
        return batcher, asked.steps or batcher.solver.max_steps

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/health")
    async def health() -> schemas.Health:
        return schemas.Health(
            status="ok", running=models.running, waiting=models.waiting, models=models.names
        )

    @app.get("/api/checkpoints")
    def checkpoints() -> schemas.Checkpoints:
        infos = []
        for name, facts in catalogue.checkpoints().items():
            task = task_of(facts.metadata)
            grid = task.grid
            infos.append(
                schemas.CheckpointInfo(
                    id=name,
                    task=task.name,
                    grid_shape=grid.shape,
                    box_shape=grid.box_shape,
                    symbols=grid.symbols,
                    blank=grid.blank,
                    max_steps=facts.config.arch.halt_max_steps,
                    data_path_id=catalogue.dataset_id(facts.config.data_path),
                    step=facts.step,
                )
            )
        return schemas.Checkpoints(checkpoints=infos, default=catalogue.default_id)

    @app.post("/api/think", response_class=StreamingResponse, responses=_NDJSON)
    async def think_aloud(asked: schemas.ThinkRequest, request: Request) -> StreamingResponse:
        """One JSON object a line, a `StepAnswer` per ACT step, as it is computed."""
        facts = await facts_of(asked)
        inputs = _read_puzzle(asked.puzzle, facts.metadata)
        batcher, steps = await model_for(asked, facts)
        solver = batcher.solver
        question = Question(inputs, solver.unseen_identifier, steps, asked.halting, every_step=True)
        stream = think(batcher, [question])
        end = deadline()
        first = await _while_here(request, end, anext(stream))

        async def lines() -> AsyncIterator[str]:
            async with aclosing(stream):
                _, step = first
                while True:
                    answer = _step_answer(step, inputs, solver.task)
                    yield answer.model_dump_json() + "\n"
                    if step.halted:
                        return
                    try:
                        _, step = await _within(end, anext(stream))
                    except Refused as refused:
                        yield json.dumps(refused.body) + "\n"
                        return

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @app.post("/api/solve")
    async def solve(asked: schemas.SolveRequest, request: Request) -> schemas.Answers:
        facts = await facts_of(asked)
        inputs = await asyncio.to_thread(_read_puzzles, asked.puzzles, facts.metadata)
        batcher, steps = await model_for(asked, facts)
        solver = batcher.solver
        unseen = solver.unseen_identifier
        questions = [Question(tokens, unseen, steps, asked.halting) for tokens in inputs]
        final = await _while_here(request, deadline(), _last_steps(batcher, questions))
        answers = np.stack([step.tokens for step in final])
        valid = await asyncio.to_thread(solver.task.are_valid, answers, np.stack(inputs))
        return schemas.Answers(
            solutions=[
                schemas.Answer(
                    answer=solver.task.grid.text(step.tokens),
                    confidence=rounded(step.confidence),
                    halt_probability=round(step.halt_probability, DIGITS),
                    valid=keeps,
                    steps=step.number,
                )
                for step, keeps in zip(final, valid, strict=True)
            ]
        )

    @app.get("/api/datasets")
    def datasets() -> schemas.Datasets:
        infos = []
        for name, splits in catalogue.datasets().items():
            sizes = {split: catalogue.size_of(folder) for split, folder in splits.items()}
            known = {split: size for split, size in sizes.items() if size is not None}
            if known:
                task = task_of(next(iter(known.values())).metadata)
                grid = task.grid
                infos.append(
                    schemas.DatasetInfo(
                        id=name,
                        task=task.name,
                        grid_shape=grid.shape,
                        box_shape=grid.box_shape,
                        symbols=grid.symbols,
                        splits={
                            split: schemas.SplitInfo(
                                examples=size.examples, groups=size.metadata.total_groups
                            )
                            for split, size in known.items()
                        },
                    )
                )
        return schemas.Datasets(datasets=infos)

    @app.get("/api/example")
    def example(data: _Id, split: _Id, index: _Index = 0) -> schemas.Example:
        opened = catalogue.split(data, split)
        grid = task_of(opened.metadata).grid
        try:
            found, group = opened.example(index), opened.group(index)
        except IndexError as error:
            raise Refused(404, str(error)) from None
        return schemas.Example(
            index=index,
            examples=len(opened),
            puzzle=grid.text(found.inputs),
            answer=grid.text(found.labels),
            group=group.number,
            first=group.first,
            last=group.last,
        )

    @app.post("/api/check")
    async def check(asked: schemas.CheckRequest, request: Request) -> schemas.Checked:
        """Which of some examples are answered wrongly."""
        opened = await asyncio.to_thread(catalogue.split, asked.data, asked.split)
        facts = await facts_of(asked)
        metadata = facts.metadata
        if (opened.metadata.seq_len, opened.metadata.vocab_size) != (
            metadata.seq_len,
            metadata.vocab_size,
        ):
            raise Refused(422, "this checkpoint was trained on puzzles of another kind")
        indices = range(asked.start, min(asked.start + asked.count, len(opened)))
        examples = [opened.example(index) for index in indices]
        batcher, steps = await model_for(asked, facts)
        identifier_of = batcher.solver.identifier_of
        questions = [
            Question(e.inputs, identifier_of(e.identifier), steps, asked.halting) for e in examples
        ]
        final = await _while_here(request, deadline(), _last_steps(batcher, questions))
        wrong = [
            index
            for index, step, example in zip(indices, final, examples, strict=True)
            if differs(step.tokens, example.labels).any()
        ]
        return schemas.Checked(wrong=wrong, checked=len(examples), examples=len(opened))

    @app.get("/api/runs")
    def runs() -> schemas.Runs:
        infos = [
            schemas.RunInfo(id=name, steps_done=max(saved_steps(path.parent), default=None))
            for name, path in catalogue.runs().items()
        ]
        return schemas.Runs(runs=infos)

    @app.get("/api/metrics")
    def metrics(run: _Id, after: _Index = 0) -> schemas.Metrics:
        """Lines of `metrics.jsonl` after a byte."""
        records, end, reset = catalogue.metrics(run, after)
        return schemas.Metrics(records=records, next=end, reset=reset)

    app.mount("/static", StaticFiles(directory=STATIC))
    return Guard(app, hosts)


def _read_puzzles(texts: Sequence[str], metadata: DatasetMetadata) -> list[np.ndarray]:
    return [_read_puzzle(text, metadata) for text in texts]


def _read_puzzle(text: str, metadata: DatasetMetadata) -> np.ndarray:
    task = task_of(metadata)
    try:
        inputs = task.read(text)
    except PuzzleError as error:
        raise Refused(422, error.reason, error.cell) from None
    if found := task.contradiction(inputs):
        raise Refused(422, f"the puzzle contradicts itself: {found.reason}", found.cell)
    return inputs


def _step_answer(step: Step, inputs: np.ndarray, task: Task) -> schemas.StepAnswer:
    [valid] = task.are_valid(step.tokens[None], inputs[None])
    return schemas.StepAnswer(
        step=step.number,
        answer=task.grid.text(step.tokens),
        confidence=rounded(step.confidence),
        halt_probability=round(step.halt_probability, DIGITS),
        valid=valid,
        halted=step.halted,
    )


async def _last_steps(batcher: Batcher, questions: Sequence[Question]) -> list[Step]:
    last: dict[int, Step] = {}
    async with aclosing(think(batcher, questions)) as stream:
        async for number, step in stream:
            last[number] = step
    return [last[number] for number in range(len(questions))]


async def _within(deadline: float, work: Awaitable[Result]) -> Result:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise Refused(503, "the time for this puzzle is over; try fewer steps") from None


async def _while_here(request: Request, deadline: float, work: Awaitable[Result]) -> Result:
    """The result of some work, which is given up when the client leaves or the time is over."""
    running = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.wait({running, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        raise Refused(503, "the time for this request is over; ask for less at once")
    finally:
        running.cancel()
        gone.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _on_refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status, error.headers)


async def _on_http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    told = {404: "there is nothing at this address", 405: "this address takes another method"}
    message = told.get(error.status_code, str(error.detail))
    return JSONResponse({"error": message}, error.status_code, error.headers)


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"][1:]) or "request"
    return JSONResponse({"error": f"{key[:100]}: {first['msg'][:300]}"}, 422)
