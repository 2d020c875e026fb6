"""The application of the page's server: its addresses, its guard, how it says no."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from hrm.web import schemas
from hrm.web.catalogue import Catalogue
from hrm.web.guard import LOOPBACK, Guard, Refused
from hrm.web.hosting import Models
from hrm.web.listing import Listing
from hrm.web.thinking import THINK_SECONDS, ThinkRoutes

STATIC = Path(__file__).parent / "static"
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error} for status in (400, 404, 408, 413, 415, 422, 429, 500, 503)
}


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
        exception_handlers={
            Refused: _on_refused,
            HTTPException: _on_http_error,
            RequestValidationError: _on_invalid,
        },
    )

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/health")
    async def health() -> schemas.Health:
        return schemas.Health(
            status="ok", running=models.running, waiting=models.waiting, models=models.names
        )

    app.include_router(Listing(catalogue).router)
    app.include_router(ThinkRoutes(catalogue, models, think_seconds).router)
    app.mount("/static", StaticFiles(directory=STATIC))
    return Guard(app, hosts)


async def _on_refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status, error.headers)


async def _on_http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    sentences = {404: "there is nothing at this address", 405: "this address takes another method"}
    message = sentences.get(error.status_code, str(error.detail))
    return JSONResponse({"error": message}, error.status_code, error.headers)


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"][1:]) or "request"
    return JSONResponse({"error": f"{key[:100]}: {first['msg'][:300]}"}, 422)
