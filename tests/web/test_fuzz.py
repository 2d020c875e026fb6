"""Whatever is sent: no internal error, no traceback, an answer as described, nothing from outside.

Hypothesis and schemathesis invent requests from the application's own description; a second test
mutates the bytes of good requests and sends them to the real server.
"""

import asyncio
import re
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hrm.web.app import create_app
from hrm.web.catalogue import Catalogue
from hrm.web.hosting import Models

from ..inference.test_batcher import eventually
from .serving import LOAD, client_of, in_this_process, save_runs, serve

CANARY = "canary-7f3a"
EXAMPLES = {True: 40, False: 10}  # of each operation and mode: with input, without
MUTATED = 250
JSON = {"content-type": "application/json"}
QUIET = 0.05  # seconds without an answer
ALLOWED_5XX = (503,)
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]

known = st.fixed_dictionaries(
    {
        "checkpoint": st.sampled_from(["tests/patient", "tests/eager"]),
        "puzzle": st.text(".123", min_size=16, max_size=16),
        "puzzles": st.lists(st.text("." * 9 + "12", min_size=16, max_size=16), max_size=4),
        "steps": st.none() | st.integers(1, 6),
        "halting": st.sampled_from(["learned", "max_steps"]),
        "votes": st.integers(1, 5),
        "restarts": st.integers(0, 3),
        "seed": st.integers(0, 2**53 - 1),
        "data": st.just("sudoku-4x4"),
        "split": st.sampled_from(["train", "test"]),
        "start": st.integers(0, 50),
        "count": st.integers(1, 8),
        "run": st.sampled_from(["tests/patient", "tests/begun"]),
        "index": st.integers(0, 50),
        "after": st.integers(0, 1000),
    }
)
hostile = st.sampled_from(
    [
        *("..", "../..", "../canary.txt", "/etc/passwd", "\0", "a\0b", "%2e%2e", "//", "\\..\\"),
        *("tests/patient/../../../canary.txt", ".", "~", "C:\\", "\u202e", "tests", "../beside"),
    ]
)
names = st.sampled_from(["checkpoint", "data", "split", "run", "puzzle"])
changes = st.one_of(
    st.just({}),  # nothing: the values that reach the deepest code
    st.dictionaries(names, hostile, max_size=1),
    st.just(None),  # only what schemathesis has invented
)


@pytest.fixture(scope="module")
def roots(data_4x4, tmp_path_factory) -> tuple[Path, Path]:
    """Roots of checkpoints and data, with a canary beside each, and links that lead there."""
    folder = tmp_path_factory.mktemp("fuzz")
    runs = save_runs(folder / "checkpoints", data_4x4)
    data = folder / "data"
    shutil.copytree(data_4x4, data / data_4x4.name)
    (folder / "canary.txt").write_text(CANARY)
    beside = folder / "beside"
    beside.mkdir()
    (beside / "metrics.jsonl").write_text(f'{{"{CANARY}": 1}}\n')
    (runs / "out").symlink_to(beside)
    return runs, data


@pytest.fixture
def app(roots) -> Iterator:
    models = Models(in_this_process(LOAD))
    yield create_app(Catalogue(*roots), models, hosts=None)
    asyncio.run(models.close())


def assert_harmless(status: int, text: str) -> None:
    assert status < 500 or status in ALLOWED_5XX, text
    assert CANARY not in text and "Traceback" not in text
    assert "NaN" not in text and "Infinity" not in text


def test_requests_invented_from_the_description(app, caplog, capfd):
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    statuses: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        takes_input = bool(operation.body or operation.query)
        for mode in GenerationMode if takes_input else [GenerationMode.POSITIVE]:
            _fuzz(operation, mode, EXAMPLES[takes_input], statuses)
    assert statuses.total() >= 300
    assert statuses[200] > 150 and statuses[422] > 100 and statuses[404] > 30, statuses
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())


def _fuzz(operation, mode: GenerationMode, examples: int, statuses: Counter[int]) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), known, changes)
    def send(case, values: dict, changed: dict | None) -> None:
        if changed is not None:
            for part in (case.body, case.query):
                if isinstance(part, dict):
                    part |= {n: v for n, v in (values | changed).items() if n in part}
        response = case.call()
        statuses[response.status_code] += 1
        assert_harmless(response.status_code, response.text)
        case.validate_response(response, checks=CHECKS)

    send()


def request(path: str, body: str = "") -> bytes:
    """A good request."""
    method = "POST" if body else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


CHECKPOINT = '"checkpoint": "tests/patient", "steps": 2'
SEEDS = (
    *map(request, ("/", "/health", "/static/app.js", "/openapi.json", "/api/checkpoints")),
    *map(request, ("/api/runs", "/api/datasets", "/api/metrics?run=tests/patient&after=0")),
    request("/api/example?data=sudoku-4x4&split=test&index=3"),
    request("/api/think", f'{{{CHECKPOINT}, "votes": 2, "puzzle": "{"." * 16}"}}'),
    request(
        "/api/solve",
        f'{{{CHECKPOINT}, "restarts": 1, "rollouts": 3, "noise": 1, "puzzles": ["{"." * 16}"]}}',
    ),
    request("/api/check", f'{{{CHECKPOINT}, "data": "sudoku-4x4", "split": "test", "count": 2}}'),
)
PIECES = (
    *(b"\r\n", b"\n", b"\r\n\r\n", b"\0", b"%00", b"\xff\xfe", b" ", b"\x16\x03\x01", b"?", b"#"),
    *(
        b"..",
        b"/../",
        b"%2e%2e/",
        b"..%2f",
        b"../../canary.txt",
        b"//",
        b"/static/../../canary.txt",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999\r\n"),
    *(b"Expect: 100-continue\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    *(b"Host: evil.example\r\n", b"GET http://evil.example/ HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n"),
    *(
        b"OPTIONS * ",
        b"CONNECT a:1 ",
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"GET /../../canary.txt HTTP/1.1\r\n",
    ),
    *(
        b"A" * 20_000,
        b"X: " + b"y" * 70_000,
        b"[" * 5000,
        b'"\\ud800"',
        b"1e999",
        b"-",
        b"9" * 5000,
    ),
)


def mutate(raw: bytes, random: np.random.Generator) -> bytes:
    """Cut out, overwritten, doubled, with something put in, or truncated; up to three times."""
    for _ in range(random.integers(1, 4)):
        at, length = int(random.integers(len(raw) + 1)), int(random.integers(1, 30))
        before, piece, after = raw[:at], raw[at : at + length], raw[at + length :]
        raw = (
            before + after,
            before + random.bytes(length) + after,
            before + piece * 2 + after,
            before + PIECES[random.integers(len(PIECES))] + piece + after,
            before,
        )[random.integers(5)]
    return raw


def exchange(port: int, raw: bytes, quiet: float) -> bytes:
    """What comes back for some bytes, until the server is quiet for so long (s), or closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with suppress(OSError):
            connection.sendall(raw)
            connection.settimeout(quiet)
            while part := connection.recv(1 << 16):
                answer += part
    return answer


def test_mutated_bytes(roots, caplog, capfd):
    random = np.random.default_rng(0)
    statuses: Counter[int] = Counter()
    with serve(*roots) as url, client_of(url) as client:
        port = int(url.rpartition(":")[2])
        for number in range(MUTATED):
            raw = mutate(SEEDS[number % len(SEEDS)], random)
            if number % 10 == 0:  # pipelined
                raw += SEEDS[random.integers(len(SEEDS))] + mutate(raw, random)
            began = time.monotonic()
            client.get("/health")
            answer = exchange(port, raw, max(QUIET, 10 * (time.monotonic() - began)))
            assert CANARY.encode() not in answer and b"Traceback" not in answer, raw
            told = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
            assert all(status < 500 or status in ALLOWED_5XX for status in told), raw
            statuses.update(told)
        eventually(lambda: client.get("/health").json()["running"] == 0)
        assert client.get("/health").json()["waiting"] == 0
        good = client.post("/api/solve", content=SEEDS[-2].rpartition(b"\r\n\r\n")[2], headers=JSON)
        assert good.status_code == 200
    assert statuses[200] > 10 and statuses[400] > 50 and statuses[404] > 2, statuses
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())
