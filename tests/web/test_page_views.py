"""The views Data and Training, the page on a phone and in the dark, axe, and pictures of it all."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, Route, expect

from .page_actions import ENDED, cell, clear, forgive, message, require_chromium, shown, think
from .serving import append_metrics, serve

require_chromium()

PHONE = {"width": 360, "height": 740}
TABS = ("solve", "data", "training")


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than the window."""
    root = "document.documentElement"
    return page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")


def test_data_examples_versions_and_opening(open_page, url):
    page = open_page("data")
    number = page.get_by_label("Example", exact=True)
    expect(page.locator("#data-version")).to_contain_text("no augmented versions")
    page.get_by_role("button", name="Next puzzle").click()
    expect(number).to_have_value("1")
    page.get_by_role("button", name="Previous puzzle").click()
    expect(number).to_have_value("0")

    page.get_by_label("Split").select_option("train")
    expect(page.locator("#data-version")).to_have_text("Version 1 of 11")
    page.get_by_role("button", name="Next version").click()
    expect(page.locator("#data-version")).to_have_text("Version 2 of 11")
    page.get_by_role("button", name="Next puzzle").click()
    expect(number).to_have_value("11")
    page.get_by_role("button", name="Previous puzzle").click()
    expect(number).to_have_value("0")
    number.fill("17")
    number.press("Enter")
    expect(page.locator("#data-version")).to_have_text("Version 7 of 11")
    puzzle = "".join(
        page.locator("#data-puzzle td").evaluate_all("a => a.map(e => e.textContent || '.')")
    )
    data = page.get_by_label("Data set").input_value()
    example = page.request.get(f"{url}/api/example?data={data}&split=train&index=17").json()
    assert puzzle == example["puzzle"]

    page.get_by_role("button", name="Open in Solve").click()
    expect(page.locator("#solve-origin")).to_contain_text("example 17 of")
    assert shown(page) == puzzle


def test_nothing_is_offered_before_there_is_something_to_use_it_on(open_page):
    """What was ticked or clicked while the data sets were being listed asked for none of them."""
    page = open_page("training")
    held, is_listed = [], False

    def list_later(route: Route) -> None:
        if is_listed:
            route.continue_()
        else:
            held.append(route)

    page.route("**/api/datasets", list_later)
    page.reload()
    page.get_by_role("tab", name="Data").click()
    box = page.get_by_label("Only those answered wrongly by")
    number = page.get_by_label("Example", exact=True)
    expect(box).to_be_disabled()
    expect(number).to_be_disabled()
    for name in ("previous", "next", "version-previous", "version-next", "open"):
        # Not by the mouse, which waits, nor only those that are visible.
        page.locator(f"#data-{name}").evaluate("button => button.click()")
    page.get_by_role("tab", name="Solve").click()
    expect(page.get_by_role("button", name="Think")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("tab", name="Data").click()
    is_listed = True
    for route in held:
        route.continue_()
    expect(box).to_be_enabled()
    expect(number).to_be_enabled()
    page.get_by_role("button", name="Next puzzle").click()
    expect(number).to_have_value("1")

    def open_too_early(route: Route) -> None:
        page.locator("#data-open").evaluate("button => button.click()")
        route.continue_()

    page.route("**/api/example*", open_too_early)
    page.get_by_label("Split").select_option("train")
    expect(page.locator("#data-version")).to_have_text("Version 1 of 11")
    expect(page.get_by_role("tabpanel", name="Data")).to_be_visible()


def test_data_refuses_an_example_that_is_not_there(open_page, problems):
    page = open_page("data")
    expect(page.locator("#data-version")).not_to_be_empty()
    page.get_by_label("Example", exact=True).fill("4000")
    page.get_by_label("Example", exact=True).press("Enter")
    expect(page.locator("#data-message")).to_have_attribute("data-kind", "error")
    expect(page.locator("#data-message")).not_to_be_empty()
    forgive(problems, "status of 4")


def test_only_wrongly_answered_examples(open_page):
    page = open_page("data")
    expect(page.locator("#data-version")).not_to_be_empty()
    parts = [
        {"wrong": [3, 9], "checked": 32, "examples": 40},
        {"wrong": [33], "checked": 8, "examples": 40},
    ]
    bodies = []

    def check(route: Route) -> None:
        bodies.append(route.request.post_data_json)
        route.fulfill(json=parts[len(bodies) - 1])

    page.route("**/api/check", check)
    page.get_by_label("Only those answered wrongly by").check()
    expect(page.locator("#wrong-message")).to_have_text("3 wrong answers in 40 examples.")
    assert [body["start"] for body in bodies] == [0, 32]
    number = page.get_by_label("Example", exact=True)
    expect(number).to_have_value("3")
    for expected in ("9", "33"):
        page.get_by_role("button", name="Next puzzle").click()
        expect(number).to_have_value(expected)
    expect(page.get_by_role("button", name="Next puzzle")).to_have_attribute(
        "aria-disabled", "true"
    )
    page.get_by_role("button", name="Previous puzzle").click()
    expect(number).to_have_value("9")
    page.get_by_label("Only those answered wrongly by").uncheck()
    page.get_by_role("button", name="Next puzzle").click()
    expect(number).to_have_value("10")


def test_fresh_weights_answer_every_example_wrongly(open_page):
    page = open_page("data")
    page.get_by_label("Only those answered wrongly by").check()
    expect(page.locator("#wrong-count")).to_have_text("40 wrong of 40 checked (100.0%)")


def test_looking_for_wrong_answers_waits_for_a_busy_server_and_stops(open_page, problems):
    page = open_page("data")
    expect(page.locator("#data-version")).not_to_be_empty()
    busy = {"status": 429, "headers": {"Retry-After": "1"}, "json": {"error": "busy"}}
    slow = {"status": 503, "json": {"error": "the time for this request is over"}}
    answers = [busy, slow, slow, {"json": {"wrong": [3, 9], "checked": 32, "examples": 40}}]
    asked = []

    def answer(route):
        asked.append(route.request.post_data_json["count"])
        if answers:  # the last request is never answered
            route.fulfill(**answers.pop(0))

    page.route("**/api/check", answer)
    page.get_by_label("Only those answered wrongly by").check()
    expect(page.locator("#wrong-count")).to_have_text("2 wrong of 32 checked (6.3%)")
    while len(asked) < 5:
        page.wait_for_timeout(20)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#wrong-message")).to_have_text("Stopped; 2 wrong answers so far.")
    assert asked == [32, 32, 16, 8, 8], "one that takes too long is asked for less"
    forgive(problems, "429")
    forgive(problems, "503")


def test_training_shows_curves_and_follows_the_run(open_page, runs):
    append_metrics(runs / "tests/eager", step=10, loss=1.5, fresh=True)
    append_metrics(runs / "tests/eager", step=20, loss=1.25)
    page = open_page("training")
    names = page.get_by_label("Run").locator("option")
    expect(names).to_have_text(["tests/begun", "tests/eager (7 steps)", "tests/patient (7 steps)"])
    page.get_by_label("Run").select_option("tests/eager")
    row = page.get_by_role("row", name=re.compile("^lm_loss"))
    expect(row).to_have_text("lm_loss1.251.35")
    curves = page.locator("#chart-loss polyline")
    expect(curves).to_have_count(2)
    append_metrics(runs / "tests/eager", step=30, loss=0.875)
    expect(row).to_have_text("lm_loss0.8750.975")

    chart = page.get_by_role("slider", name=re.compile("^Loss"))
    chart.focus()
    expect(page.locator("#chart-loss .chart-tip")).to_have_text(
        "step 30 · train 0.875 · eval 0.975"
    )
    page.keyboard.press("ArrowLeft")
    expect(chart).to_have_attribute("aria-valuetext", "step 20 · train 1.25 · eval 1.35")
    page.get_by_label("Loss on a logarithmic scale").check()
    expect(curves).to_have_count(2)

    append_metrics(runs / "tests/eager", step=5, loss=2, fresh=True)  # the run began anew
    expect(row).to_have_text("lm_loss22.1")

    replacing = runs / "elsewhere"
    replacing.mkdir()
    append_metrics(replacing, step=1, loss=9, fresh=True)
    for step in range(2, 20):  # by now it is longer than the one before
        append_metrics(replacing, step=step, loss=9)
    (replacing / "metrics.jsonl").replace(runs / "tests/eager/metrics.jsonl")
    expect(row).to_have_text("lm_loss99.1")
    page.get_by_role("slider", name=re.compile("^Loss")).focus()
    page.keyboard.press("Home")
    expect(page.locator("#chart-loss .chart-tip")).to_have_text("step 1 · train 9 · eval 9.1")


def test_another_run_is_chosen_on_a_logarithmic_scale(open_page, runs):
    for name, loss in (("begun", 3), ("patient", 1)):
        append_metrics(runs / "tests" / name, step=7, loss=loss, fresh=True)
    page = open_page("training")
    row = page.get_by_role("row", name=re.compile("^lm_loss"))
    expect(row).to_have_text("lm_loss33.1")
    page.get_by_label("Loss on a logarithmic scale").check()
    page.get_by_label("Run").select_option("tests/patient")  # nothing is known of it at first
    expect(row).to_have_text("lm_loss11.1")
    expect(page.locator("#chart-loss polyline")).to_have_count(2)


def test_long_runs_are_thinned_out(open_page):
    records = [{"step": step, "train/lm_loss": 2 + step % 7} for step in range(100_000)]
    page = open_page("data")
    answers = [{"records": records, "next": 9, "file": "1", "reset": False}]
    rest = {"records": [], "next": 9, "file": "1", "reset": False}
    page.route(
        "**/api/metrics*", lambda route: route.fulfill(json=answers.pop() if answers else rest)
    )
    page.get_by_role("tab", name="Training").click()
    line = page.locator("#chart-loss polyline")
    expect(line).to_have_count(1)
    points = line.get_attribute("points").split()
    assert 50 < len(points) < 500
    expect(page.locator("#chart-loss polygon")).to_have_count(1)


COUNT_LISTENERS = """async () => {
  const { sleep } = await import("/static/api.js");
  const heard = new Set();
  const signal = {
    addEventListener: (_, listener) => heard.add(listener),
    removeEventListener: (_, listener) => heard.delete(listener),
  };
  const waiting = sleep(0.01, signal);
  const meanwhile = heard.size;
  await waiting;
  return [meanwhile, heard.size];
}"""


def test_who_has_waited_no_longer_listens(open_page):
    """A view that is followed waits thousands of times with one signal."""
    assert open_page("data").evaluate(COUNT_LISTENERS) == [1, 0]


@pytest.mark.parametrize("tab", TABS)
def test_phone(open_page, tab):
    page = open_page(tab, viewport=PHONE, has_touch=True, is_mobile=True)
    if tab == "solve":
        expect(page.locator("#solve-grid input").first).to_have_attribute("inputmode", "numeric")
        page.get_by_label("Votes").fill("3")
        page.get_by_role("button", name="Think").tap()
        expect(message(page)).to_have_text(ENDED)
        expect(page.get_by_label("Attempt shown")).to_be_visible()
    if tab == "data":
        expect(page.locator("#data-answer td")).to_have_count(16)
    if tab == "training":
        expect(page.locator("#chart-loss polyline").first).to_be_attached()
    assert overflow(page) == 0
    page.set_viewport_size({"width": 320, "height": 600})
    assert overflow(page) == 0


def test_the_theme_follows_the_system_and_is_remembered(open_page):
    page = open_page(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    toggle = page.get_by_role("button", name="Dark theme")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    toggle.click()
    light = page.evaluate(background)
    assert light != dark
    expect(toggle).to_have_attribute("aria-pressed", "false")
    page.reload()
    expect(toggle).to_have_attribute("aria-pressed", "false")
    assert page.evaluate(background) == light


def test_tabs_by_keyboard_and_by_address(open_page):
    page = open_page("data")
    expect(page.get_by_role("tabpanel", name="Data")).to_be_visible()
    page.get_by_role("tab", name="Data").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Training")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Training")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tabpanel", name="Solve")).to_be_visible()
    assert "#solve" in page.url
    page.evaluate("location.hash = 'training'")
    expect(page.get_by_role("tab", name="Training")).to_have_attribute("aria-selected", "true")


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_no_violation(open_page, color_scheme):
    page = open_page(color_scheme=color_scheme, reduced_motion="reduce")
    assert_accessible(page)
    page.get_by_label("Votes").fill("3")
    think(page)
    expect(page.get_by_label("Attempt shown")).to_be_visible()
    expect(page.get_by_role("list", name="Other ways to ask")).to_be_visible()
    page.get_by_text("Puzzle as text").click()
    page.get_by_role("slider", name="ACT step").focus()
    page.keyboard.press("ArrowLeft")
    assert_accessible(page)
    clear(page)
    for column in (1, 2):
        cell(page, 1, column).fill("1")
    expect(message(page)).to_have_attribute("data-kind", "error")
    assert_accessible(page)
    page.get_by_role("tab", name="Data").click()
    expect(page.locator("#data-version")).not_to_be_empty()
    page.get_by_label("Only those answered wrongly by").check()
    expect(page.locator("#wrong-message")).to_contain_text("wrong answers in 40")
    assert_accessible(page)
    page.get_by_role("tab", name="Training").click()
    expect(page.locator("#chart-loss polyline").first).to_be_attached()
    assert_accessible(page)


def assert_accessible(page: Page) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@pytest.fixture
def trained_url() -> Iterator[str]:
    names = ("HRM_SCREENSHOT_CHECKPOINTS", "HRM_SCREENSHOT_DATA")
    if not all(os.environ.get(name) for name in ("HRM_SCREENSHOTS", *names)):
        pytest.skip(f"pictures are only drawn with HRM_SCREENSHOTS, {' and '.join(names)}")
    with serve(*(Path(os.environ[name]) for name in names), shipped=True) as address:
        yield address


def test_screenshots(browser, trained_url):
    folder = Path(os.environ["HRM_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, viewport, color_scheme in (
        ("page_solve", {"width": 1200, "height": 1040}, "light"),
        ("page_dark", {"width": 390, "height": 844}, "dark"),
    ):
        look = {"viewport": viewport, "color_scheme": color_scheme, "device_scale_factor": 2}
        page = browser.new_page(**look, reduced_motion="reduce")
        page.goto(trained_url)
        choose_largest(page, "#solve-checkpoint")
        think_long(page)
        if name == "page_solve":
            page.get_by_text("Inside the model").click()
            expect(page.locator("#inside-most")).not_to_be_empty()
            page.evaluate("document.activeElement.blur()")
        page.screenshot(path=folder / f"{name}.png")
        if name == "page_solve":
            page.get_by_role("tab", name="Data").click()
            choose_largest(page, "#data-set")
            page.locator("#data-split").select_option("train")
            page.get_by_role("button", name="Next version").click()
            expect(page.locator("#data-version")).to_contain_text("Version 2")
            page.screenshot(path=folder / "page_data.png")
            page.get_by_role("tab", name="Training").click()
            choose_largest(page, "#training-run")
            expect(page.locator("#chart-loss polyline").first).to_be_attached()
            expect(page.locator("#puzzles-list li").first).to_be_visible()
            page.set_viewport_size({"width": 1200, "height": 1540})
            page.locator("#chart-accuracy .plot").hover()
            page.screenshot(path=folder / "page_training.png")
        page.close()
    for path in folder.glob("page_*.png"):
        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(256)
        small.save(path, optimize=True)


def choose_largest(page: Page, select: str) -> None:
    """The first entry for 9x9 grids, else for 6x6."""
    expect(page.locator(f"{select} option").first).to_be_attached()
    values = page.locator(f"{select} option").evaluate_all("a => a.map(e => e.value)")
    found = [value for size in ("9x9", "6x6") for value in values if size in value]
    page.locator(select).select_option(found[0])


def think_long(page: Page, tries: int = 20) -> None:
    """Think about examples until one took a few steps, and show the middle one."""
    for _ in range(tries):
        page.get_by_role("button", name="Example from the data set").click()
        expect(page.locator("#solve-origin")).to_contain_text("example")
        page.get_by_role("button", name="Think").click()
        expect(message(page)).to_have_text(ENDED, timeout=60_000)
        steps = int(page.locator("#player-step").get_attribute("max"))
        if steps >= 4 and "exactly" in message(page).text_content():
            break
    page.locator("#player-step").fill(str(max(2, steps // 2)))
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.evaluate("scrollTo(0, 0)")
