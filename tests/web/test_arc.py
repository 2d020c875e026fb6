"""ARC on the page: colours with their digits, examples that are solved under their identity."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from hrm.inference import Solver
from hrm.inference.polls import solve_by_vote
from hrm.tasks.arc.palette import COLORS
from tests.tasks.arc.making import Made
from tests.tasks.arc.test_solving import VERSIONS, checkpoint, made  # noqa: F401

from .page_actions import ENDED, message, require_chromium
from .serving import client_of, serve

require_chromium()


@pytest.fixture(scope="module")
def arc_url(made: Made, checkpoint: Path) -> Iterator[str]:  # noqa: F811
    with serve(checkpoint.parent, made.path.parent) as address:
        yield address


@pytest.fixture
def page(arc_url, browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, problems = context.new_page(), list[str]()
    page.on("console", lambda m: problems.append(m.text) if m.type != "log" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{arc_url}/#solve")
    expect(page.locator("#solve-origin")).to_contain_text("example")
    yield page
    context.close()
    assert problems == []


def tiles(page: Page, host: str) -> list[tuple[str, str]]:
    """Kind and text of each."""
    script = "all => all.map(e => [e.dataset.kind, e.textContent])"
    return [tuple(one) for one in page.locator(f"{host} .tile").evaluate_all(script)]


def test_an_example_is_solved_under_its_identity(arc_url):
    with client_of(arc_url) as client:
        [listed] = client.get("/api/checkpoints").json()["checkpoints"]
        colors = {str(n): list(pair) for n, pair in enumerate(COLORS)}
        assert (listed["rules"]["colors"], listed["rules"]["ends"]) == (colors, "=")
        assert "which rule is asked for" in listed["rules"]["without_name"]
        place = {"data": "data", "split": "test"}
        example = client.get("/api/example", params=place | {"index": 0}).json()
        assert example["identifier"] == 1 and "?" not in example["answer"]
        asked = {"checkpoint": "run", "puzzle": example["puzzle"], "halting": "max_steps"}

        def sure(identity: dict[str, object] | None) -> float:
            lines = client.post("/api/think", json=asked | {"identity": identity}).text
            return float(re.findall(r'"halt_probability":([\d.]+)', lines)[-1])

        unseen, own, other = (
            sure(None),
            sure({"data": "data", "identifier": 1}),
            sure({"data": "data", "identifier": 2}),
        )
        assert len({unseen, own, other}) == 3
        for identity, expected in ((None, unseen), ({"data": "data", "identifier": 2}, other)):
            body = {"checkpoint": "run", "puzzles": [example["puzzle"]], "halting": "max_steps"}
            answers = client.post("/api/solve", json=body | {"identity": identity}).json()
            assert answers["solutions"][0]["halt_probability"] == expected
        assert sure({"data": "data", "identifier": 10**6}) == unseen
        wrong = client.post("/api/think", json=asked | {"identity": {"data": "x", "identifier": 1}})
        assert wrong.status_code == 404 and "no data set of that name" in wrong.json()["error"]


def test_versions_vote_as_in_hrm_solve(arc_url, made, checkpoint):  # noqa: F811
    solver = Solver.from_checkpoint(checkpoint, device="cpu")
    names = solver.names(made.path)
    with client_of(arc_url) as client:
        for index in (0, 1, 7):
            place = {"data": "data", "split": "test", "index": index}
            example = client.get("/api/example", params=place).json()
            inputs, number = solver.task.read(example["puzzle"]), example["identifier"]
            poll = solver.task.polls(names).of(names[number], inputs, 4, "here")
            [expected] = solve_by_vote(solver, [poll], halting="max_steps")
            identity = {"data": "data", "identifier": number}
            asked = {"checkpoint": "run", "puzzle": example["puzzle"], "identity": identity}
            asked |= {"halting": "max_steps", "votes": 4}
            lines = client.post("/api/think", json=asked).text.splitlines()
            steps = [json.loads(line) for line in lines]
            assert len(steps) == 8 and {step["versions"] for step in steps} == {4}
            last = steps[-1]
            assert [step["last"] for step in steps] == [False] * 7 + [True]
            voted = [{"attempt": c.first + 1, "votes": c.votes} for c in expected.choices]
            assert last["voted"] == voted and last["best"] == voted[0]["attempt"]
            [best] = [s for s in steps if s["attempt"] == last["best"] and s["halted"]]
            assert best["answer"] == expected.answer
        for wrong in ({"restarts": 1}, {"identity": identity | {"identifier": 99}}):
            refused = client.post("/api/think", json=asked | wrong)
            assert refused.status_code == 422, refused.text
        for votes in (1, 8):
            refused = client.post("/api/think", json=asked | {"votes": votes, "guesses": 3})
            assert refused.status_code == 422, refused.text
            assert "none can be written into puzzles of arc" in refused.json()["error"]
        refused = client.post("/api/think", json=asked | {"identity": None})
        assert refused.status_code == 422 and "by the name of its task" in refused.json()["error"]


def test_votes_are_told(page: Page):
    page.get_by_label("Votes").fill("64")
    page.get_by_label("Halting").select_option("max_steps")
    page.get_by_role("button", name="Think").click()
    told = rf"^Ended after 2 steps in attempt \d of {VERSIONS}, .*, by \d of {VERSIONS} votes: "
    expect(message(page)).to_have_text(re.compile(told))
    attempt = page.get_by_label("Attempt shown")
    chosen = attempt.locator("option:checked")
    expect(chosen).to_have_text(re.compile(rf": \d of {VERSIONS} votes; this one counts$"))
    assert attempt.locator("option").count() == VERSIONS


def test_colours_are_drawn_with_their_digits(page: Page, arc_url: str):
    page.get_by_role("tab", name="Data").click()
    expect(page.locator("#data-puzzle .tile").first).to_be_visible()
    place = {"data": "data", "split": "test", "index": 0}
    example = page.request.get(f"{arc_url}/api/example", params=place).json()
    shown = tiles(page, "#data-answer")
    for symbol, (kind, text) in zip(example["answer"], shown, strict=True):
        expected = {"_": ("floor", ""), "=": ("end", "=")}.get(symbol, ("color", symbol))
        assert (kind, text) == expected
    first = page.locator("#data-answer .tile").first
    fill = bytes.fromhex(COLORS[int(example["answer"][0])][0][1:])
    expect(first).to_have_css("background-color", f"rgb({fill[0]}, {fill[1]}, {fill[2]})")


def test_an_example_of_the_data_is_thought_about(page: Page):
    page.get_by_role("tab", name="Data").click()
    page.get_by_role("button", name="Next version").click()
    expect(page.get_by_label("Example", exact=True)).to_have_value("1")
    page.get_by_role("button", name="Open in Solve").click()
    expect(message(page)).to_have_text("Ready: press Think.")
    with page.expect_request("**/api/think") as asked:
        page.get_by_role("button", name="Think").click()
    assert asked.value.post_data_json["identity"] == {"data": "data", "identifier": 2}
    expect(message(page)).to_have_text(re.compile(ENDED.pattern + ".* of 900 cells wrong"))
    wrong = page.locator("#solve-grid .tile[data-kind=color].wrong").first
    expect(wrong).to_have_css("outline-width", "3px")
    assert Axe().run(page).violations_count == 0

    page.locator("summary", has_text="Puzzle as text").click()
    page.get_by_label("One character per cell").fill("12\n30")
    expect(message(page)).to_have_text(re.compile("does not say which rule is asked for"))
    assert [text for _, text in tiles(page, "#solve-grid")][:3] == ["1", "2", "="]
    with page.expect_request("**/api/think") as asked:
        page.get_by_role("button", name="Think").click()
    assert asked.value.post_data_json["identity"] is None
