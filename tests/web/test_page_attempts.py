"""Votes, restarts and drawn grids on the page, which knows only the rules that the server sends."""

import json
from typing import Any

from playwright.sync_api import Page, Route, expect

from hrm.tasks import task_of
from hrm.web.schemas import CheckpointInfo

from ..inference.test_solver import metadata
from ..inference.test_sources import READ, REFUSED
from .page_actions import (
    answer_reading,
    cell,
    choose,
    clear,
    forgive,
    message,
    paste,
    require_chromium,
    shown,
    think,
)

require_chromium()


def step(attempt: int, number: int, digit: str, **changes: Any) -> dict[str, Any]:
    """A line of the server's."""
    return {
        "attempt": attempt,
        "step": number,
        "answer": digit * 16,
        "confidence": [0.5] * 16,
        "halt_probability": 0.25,
        "valid": False,
        "halted": False,
        "last": False,
        "best": None,
    } | changes


def answer_with(page: Page, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    """Answer the next thinking by these lines; what was asked is noted."""
    asked = []

    def fulfil(route: Route) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(body="".join(json.dumps(line) + "\n" for line in lines))

    page.route("**/api/think", fulfil)
    return asked


def listen(page: Page) -> list[dict[str, Any]]:
    """Lines that the server sends, which the browser forgets once the page has read the last."""
    lines = []

    def pass_on(route: Route) -> None:
        response = route.fetch()
        lines.extend(map(json.loads, response.text().splitlines()))
        route.fulfill(response=response)

    page.route("**/api/think", pass_on)
    return lines


def ask_for(page: Page, votes: int, restarts: int) -> None:
    page.get_by_label("Votes").fill(str(votes))
    page.get_by_label("Restarts").fill(str(restarts))


def offer(page: Page, *kinds: dict[str, Any]) -> None:
    """Let the server list checkpoints for these metadata, by number, and no data set."""
    own = {"max_steps": 2, "data_path_id": None, "step": 1}
    tasks = [task_of(metadata(**kind)) for kind in kinds]
    models = [
        CheckpointInfo.of(task, id=str(n), guess_steps=2 * task.takes_guesses, **own).model_dump(
            mode="json"
        )
        for n, task in enumerate(tasks)
    ]
    listed = {"checkpoints": models, "default": "0"}
    page.route("**/api/checkpoints", lambda route: route.fulfill(json=listed))
    page.route("**/api/datasets", lambda route: route.fulfill(json={"datasets": []}))
    answer_reading(page, {str(n): task_of(metadata(**kind)) for n, kind in enumerate(kinds)})
    page.reload()
    page.get_by_role("tab", name="Solve").click()


def test_all_attempts_run_and_the_surest_is_shown(open_page):
    page = open_page()
    clear(page)
    ask_for(page, votes=3, restarts=1)
    lines = listen(page)
    think(page)
    ends = {line["attempt"]: line for line in lines if line["halted"]}
    best = lines[-1]["best"]
    kinds = ("the puzzle as it is", *["a symmetric version"] * 2, "another start state")
    expect(message(page)).to_have_text(
        f"Ended after 4 steps in attempt {best} of 4, {kinds[best - 1]}: not a valid solution."
    )
    assert shown(page) == ends[best]["answer"]
    select = page.get_by_label("Attempt shown")
    expect(select.locator("option")).to_have_text(
        [
            f"Attempt {n} of 4, {kind}: not valid" + "; this one counts" * (n == best)
            for n, kind in enumerate(kinds, 1)
        ]
    )
    for number, end in ends.items():
        select.select_option(index=number - 1)
        assert shown(page) == end["answer"]
        expect(page.locator("#player-status")).to_contain_text("step 4 of 4")
    page.get_by_role("slider", name="ACT step").focus()
    page.keyboard.press("ArrowLeft")
    third = [line for line in lines if (line["attempt"], line["step"]) == (4, 3)]
    assert shown(page) == third[0]["answer"]
    cell = page.locator("#solve-grid input").first
    cell.fill("1")
    expect(select).to_be_hidden()


def test_a_valid_answer_ends_the_attempts(open_page):
    page = open_page()
    clear(page)
    ask_for(page, votes=8, restarts=2)
    asked = answer_with(
        page,
        step(1, 1, "1"),
        step(1, 2, "2", halted=True),
        step(2, 1, "3", valid=True, halted=True, last=True, best=2),
    )
    think(page)
    assert (asked[0]["votes"], asked[0]["restarts"]) == (8, 2)
    expect(message(page)).to_have_text(
        "Halted after 1 step in attempt 2 of 10, a symmetric version: a valid solution."
    )
    expect(message(page)).to_have_attribute("data-kind", "success")
    select = page.get_by_label("Attempt shown")
    expect(select.locator("option")).to_have_count(2)
    assert shown(page) == "3" * 16
    more = page.get_by_role("button", name="Continue for 8 more steps")
    expect(more).to_be_hidden()
    select.focus()
    page.keyboard.press("ArrowUp")
    assert shown(page) == "2" * 16
    expect(page.locator("#player-status")).to_contain_text("step 2 of 2")
    answer_with(
        page, *[step(1, n, "1", halted=n == 10, last=n == 10, best=1) for n in range(1, 11)]
    )
    more.click()
    expect(message(page)).to_have_text("Ended after 10 steps: not a valid solution.")
    expect(page.locator("#player-status")).to_contain_text("step 2 of 10")
    expect(select.locator("option").nth(1)).to_have_text(
        "Attempt 2 of 10, a symmetric version: valid; this one counts"
    )


def test_rollouts_with_noise_are_made_and_named(open_page, problems):
    page = open_page()
    clear(page)
    page.get_by_label("Rollouts").fill("4")
    page.get_by_label("Noise").fill("0.5")
    page.get_by_label("Answer that counts").select_option("q_halt")
    expect(page.locator("#solve-attempts-help")).to_contain_text("the surest answer counts")
    answers = []

    def pass_on(route: Route) -> None:
        answers.append(route.fetch())
        route.fulfill(response=answers[-1])

    page.route("**/api/think", pass_on)
    think(page)
    lines = [json.loads(line) for line in answers[0].text().splitlines()]
    order = [(line["attempt"], line["step"]) for line in lines]
    side_by_side = [(attempt, n) for n in (1, 2, 3, 4) for attempt in (2, 3, 4)]
    assert order == [(1, n) for n in (1, 2, 3, 4)] + side_by_side
    ends = {line["attempt"]: line for line in lines if line["halted"]}
    best = max(ends, key=lambda n: ends[n]["halt_probability"])
    assert lines[-1]["best"] == best and shown(page) == ends[best]["answer"]
    options = page.get_by_label("Attempt shown").locator("option")
    expect(options).to_have_count(4)
    expect(options.nth(3)).to_contain_text("Attempt 4 of 4, with noise: not valid")
    page.get_by_label("Noise").fill("-1")
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_have_text("Noise: give a number from 0 to 10.")
    page.get_by_label("Noise").fill("0")
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_have_text("rollouts=4: all would be equal; give noise, too")
    forgive(problems, "status of 422")


def test_guesses_are_made_and_named(open_page):
    page = open_page()
    clear(page)
    cell(page, 1, 1).fill("1")
    page.get_by_label("Guesses").fill("6")
    expect(page.locator("#solve-attempts-help")).to_contain_text("the likeliest first")
    lines = listen(page)
    think(page)
    options = page.get_by_label("Attempt shown").locator("option")
    ends = {line["attempt"]: line for line in lines if line["halted"]}
    assert max(ends) == 7 and not any(end["valid"] for end in ends.values())
    expect(options).to_have_count(7)
    expect(options.nth(0)).to_contain_text("Attempt 1 of 7, the puzzle as it is: not valid")
    for number in range(2, 8):
        count = len(ends[number]["guessed"])
        named = f"with {count} guess{'es' * (count > 1)}: not valid"
        expect(options.nth(number - 1)).to_contain_text(f"Attempt {number} of 7, {named}")


def test_the_attempt_that_is_shown_stays_while_others_think_beside_it(open_page):
    page = open_page(init_script=HANGING)
    clear(page)
    page.get_by_label("Rollouts").fill("4")
    page.get_by_role("button", name="Think").click()

    def send(*lines: dict[str, Any]) -> None:
        for line in lines:
            page.evaluate("line => send(line)", json.dumps(line))

    options = page.get_by_label("Attempt shown").locator("option")
    send(step(1, 1, "1", halted=True), step(2, 1, "2", halted=True), step(3, 1, "3"))
    expect(options).to_have_count(3)
    send(step(4, 1, "4"), step(3, 2, "1"), step(4, 2, "2"))
    expect(page.locator("#player-status")).to_contain_text("step 2 of 2")
    assert shown(page) == "1" * 16
    send(step(4, 3, "3", valid=True, halted=True, last=True, best=4))
    expect(options.nth(3)).to_have_text("Attempt 4 of 4, with noise: valid; this one counts")
    expect(options.nth(2)).to_have_text("Attempt 3 of 4, with noise: given up")
    assert shown(page) == "3" * 16


HANGING = """{
  const original = window.fetch;
  window.fetch = (path, options) => {
    if (path !== "/api/think") return original(path, options);
    const body = new ReadableStream({
      start(controller) {
        window.send = (line) => controller.enqueue(new TextEncoder().encode(line + "\\n"));
        options.signal.addEventListener("abort", () => controller.error(options.signal.reason));
      },
    });
    return Promise.resolve(new Response(body));
  };
}"""


def test_the_attempt_that_runs_is_told_and_others_can_be_looked_at(open_page):
    page = open_page(init_script=HANGING)
    clear(page)
    ask_for(page, votes=2, restarts=1)
    page.get_by_role("button", name="Think").click()

    def send(line: dict[str, Any]) -> None:
        page.evaluate("line => send(line)", json.dumps(line))

    send(step(1, 1, "1", halted=True))
    expect(message(page)).to_have_text("Thinking: attempt 1 of 3, the puzzle as it is …")
    select = page.get_by_label("Attempt shown")
    send(step(2, 1, "2"))
    expect(message(page)).to_have_text("Thinking: attempt 2 of 3, a symmetric version …")
    expect(select.locator("option:checked")).to_contain_text("Attempt 2 of 3, a symmetric version")
    assert shown(page) == "2" * 16
    select.select_option(index=0)
    send(step(2, 2, "3", halted=True))
    send(step(3, 1, "4"))
    expect(message(page)).to_have_text("Thinking: attempt 3 of 3, another start state …")
    assert shown(page) == "1" * 16
    expect(select.locator("option")).to_have_count(3)
    page.get_by_role("button", name="Stop").click()
    expect(message(page)).to_have_text("Stopped after 1 step of attempt 3.")
    select.select_option(index=1)
    assert shown(page) == "3" * 16


def test_attempts_that_the_task_has_not_are_not_offered(open_page):
    page = open_page("training")
    maze = {"vocab_size": 6, "task": "maze"}
    oblong = {**maze, "seq_len": 12, "grid_shape": (3, 4)}
    offer(page, {}, {**maze, "seq_len": 9}, oblong, {"task": "grids", "symbols": "01234"})
    votes, help = page.get_by_label("Votes"), page.locator("#solve-attempts-help")
    page.get_by_label("Votes").fill("64")
    expect(help).to_contain_text("until an answer is valid")
    choose(page, "1")
    expect(votes).to_have_value("8")
    votes.fill("9")
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_have_text("Votes: give a whole number from 1 to 8.")
    expect(votes).to_be_focused()
    choose(page, "2")
    expect(votes).to_have_value("4")
    expect(help).to_contain_text("until")
    choose(page, "3")
    expect(votes).to_be_hidden()
    expect(page.get_by_label("Restarts")).to_be_visible()
    expect(page.get_by_label("Guesses")).to_be_hidden()
    expect(help).not_to_contain_text("Votes")
    expect(help).not_to_contain_text("Guesses")
    expect(help).to_contain_text("the surest answer counts")
    asked = answer_with(page, step(1, 1, "0", valid=None, halted=True, last=True, best=1))
    think(page)
    assert asked[0]["votes"] == 1


def test_drawn_grids_are_pasted(open_page):
    page = open_page("training")
    kinds = [json.loads(k) for k in dict.fromkeys(json.dumps(case["metadata"]) for case in READ)]
    offer(page, *kinds)
    for case in [*READ, *REFUSED]:
        expected = case["expected"]
        choose(page, str(kinds.index(case["metadata"])))
        page.get_by_role("button", name="Clear").click()
        field = page.locator("#solve-text")
        before = field.input_value()
        page.locator("#solve-grid input, #solve-grid .picture").first.focus()
        paste(page, case["text"])
        if isinstance(expected, str):
            expect(field, case["name"]).not_to_have_value(before)
            assert field.input_value().replace("\n", "") == expected, case["name"]
            expect(message(page), case["name"]).to_have_text("Ready: press Think.")
        else:
            expect(message(page), case["name"]).to_contain_text(f": {expected['reason']}.")
            assert field.input_value() == before, case["name"]
