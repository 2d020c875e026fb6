"""What every request meets before the application, and every answer after it.

Bounds, checks and headers that must hold for all addresses, whatever the application does.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 64 * 1024  # bytes
BODY_SECONDS = 10.0
RETRY_SECONDS = 1
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is answered with an error: its HTTP status and one sentence.

    `column` is the cell of a puzzle at fault, counted from 0.
    """

    def __init__(self, status: int, message: str, column: int | None = None):
        super().__init__(message)
        self.status, self.message, self.column = status, message, column

    @property
    def body(self) -> dict[str, object]:
        return {"error": self.message} | ({} if self.column is None else {"column": self.column})

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(RETRY_SECONDS)} if self.status in (429, 503) else {}


class TimeOver(Refused):
    """A request that took too long; to ask for as much again would not help."""

    def __init__(self, message: str):
        super().__init__(503, message)

    @property
    def headers(self) -> dict[str, str]:
        return {}


class Guard:
    """ASGI middleware around the whole application.

    - the `Host` must be one that the server is meant for (against DNS rebinding);
    - a body must be JSON, at most `LARGEST_BODY`, and arrive within `BODY_SECONDS`;
    - security headers stand on every answer, and answers of the API are not stored;
    - an unexpected exception is logged, and answered without a word about it;
    - a request that the server's end cuts off is told so.

    Args:
        hosts: names without port; None allows any.
    """

    def __init__(self, app: App, hosts: Sequence[str] | None = LOOPBACK) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_headers(scope["path"])]
            await send(message)

        try:
            self._check_host(scope)
            body = await _read_body(scope, receive)
            await self._app(scope, _replay(body, receive), send_guarded)
        except Refused as refused:
            if not started:
                await respond(send_guarded, refused)
        except asyncio.CancelledError:  # only where the server ends
            if not started:
                await respond(send_guarded, Refused(503, "the server ends; try again later"))
        except Exception:
            log.exception("%s %r failed", scope["method"], scope["path"][:200])
            if not started:
                await respond(send_guarded, Refused(500, "internal error"))

    def _check_host(self, scope: Scope) -> None:
        host = _header(scope, b"host")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if self._hosts is not None and name.lower() not in self._hosts:
            raise Refused(400, "this server does not answer to that host name; see --host")


async def respond(send: Send, refused: Refused) -> None:
    """Answer with an error."""
    body = json.dumps(refused.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    await send(
        {
            "type": "http.response.start",
            "status": refused.status,
            "headers": _encoded(headers | refused.headers),
        }
    )
    await send({"type": "http.response.body", "body": body})


def _headers(path: str) -> list[tuple[bytes, bytes]]:
    fresh = "no-cache" if path == "/" or path.startswith("/static/") else "no-store"
    return _encoded({**HEADERS, "cache-control": fresh})


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _header(scope: Scope, name: bytes) -> str:
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else ""


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body, b"" where there is none."""
    too_large = Refused(413, f"the body is larger than {LARGEST_BODY:,} bytes; send less at once")
    length = _header(scope, b"content-length")
    if length.isdecimal() and int(length) > LARGEST_BODY:
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "the body ended early")
                body += message.get("body", b"")
                if len(body) > LARGEST_BODY:
                    raise too_large
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise Refused(408, f"the body took longer than {BODY_SECONDS:.0f} s") from None
    media_type = _header(scope, b"content-type").partition(";")[0].strip().lower()
    if body and media_type != "application/json":
        raise Refused(415, "send the body as application/json")
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, and then waits as the server's does."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
