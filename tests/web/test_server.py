"""Every address of the real server: its good answer, its refusals, the headers of all."""

import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from hrm.data.format import read_split
from hrm.inference import Solver
from hrm.web import schemas
from hrm.web.guard import HEADERS, LARGEST_BODY

from ..conftest import saved_run
from .serving import client_of, serve

PUZZLE = "1" + "." * 15
DATA = "sudoku-4x4"
POSTS = ("/api/think", "/api/solve", "/api/check", "/api/read")
RULES = {
    "blank": ".",
    "empty": ".",
    "aliases": dict.fromkeys("0_*·•‧∙⋅․・-‐‑‒–—−", "."),
    "units": [
        *([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]),
        *([0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]),
        *([0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]),
    ],
    "wall": None,
    "colors": {},
    "ends": "",
    "without_name": None,
    "votes_by_name": False,
    "most_versions": 64,
    "judged": True,
}
ODD_IDS = [
    *("", ".", "..", "../..", "tests", "tests/", "/tests/patient", "./tests/patient"),
    *("tests/../tests/patient", "tests/patient/step_7", "/etc/passwd", "tests%2Fpatient"),
    *("tests\\patient", "\0", "tests/patient\0", "tests/patient ", "TESTS/PATIENT"),
]


@pytest.fixture
def client(url) -> Iterator[httpx.Client]:
    with client_of(url) as client:
        yield client


@pytest.fixture(scope="module")
def solver(runs) -> Solver:
    return Solver.from_checkpoint(runs / "tests/patient", device="cpu")


def body(path: str, **changes: object) -> dict[str, object]:
    """A good request."""
    particular = {
        "/api/think": {"puzzle": PUZZLE},
        "/api/solve": {"puzzles": [PUZZLE]},
        "/api/read": {"text": PUZZLE},
        "/api/check": {"data": DATA, "split": "test", "start": 0, "count": 2},
    }
    return {"checkpoint": "tests/patient", **particular[path], **changes}


def error(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal, which has nothing else but a column."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert set(told) <= {"error", "column"} and isinstance(told["error"], str) and told["error"]
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    return told["error"]


def test_health(client):
    client.post("/api/solve", json=body("/api/solve")).raise_for_status()
    health = client.get("/health").json()
    assert health == {"status": "ok", "running": 0, "waiting": 0, "models": health["models"]}
    assert "tests/patient" in health["models"]


def test_checkpoints(client):
    listed = client.get("/api/checkpoints").json()
    assert listed["default"] is None
    assert [one["id"] for one in listed["checkpoints"]] == ["tests/eager", "tests/patient"]
    assert listed["checkpoints"][1] == {
        "id": "tests/patient",
        "earlier_of": None,
        "task": "sudoku",
        "grid_shape": [4, 4],
        "box_shape": [2, 2],
        "symbols": ".1234",
        "rules": RULES,
        "max_steps": 4,
        "guess_steps": 4,
        "data_path_id": DATA,
        "step": 7,
    }


def test_think_tells_every_step(client, solver):
    [alone] = solver.solve([PUZZLE], steps=6, halting="max_steps", trace=True)
    asked = body("/api/think", steps=6, halting="max_steps")
    with client.stream("POST", "/api/think", json=asked) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        steps = [schemas.StepAnswer.model_validate_json(line) for line in answer.iter_lines()]
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.halted for step in steps] == [False] * 5 + [True]
    for step, tokens, sure in zip(
        steps, alone.trace.tokens, alone.trace.halt_probability, strict=True
    ):
        assert step.answer == solver.task.grid.text(tokens)
        assert step.halt_probability == pytest.approx(sure, abs=1e-4)
    assert steps[-1].valid == alone.valid
    np.testing.assert_allclose(steps[-1].confidence, alone.confidence, atol=1e-4)


def test_the_default_steps_are_those_of_the_configuration(data_4x4, tmp_path):
    """Where a run says how long learned halting may take in evaluations."""
    never = ("eval_max_steps=6", "eval_halt_probability=1")
    saved_run(data_4x4, tmp_path / "runs/slow", *never)
    with serve(tmp_path / "runs", data_4x4.parent) as url, client_of(url) as client:
        [listed] = client.get("/api/checkpoints").json()["checkpoints"]
        assert listed["max_steps"] == 6
        taken = {}
        for halting in ("learned", "max_steps"):
            asked = body("/api/think", checkpoint="slow", halting=halting)
            lines = client.post("/api/think", json=asked).text.splitlines()
            taken[halting] = [json.loads(line)["step"] for line in lines]
    assert taken == {"learned": [1, 2, 3, 4, 5, 6], "max_steps": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("name", "halting", "steps", "expected"),
    [
        ("patient", "learned", None, 4),
        ("eager", "learned", None, 1),
        ("eager", "max_steps", None, 4),
        ("eager", "max_steps", 9, 9),
        ("patient", "learned", 2, 2),
    ],
)
def test_solve_halts_as_asked(client, name, halting, steps, expected):
    asked = body("/api/solve", checkpoint=f"tests/{name}", halting=halting, steps=steps)
    answers = client.post("/api/solve", json=asked).json()
    [solution] = answers["solutions"]
    assert (solution["steps"], answers["step"]) == (expected, 7)


def test_solve_keeps_the_order(client, data_4x4, solver):
    inputs = read_split(data_4x4 / "test")[1]["test"].inputs
    puzzles = [solver.task.grid.text(row) for row in np.concatenate([inputs] * 7)[:256]]
    solutions = client.post("/api/solve", json=body("/api/solve", puzzles=puzzles)).json()
    assert [s["answer"] for s in solutions["solutions"]] == [
        s.answer for s in solver.solve(puzzles)
    ]
    assert all(len(s["confidence"]) == 16 for s in solutions["solutions"])


def test_datasets(client):
    assert client.get("/api/datasets").json() == {
        "datasets": [
            {
                "id": DATA,
                "task": "sudoku",
                "grid_shape": [4, 4],
                "box_shape": [2, 2],
                "symbols": ".1234",
                "rules": RULES,
                "splits": {
                    "test": {"examples": 40, "groups": 40},
                    "train": {"examples": 1100, "groups": 100},
                },
            }
        ]
    }


@pytest.mark.parametrize("index", [0, 10, 11, 1099])
def test_an_example_and_its_versions(client, data_4x4, solver, index):
    arrays = read_split(data_4x4 / "train")[1]["train"]
    asked = {"data": DATA, "split": "train", "index": index}
    group = index // 11
    assert client.get("/api/example", params=asked).json() == {
        "index": index,
        "examples": 1100,
        "puzzle": solver.task.grid.text(arrays.inputs[index]),
        "answer": solver.task.grid.text(arrays.labels[index]),
        "identifier": group,
        "group": group,
        "first": 11 * group,
        "last": 11 * group + 11,
    }


@pytest.mark.parametrize(("start", "count", "checked"), [(0, 40, 40), (35, 256, 5), (40, 1, 0)])
def test_check_names_the_wrong_answers(client, data_4x4, solver, start, count, checked):
    arrays = read_split(data_4x4 / "test")[1]["test"]
    answers = np.stack([s.tokens for s in solver.solve(arrays.inputs)])
    wrong = np.flatnonzero((answers != arrays.labels).any(axis=1))
    assert client.post("/api/check", json=body("/api/check", start=start, count=count)).json() == {
        "wrong": [int(n) for n in wrong if start <= n < start + count],
        "checked": checked,
        "examples": 40,
    }


def test_runs_and_metrics(client):
    runs = client.get("/api/runs").json()["runs"]
    assert {"id": "tests/patient", "steps_done": 7} in runs
    assert {"id": "tests/begun", "steps_done": None} in runs
    first = client.get("/api/metrics", params={"run": "tests/patient"}).json()
    assert [record["step"] for record in first["records"]] == [7, 7]
    after = {"run": "tests/patient", "after": first["next"]}
    expected = {"records": [], "next": first["next"], "file": first["file"], "reset": False}
    assert client.get("/api/metrics", params=after).json() == expected
    again = {"run": "tests/patient", "after": first["next"] + 1}
    assert client.get("/api/metrics", params=again).json() == {**first, "reset": True}
    of_another = {**after, "file": "12"}
    assert client.get("/api/metrics", params=of_another).json() == {**first, "reset": True}
    of_this = {**after, "file": first["file"]}
    assert client.get("/api/metrics", params=of_this).json() == expected


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/static/style.css"])
def test_the_page_is_checked_anew(client, path):
    answer = client.get(path)
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == (304 if path.startswith("/static") else 200)


def test_openapi_describes_every_address(client):
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    assert set(described["paths"]) == {
        *("/health", "/api/checkpoints", "/api/think", "/api/solve", "/api/datasets"),
        *("/api/example", "/api/check", "/api/read", "/api/runs", "/api/metrics"),
        "/api/inside",
    }
    for path in described["paths"].values():
        for operation in path.values():
            assert {"200", "422", "429", "503"} <= set(operation["responses"])
            reference = {"$ref": "#/components/schemas/Error"}
            assert (
                operation["responses"]["422"]["content"]["application/json"]["schema"] == reference
            )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/static/app.js", 200),
        ("HEAD", "/static/app.js", 200),
        ("GET", "/health", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/api/runs", 200),
        ("GET", "/docs", 404),
        ("GET", "/health/", 404),
        ("GET", "/static/none.js", 404),
        ("GET", "/static/%00", 404),
        ("GET", "/static/" + "a" * 300, 404),
        ("GET", "/static/..%2f..%2fapp.py", 404),
        ("GET", "/api/example?data=no&split=test", 404),
        ("POST", "/static/app.js", 405),
        ("DELETE", "/health", 405),
        ("GET", "/api/think", 405),
        ("POST", "/api/solve", 422),
        ("GET", "/api/example", 422),
    ],
)
def test_headers_stand_on_every_answer(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    if status >= 400:
        error(answer, status)
    for name, value in HEADERS.items():
        assert answer.headers.get_list(name) == [value]
    kept = "no-cache" if path == "/" or path.startswith("/static/") else "no-store"
    assert answer.headers.get_list("cache-control") == [kept]
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("", 400),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example:8000", 400),
        ("::1", 400),
    ],
)
def test_only_the_own_names_are_answered(client, host, status):
    answer = client.get("/health", headers={"host": host})
    assert answer.status_code == status
    if status == 400:
        assert "--host" in error(answer, 400)
        assert answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"]
)
def test_a_body_must_be_json(client, path, content_type):
    """Else another site's form could send one without asking."""
    headers = {} if content_type is None else {"content-type": content_type}
    answer = client.post(path, content=json.dumps(body(path)), headers=headers)
    assert "application/json" in error(answer, 415)


@pytest.mark.parametrize("path", [*POSTS, "/nowhere", "/health"])
def test_large_bodies_are_refused(url, path):
    headers = {"content-type": "application/json"}
    with client_of(url) as client:
        too_large = client.post(path, content=b" " * (LARGEST_BODY + 1), headers=headers)
    assert "65,536" in error(too_large, 413)
    with client_of(url) as client:
        parts = (b" " * 1000 for _ in range(66))
        streamed = client.post(path, content=parts, headers=headers)
    assert "65,536" in error(streamed, 413)


def test_the_largest_body_is_read(client):
    text = json.dumps(body("/api/solve")).ljust(LARGEST_BODY)
    headers = {"content-type": "application/json; charset=utf-8"}
    assert client.post("/api/solve", content=text, headers=headers).status_code == 200


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 257}, "steps"),
        ({"steps": "4"}, "steps"),
        ({"steps": 4.0}, "steps"),
        ({"steps": True}, "steps"),
        ({"steps": 10**30}, "steps"),
        ({"halting": "never"}, "halting"),
        ({"checkpoint": None}, "checkpoint"),
        ({"checkpoint": "a" * 501}, "checkpoint"),
        ({"colour": 3}, "colour"),
        ({"\ud800": 3}, "request"),
    ],
)
def test_a_wrong_field_is_named(client, path, changes, named):
    text = json.dumps(body(path, **changes))
    headers = {"content-type": "application/json"}
    told = error(client.post(path, content=text, headers=headers), 422)
    assert told.startswith(f"{named}:")


@pytest.mark.parametrize("path", ["/api/think", "/api/solve"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("votes", [0, 65, "2", 2.0, None, True]),
        ("restarts", [-1, 17, "1", 1.5, None]),
        ("guesses", [-1, 257, "1", 1.5, None]),
        ("seed", [-1, 2**53, "0", 0.5, None]),
    ],
)
def test_numbers_of_attempts_are_bounded(client, path, name, values):
    for value in values:
        told = error(client.post(path, json=body(path, **{name: value})), 422)
        assert told.startswith(f"{name}:"), value
    assert "votes" in error(client.post("/api/check", json=body("/api/check", votes=1)), 422)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[]", b'"a"', b"\xff\xfe", b"[" * 60_000, b'{"steps": NaN}']
    + [b'{"steps": ' + b"9" * 5000 + b"}", b'{"puzzle": "\xed\xa0\x80"}'],
)
def test_what_is_no_request_is_refused(client, text):
    for path in POSTS:
        answer = client.post(path, content=text, headers={"content-type": "application/json"})
        error(answer, answer.status_code)
        assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    ("puzzle", "sentence", "column"),
    [
        ("1" * 15, "15 characters, expected 16 (4x4)", None),
        ("", "0 characters, expected 16", None),
        ("....x...........", "'x' is not one of '.1234'", 4),
        ("." * 15 + "5", "'5' is not one of", 15),
        ("\0" + "." * 15, r"'\x00' is not one of", 0),
        ("1..1" + "." * 12, "contradicts itself: 1 is given 2 times in row 1", 3),
        ("2...." + "2" + "." * 10, "2 is given 2 times in box 1", 5),
        ("a" * 4097, "at most 4096", None),
    ],
)
def test_a_wrong_puzzle_is_refused_with_its_cell(client, puzzle, sentence, column):
    for path, changes in (
        ("/api/think", {"puzzle": puzzle}),
        ("/api/solve", {"puzzles": [PUZZLE, puzzle]}),
    ):
        answer = client.post(path, json=body(path, **changes))
        assert sentence in error(answer, 422)
        assert answer.json().get("column") == column


@pytest.mark.parametrize("puzzles", [[], [PUZZLE] * 257, PUZZLE, [1], None])
def test_the_number_of_puzzles_is_bounded(client, puzzles):
    assert "puzzles" in error(
        client.post("/api/solve", json=body("/api/solve", puzzles=puzzles)), 422
    )


@pytest.mark.parametrize("name", ODD_IDS)
def test_only_listed_names_are_known(client, name):
    def post(path: str, **changes: str) -> httpx.Response:
        text = json.dumps(body(path, **changes))
        return client.post(path, content=text, headers={"content-type": "application/json"})

    answers = [post(path, checkpoint=name) for path in POSTS]
    answers += [post("/api/check", data=name), post("/api/check", split=name)]
    answers += [
        client.get("/api/example", params={"data": name, "split": "test"}),
        client.get("/api/example", params={"data": DATA, "split": name}),
        client.get("/api/metrics", params={"run": name}),
    ]
    for answer in answers:
        assert "reload the list" in error(answer, 404)


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/api/example", {"data": DATA, "split": "test", "index": 40}, 404),
        ("/api/example", {"data": DATA, "split": "test", "index": -1}, 422),
        ("/api/example", {"data": DATA, "split": "test", "index": 2**53}, 422),
        ("/api/example", {"data": DATA, "split": "test", "index": "one"}, 422),
        ("/api/example", {"data": "a" * 501, "split": "test"}, 422),
        ("/api/metrics", {"run": "tests/patient", "after": -1}, 422),
        ("/api/metrics", {"run": "tests/patient", "after": "9" * 5000}, 422),
        ("/api/metrics", {}, 422),
    ],
)
def test_wrong_queries_are_refused(client, path, asked, status):
    error(client.get(path, params=asked), status)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-- -\n" + "----\n" * 3, {"puzzle": PUZZLE}),
        ("+--+--+\n|1.|..|\n" + "|..|..|\n" * 3, {"puzzle": PUZZLE}),
        ("12x", {"error": "character 'x' is not one of '.1234'", "column": 2}),
        ("", {"error": "0 characters, expected 16 (4x4)"}),
    ],
)
def test_a_puzzle_is_read_as_in_a_file(client, text, expected):
    asked = {"checkpoint": "tests/patient", "text": text}
    answer = client.post("/api/read", json=asked)
    nothing = dict.fromkeys(("puzzle", "note", "error", "column"))
    assert (answer.status_code, answer.json()) == (200, nothing | expected)


def test_reading_needs_a_checkpoint_and_a_text_of_bounded_length(client):
    asked = {"checkpoint": "tests/patient", "text": "." * (schemas.LONGEST_PUZZLE + 1)}
    assert client.post("/api/read", json=asked).status_code == 422
    assert client.post("/api/read", json=asked | {"checkpoint": "x", "text": ""}).status_code == 404
