"""Small grids side by side: other checkpoints on a puzzle, a run's checkpoints on test puzzles."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page, Route, expect

from hrm.checkpoint import build_for, load_checkpoint, save_checkpoint

from .page_actions import cell, choose, clear, forgive, paste, require_chromium, shown
from .serving import append_metrics, serve
from .test_page_views import PHONE, assert_accessible, overflow

require_chromium()

RUN = "tests/eager"
NAMES = [RUN, "sudoku-4x4"]


@pytest.fixture(scope="module")
def url(runs, data_4x4) -> Iterator[str]:
    """With the models of the package, of which one fits the runs' puzzles."""
    with serve(runs, data_4x4.parent, shipped=True) as address:
        yield address


def await_example(page: Page) -> None:
    """Of the runs' data set; before, the page shows one of another model's."""
    expect(page.locator("#solve-origin")).to_contain_text("example 0 of sudoku-4x4, test")
    expect(page.get_by_role("button", name="Ask 2 other checkpoints")).to_be_visible()


def others(page: Page) -> Locator:
    return page.locator("#others-list > li")


def ask_others(page: Page, told: str) -> None:
    page.get_by_role("button", name="Ask 2 other checkpoints").click()
    expect(page.locator("#others-message")).to_have_text(told)


def notice(page: Page) -> list[dict[str, Any]]:
    """Bodies of the requests for answers from now on."""
    asked: list[dict[str, Any]] = []
    page.on("request", lambda r: asked.append(r.post_data_json) if "/api/solve" in r.url else None)
    return asked


def identify(page: Page) -> None:
    """Let examples have the identifier 3, of those that a model may know."""

    def answer(route: Route) -> None:
        route.fulfill(json=route.fetch().json() | {"identifier": 3})

    page.route("**/api/example*", answer)


def example(page: Page, data: str, index: int) -> tuple[str, dict[str, Any]]:
    """The right answer of a test puzzle, and how the page asks it once it is identified."""
    place = {"data": data, "split": "test", "index": index}
    found = page.request.get(f"{page.url.split('#')[0]}api/example", params=place).json()
    identity = {"data": data, "identifier": 3}
    return found["answer"], {"puzzles": [found["puzzle"]], "identity": identity}


def wrong_cells(grid: Locator) -> list[int]:
    classes = grid.locator("td").evaluate_all("all => all.map(e => e.classList.contains('wrong'))")
    return [n for n, is_wrong in enumerate(classes) if is_wrong]


def test_other_models_answer_the_puzzle_that_is_there(open_page, url, data_4x4):
    page = open_page("data")
    identify(page)
    page.get_by_role("tab", name="Solve").click()
    choose(page, "sudoku-9x9")
    choose(page, "tests/patient")
    await_example(page)
    asked = notice(page)
    ask_others(page, "2 of 2 checkpoints answered; right: 1.")
    answer, own = example(page, data_4x4.name, 0)
    assert asked == [{"checkpoint": name} | own for name in NAMES]

    for name, item in zip(NAMES, others(page).all(), strict=True):
        body = {"checkpoint": name} | own
        [end] = page.request.post(f"{url}/api/solve", data=body).json()["solutions"]
        wrong = [n for n in range(16) if end["answer"][n] != answer[n]]
        assert bool(wrong) == (name == RUN)
        assert wrong_cells(item) == wrong
        outcome = f"{len(wrong)} of 16 cells wrong" if wrong else "solved exactly"
        steps = f"{end['steps']} ACT step{'s' * (end['steps'] > 1)}"
        sure = f"halt probability {100 * end['halt_probability']:.1f}%"
        expect(item).to_contain_text(f"{name}{outcome} {steps}, {sure}")
        grid = item.get_by_role("table", name=name)
        expect(grid.get_by_role("cell", name=re.compile(r"^\d, wrong$"))).to_have_count(len(wrong))


def test_without_a_known_answer_the_rules_say_who_is_right(open_page):
    page = open_page()
    await_example(page)
    puzzle = shown(page)
    clear(page)
    cell(page, 1, 1).focus()
    paste(page, puzzle)
    expect(page.locator("#solve-origin")).to_be_empty()
    asked = notice(page)
    ask_others(page, "2 of 2 checkpoints answered; right: 1.")
    assert asked[0]["identity"] is None and asked[0]["puzzles"] == [puzzle]
    expect(others(page).nth(0)).to_contain_text("not a valid solution")
    expect(others(page).nth(1)).to_contain_text("a valid solution")
    cell(page, 1, 1).fill("1")
    expect(others(page)).to_have_count(0)
    expect(page.locator("#others-message")).to_be_empty()


def test_a_model_that_fails_is_told_in_its_place(open_page, problems):
    page = open_page()
    await_example(page)

    def refuse(route: Route) -> None:
        if route.request.post_data_json["checkpoint"] == RUN:
            route.fulfill(status=503, json={"error": "it is broken"})
        else:
            route.continue_()

    page.route("**/api/solve", refuse)
    ask_others(page, "1 of 2 checkpoints answered; right: 1.")
    expect(others(page).nth(0)).to_have_text(f"{RUN}it is broken")
    expect(others(page).nth(0).locator("p.error")).to_be_visible()
    expect(others(page).nth(1)).to_contain_text("solved exactly")
    forgive(problems, "503")


def test_asking_is_stopped_by_keyboard_and_by_another_puzzle(open_page):
    page = open_page()
    await_example(page)
    page.route("**/api/solve", lambda route: None)  # never answered
    ask = page.get_by_role("button", name="Ask 2 other checkpoints")
    stop = page.locator("#others-stop")
    for end in ("stop", "another puzzle"):
        ask.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#others-message")).to_have_text(f"Asking {RUN} …")
        expect(ask).to_have_attribute("aria-disabled", "true")
        if end == "stop":
            page.keyboard.press("Tab")
            expect(stop).to_be_focused()
            page.keyboard.press("Enter")
            expect(page.locator("#others-message")).to_have_text("Stopped.")
            expect(ask).to_be_focused()
        else:
            page.get_by_role("button", name="Example from the data set").click()
            expect(page.locator("#others-message")).to_be_empty()
        expect(others(page)).to_have_count(0)
        expect(ask).to_have_attribute("aria-disabled", "false")


def test_only_models_that_fit_are_offered(open_page):
    page = open_page()
    await_example(page)
    panel = page.locator("#others")
    expect(panel).to_be_visible()
    choose(page, "sudoku-9x9")
    assert len(shown(page)) == 81
    expect(panel).to_be_hidden()


def test_the_run_s_earlier_checkpoints_are_asked_and_other_runs_not(open_page, runs):
    known = load_checkpoint(runs / RUN)
    torch.manual_seed(2)
    fresh = build_for(known.config, known.metadata).state_dict()
    save_checkpoint(runs / RUN, 3, known.config, known.metadata, fresh)
    earlier = f"{RUN}/step_3"
    page = open_page()
    await_example(page)
    for chosen, expected in (
        (RUN, [earlier, "tests/patient", "sudoku-4x4"]),
        (earlier, [RUN, "tests/patient", "sudoku-4x4"]),
    ):
        choose(page, chosen)
        page.get_by_role("button", name="Ask 3 other checkpoints").click()
        told = re.compile("^3 of 3 checkpoints answered")
        expect(page.locator("#others-message")).to_have_text(told)
        expect(others(page).get_by_role("table")).to_have_count(3)
        tables = others(page).get_by_role("table").all()
        assert [table.get_attribute("aria-label") for table in tables] == expected
    choose(page, "tests/patient")
    expect(page.get_by_role("button", name="Ask 2 other checkpoints")).to_be_visible()


def checkpoints(page: Page) -> Locator:
    return page.locator("#puzzles-list h4")


def test_new_checkpoints_answer_test_puzzles(open_page, url, runs, data_4x4):
    page = open_page("data")
    identify(page)
    asked = notice(page)
    page.get_by_role("tab", name="Training").click()
    message = page.locator("#puzzles-message")
    expect(message).to_have_text(re.compile("^This run has no checkpoint yet"))
    page.get_by_label("Run", exact=True).select_option(RUN)
    told = re.compile(r"^Step 7: \d+ of 48 cells wrong$")
    expect(checkpoints(page)).to_have_text([told])
    expect(message).to_be_empty()
    expect(page.locator("#puzzles-news")).to_have_text(told)
    total = 0
    items = page.locator("#puzzles-list li").all()
    for index, item, body in zip((0, 13, 26), items, asked, strict=True):
        answer, own = example(page, data_4x4.name, index)
        assert body == {"checkpoint": RUN} | own
        [end] = page.request.post(f"{url}/api/solve", data=body).json()["solutions"]
        wrong = [n for n in range(16) if end["answer"][n] != answer[n]]
        assert wrong_cells(item) == wrong
        total += len(wrong)
        grid = item.get_by_role("table", name=f"Step 7, example {index}")
        expect(grid).to_be_visible()
    expect(checkpoints(page)).to_have_text(f"Step 7: {total} of 48 cells wrong")

    known = load_checkpoint(runs / RUN)
    torch.manual_seed(1)
    fresh = build_for(known.config, known.metadata).state_dict()
    save_checkpoint(runs / RUN, 1009, known.config, known.metadata, fresh)
    expect(checkpoints(page)).to_have_text([re.compile("^Step 1,009: "), told])
    page.get_by_label("Run", exact=True).select_option("tests/patient")
    expect(checkpoints(page)).to_have_count(1)
    page.get_by_label("Run", exact=True).select_option(RUN)
    expect(checkpoints(page)).to_have_count(2)
    assert len(asked) == 9  # three puzzles for each of three checkpoints


def say_steps(page: Page, steps: dict[str, int | None], answered: dict[str, Any]) -> None:
    """Let the run's newest checkpoint be of steps["now"]; requests for answers get `answered`.

    Without "json" these are the server's, said to be of that step.
    """

    def pass_on(route: Route, key: str, field: str) -> None:
        found = route.fetch().json()
        for one in found[key]:
            if one["id"] == RUN:
                one[field] = steps["now"]
        route.fulfill(json=found)

    def answer(route: Route) -> None:
        if answered:
            route.fulfill(**answered)
        else:
            route.fulfill(json=route.fetch().json() | {"step": steps["now"]})

    page.route("**/api/runs", lambda route: pass_on(route, "runs", "steps_done"))
    page.route("**/api/checkpoints", lambda route: pass_on(route, "checkpoints", "step"))
    page.route("**/api/solve", answer)


def test_the_last_checkpoints_are_kept_until_a_run_begins_anew(open_page):
    page = open_page("data")
    steps: dict[str, int | None] = {"now": 10}
    say_steps(page, steps, {})
    page.get_by_role("tab", name="Training").click()
    page.get_by_label("Run", exact=True).select_option(RUN)
    for step in range(10, 80, 10):
        steps["now"] = step
        expect(checkpoints(page).first).to_have_text(re.compile(f"^Step {step}: "))
    numbers = [re.compile(f"^Step {step}: ") for step in (70, 60, 50, 40, 30, 20)]
    expect(checkpoints(page)).to_have_text(numbers)
    steps["now"] = 5
    expect(checkpoints(page)).to_have_text([re.compile("^Step 5: ")])


def test_a_checkpoint_that_vanishes_is_told_and_the_next_one_asked(open_page, problems):
    page = open_page("data")
    steps: dict[str, int | None] = {"now": 10}
    answered: dict[str, Any] = {"status": 422, "json": {"error": "it cannot be loaded"}}
    say_steps(page, steps, answered)
    asked = notice(page)
    page.get_by_role("tab", name="Training").click()
    page.get_by_label("Run", exact=True).select_option(RUN)
    message = page.locator("#puzzles-message")
    expect(message).to_have_text("Step 10 gave no answer: it cannot be loaded.")
    listed = []
    page.on("request", lambda r: listed.append(r.url) if "/api/checkpoints" in r.url else None)
    page.wait_for_timeout(700)  # several looks
    assert len(asked) == 3 and not listed  # not again
    steps["now"] = 20
    busy = {"status": 429, "headers": {"Retry-After": "1"}, "json": {"error": "too many wait"}}
    answered.update(busy)
    expect(message).to_have_text("too many wait")
    answered.clear()
    expect(checkpoints(page)).to_have_text([re.compile("^Step 20: ")])
    expect(message).to_be_empty()
    forgive(problems, "status of 4")


def test_answers_of_two_checkpoints_are_not_mixed(open_page):
    page = open_page("data")
    steps: dict[str, int | None] = {"now": 10}
    say_steps(page, steps, {})
    mixed = [11, 10, 10]

    def answer(route: Route) -> None:
        step = mixed.pop() if mixed else 11
        route.fulfill(json=route.fetch().json() | {"step": step})

    page.route("**/api/solve", answer)
    page.get_by_role("tab", name="Training").click()
    page.get_by_label("Run", exact=True).select_option(RUN)
    expect(checkpoints(page)).to_have_text([re.compile("^Step 11: ")])


def test_without_the_data_set_one_sentence_says_so(open_page):
    page = open_page("data")
    expect(page.locator("#data-version")).not_to_be_empty()
    asked = notice(page)
    page.route("**/api/datasets", lambda route: route.fulfill(json={"datasets": []}))
    page.get_by_role("tab", name="Training").click()
    page.get_by_label("Run", exact=True).select_option(RUN)
    message = page.locator("#puzzles-message")
    expect(message).to_have_text(re.compile("^This run's data set is not here"))
    assert asked == []


def test_nothing_is_asked_where_training_is_not_seen(open_page):
    page = open_page("data")
    steps: dict[str, int | None] = {"now": 10}
    say_steps(page, steps, {})
    asked = notice(page)
    page.get_by_role("tab", name="Training").click()
    page.get_by_label("Run", exact=True).select_option(RUN)
    expect(checkpoints(page)).to_have_count(1)
    page.get_by_role("tab", name="Data").click()
    steps["now"] = 20
    page.wait_for_timeout(700)  # several looks
    assert len(asked) == 3
    page.get_by_role("tab", name="Training").click()
    expect(checkpoints(page)).to_have_count(2)


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_shows_all(open_page, runs, color_scheme):
    append_metrics(runs / RUN, step=7, loss=1.0, fresh=True)
    page = open_page(color_scheme=color_scheme, reduced_motion="reduce", viewport=PHONE)
    await_example(page)
    ask_others(page, "2 of 2 checkpoints answered; right: 1.")
    assert_accessible(page)
    assert overflow(page) == 0
    page.get_by_role("tab", name="Training").click()
    page.get_by_label("Run", exact=True).select_option(RUN)
    expect(page.locator("#puzzles-list li")).to_have_count(3)
    assert_accessible(page)
    assert overflow(page) == 0
    page.set_viewport_size({"width": 320, "height": 600})
    assert overflow(page) == 0
