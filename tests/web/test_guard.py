"""The guard holds whatever the application does: slow bodies, errors, ends in the middle."""

import asyncio
import json
import logging

import pytest

from hrm.web import guard
from hrm.web.guard import HEADERS, LARGEST_BODY, Guard, Refused

START = {"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]}
JSON = [(b"content-type", b"application/json")]


class Exchange:
    """One request to a guarded application, and what it sent."""

    def __init__(self, app, messages: list[dict] | None = None, **scope: object) -> None:
        self.sent: list[dict] = []
        self.app = Guard(app)
        self.messages = messages if messages is not None else [{"type": "http.request"}]
        self.scope = {"type": "http", "method": "POST", "path": "/api/x"} | scope
        self.scope["headers"] = [(b"host", b"localhost"), *scope.get("headers", ())]  # type: ignore[misc]

    async def run(self) -> "Exchange":
        await self.app(self.scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict:
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)

    async def _send(self, message: dict) -> None:
        self.sent.append(message)

    @property
    def answer(self) -> tuple[int, dict]:
        """Status and body; all headers are there, once each."""
        start, body = self.sent
        headers = [name.decode() for name, _ in start["headers"]]
        assert {*HEADERS, "cache-control", "content-type"} <= set(headers)
        assert len(set(headers)) == len(headers)
        return start["status"], json.loads(body["body"])


def exchange(app, messages: list[dict] | None = None, **scope: object) -> Exchange:
    return asyncio.run(Exchange(app, messages, **scope).run())


async def silent(scope, receive, send) -> None:
    pytest.fail("the application was asked")


async def echo(scope, receive, send) -> None:
    """Answer with the body, and wait until the client is gone."""
    body = await receive()
    await send(dict(START))
    await send({"type": "http.response.body", "body": body["body"]})
    assert (await receive())["type"] == "http.disconnect"


def part(body: bytes, more: bool = False) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_parts_is_given_whole_and_then_the_end_of_the_client():
    messages = [part(b"{", True), part(b"", True), part(b"}"), {"type": "http.disconnect"}]
    start, body = exchange(echo, messages, headers=JSON).sent
    assert body["body"] == b"{}"
    assert (b"x-own", b"1") in start["headers"]
    assert {name.encode() for name in HEADERS} < {name for name, _ in start["headers"]}


@pytest.mark.parametrize("more", [[], [part(b"x", True)] * 3])
def test_slow_bodies_are_given_up(monkeypatch, more):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    status, body = exchange(silent, list(more)).answer
    assert status == 408 and "took longer than" in body["error"]


def test_a_body_that_ends_early_is_refused():
    messages = [part(b"x", True), {"type": "http.disconnect"}]
    assert exchange(silent, messages).answer == (400, {"error": "the body ended early"})


def test_large_bodies_are_refused_before_they_are_read():
    headers = [(b"content-length", str(LARGEST_BODY + 1).encode())]
    assert exchange(silent, [], headers=headers).answer[0] == 413
    messages = [part(b"x" * LARGEST_BODY, True), part(b"x", True)]
    assert exchange(silent, messages).answer[0] == 413


@pytest.mark.parametrize("hosts", [[], [b"localhost", b"localhost"], [b"evil.example"], [b"\xff"]])
def test_one_known_host_is_needed(hosts):
    request = Exchange(silent)
    request.scope["headers"] = [(b"host", host) for host in hosts]
    asyncio.run(request.run())
    assert request.answer[0] == 400


@pytest.mark.parametrize("error", [RuntimeError("secret\x1b[31m"), KeyError("secret")])
def test_an_unexpected_error_is_logged_and_not_told(caplog, error):
    async def fail(scope, receive, send) -> None:
        raise error

    told = exchange(fail, path="/api/\x1b[31m\n")
    assert told.answer == (500, {"error": "internal error"})
    [record] = caplog.records
    assert record.levelno == logging.ERROR and record.exc_info
    assert "\x1b" not in record.getMessage() and "\n" not in record.getMessage()


def test_an_error_in_the_middle_of_an_answer_is_logged_and_adds_nothing(caplog):
    async def fail(scope, receive, send) -> None:
        await send(dict(START))
        raise RuntimeError("secret")

    assert [message["type"] for message in exchange(fail).sent] == ["http.response.start"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("status", "retry"), [(429, True), (503, True), (422, False)])
def test_refusals_are_told(status, retry):
    async def refuse(scope, receive, send) -> None:
        raise Refused(status, "so", column=3)

    told = exchange(refuse)
    assert told.answer == (status, {"error": "so", "column": 3})
    assert (b"retry-after" in dict(told.sent[0]["headers"])) == retry


def test_who_is_cut_off_by_the_end_of_the_server_is_told():
    async def main() -> Exchange:
        request = Exchange(silent, [])
        running = asyncio.create_task(request.run())
        await asyncio.sleep(0)
        running.cancel()
        return await running

    status, body = asyncio.run(main()).answer
    assert status == 503 and "the server ends" in body["error"]


def test_the_lifespan_passes():
    seen = []

    async def app(scope, receive, send) -> None:
        seen.append(scope["type"])

    asyncio.run(Exchange(app, type="lifespan").run())
    assert seen == ["lifespan"]
