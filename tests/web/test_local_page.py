"""The page without a server in a real browser: the model runs there, on any host of files."""

import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from hrm import pretrained
from hrm.errors import UserError
from hrm.web.runtime import runtime_files

from ..exporting import PUZZLE
from .page_actions import cell, message, require_chromium, shown
from .test_page_views import overflow

require_chromium()

LARGEST = 15e6  # bytes
OPEN = "." * 81
SAME_CHANCE = """
let drawn = 1;
Math.random = () => (drawn = (drawn * 48271) % 2147483647) / 2147483647;
"""  # in every run: not all start states lead to the solution


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(exported, tmp_path_factory) -> Path:
    """The exported page with the real runtime, below the root of a host."""
    try:
        runtime = runtime_files()
    except UserError as error:
        pytest.skip(f"the runtime cannot be had: {error}")
    root = tmp_path_factory.mktemp("host")
    shutil.copytree(exported.folder / "page", root / "demo")
    for name, content in runtime.items():
        (root / "demo/runtime" / name).write_bytes(content)
    return root / "demo"


@pytest.fixture(scope="module")
def url(folder) -> Iterator[str]:
    """As of `python -m http.server`; `open_page` refuses requests to anywhere else."""
    handler = partial(Quiet, directory=folder.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/demo"
        server.shutdown()


# Of which the model is sure at once, so that int8 changes no probability much.
EASY = ".7.42961...9..3...4....8.732.87.43...4793..853.....7.9.21.46857....8.1...56.974.."


@pytest.fixture
def open_local(open_page):
    def open_local(puzzle: str = PUZZLE, **options) -> Page:
        page = open_page("", **options)
        expect(page.locator("#solve-origin")).to_contain_text("of the data set, test")
        if puzzle == OPEN:
            page.get_by_role("button", name="Clear").click()
        else:
            page.get_by_text("Puzzle as text").click()
            page.locator("#solve-text").fill(puzzle)
            page.get_by_text("Puzzle as text").click()
        expect(page.locator("#solve-origin")).to_be_empty()
        return page

    return open_local


def tell(page: Page, text: str) -> None:
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_contain_text(re.compile(text))


def test_a_puzzle_is_solved_by_keyboard_as_by_the_solver(open_local, folder):
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < LARGEST
    page = open_local(OPEN)
    [solution] = pretrained("sudoku-9x9", "cpu").solve([EASY], trace=True)
    cell(page, 1, 1).focus()
    for row in range(9):
        for symbol in EASY[9 * row : 9 * row + 9]:
            page.keyboard.press("Delete" if symbol == "." else symbol)
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowDown")
    assert shown(page) == EASY
    began = time.perf_counter()
    page.keyboard.press("Enter")
    expect(message(page)).to_have_text(f"Halted after {solution.steps} step: a valid solution.")
    print(f"{size / 1e6:.1f} MB; solved in {time.perf_counter() - began:.2f} s")
    assert shown(page) == solution.answer
    rows = page.locator("#player-table tr").all()
    halts = [float(row.locator("td").first.text_content().rstrip("%")) / 100 for row in rows]
    assert halts == pytest.approx(solution.trace.halt_probability.tolist(), abs=0.03)  # int8


def test_all_ways_to_try_again(open_local):
    page = open_local(init_script=SAME_CHANCE)
    page.get_by_label("Votes").fill("3")
    page.get_by_label("Restarts").fill("1")
    page.get_by_label("Rollouts").fill("2")
    page.get_by_label("Noise").fill("0.5")
    page.get_by_label("Answer that counts").select_option("q_halt")
    tell(page, r"^Halted after \d+ steps in attempt \d of 5, .*: a valid solution")
    told = page.locator("#player-attempt option").all_text_contents()
    assert len(told) == 5 and all(": valid" in text for text in told), told
    halts = []
    for number in range(5):
        page.get_by_label("Attempt shown").select_option(index=number)
        halts.append(tuple(page.locator("#player-table td").all_text_contents()))
    first, _, _, restarted, noisy = halts  # the versions may be alike to this model
    assert len({first, restarted, noisy}) == 3
    assert noisy[0] == first[0] != restarted[0]  # noise comes after the first step
    page.get_by_label("Answer that counts").select_option("valid")
    tell(page, r"^Halted after 3 steps in attempt 1 of 5")
    assert page.locator("#player-attempt option").count() == 1


def test_thinking_is_stopped_and_goes_on(open_local):
    page = open_local()
    page.get_by_label("Halting").select_option("max_steps")
    page.get_by_label("At most steps").fill("256")
    page.get_by_role("button", name="Think").click()
    expect(page.locator("#player-status")).to_contain_text("step")
    page.get_by_role("button", name="Stop").click()
    expect(message(page)).to_have_text(re.compile(r"^Stopped after \d+ steps?\."))
    page.get_by_label("At most steps").fill("2")
    tell(page, "^Ended after 2 steps")
    page.get_by_role("button", name="Continue for 8 more steps").click()
    expect(message(page)).to_contain_text("Ended after 10 steps: a valid solution")


def test_what_is_no_puzzle_is_said(open_local):
    page = open_local()
    page.get_by_text("Puzzle as text").click()
    page.locator("#solve-text").fill("12x")
    error = page.locator("#solve-text-error")
    expect(error).to_have_text("character 'x' is not one of '.123456789'.")
    page.locator("#solve-text").fill("123")
    expect(error).to_have_text("3 characters, expected 81 (9x9).")
    page.locator("#solve-text").fill("11" + "." * 79)
    expect(message(page)).to_have_text("The marked cells contradict one another: 1.")
    tell(page, "the puzzle contradicts itself")


def test_spaces_of_a_maze_are_cells(open_local):
    page = open_local()
    look = {"symbols": "_# SGo", "grid_shape": [3, 3], "rules": {"aliases": {}}}
    page.route("**/model/page.json", lambda route: route.fulfill(json={"checkpoint": look}))
    read = """async (text) => {
        const { send } = await import("./static/transport.js?maze");
        return (await send("/api/read", { body: JSON.stringify({ text }) })).json();
    }"""
    assert page.evaluate(read, "S #\n  #\n#G \n") == {"puzzle": "S #  ##G ", "note": None}


def test_an_example_is_judged_by_its_answer(open_local):
    page = open_local()
    page.get_by_role("button", name="Example from the data set").click()
    expect(page.locator("#solve-origin")).to_contain_text("the right answer is known")
    tell(page, "solved exactly|cells wrong")


def test_a_link_shows_the_same_again(open_local):
    page = open_local()
    for panel in ("inside", "others"):
        expect(page.locator(f"#{panel}")).to_be_hidden()
    tell(page, "a valid solution")
    page.get_by_role("button", name="Copy link").click()
    answer, link = shown(page), page.url
    assert f"puzzle={PUZZLE}" in link
    page.goto("about:blank")
    page.goto(link)
    expect(message(page)).to_contain_text("a valid solution")
    assert shown(page) == answer


def test_axe_finds_nothing_and_a_phone_shows_all(open_local):
    still = {"reduced_motion": "reduce"}  # colours between two themes have less contrast
    page = open_local(color_scheme="dark", viewport={"width": 375, "height": 800}, **still)
    tell(page, "^Halted after 3 steps")
    theme = page.get_by_role("button", name="Dark theme")
    for is_dark in (True, False):
        expect(theme).to_have_attribute("aria-pressed", str(is_dark).lower())
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        theme.click()
    assert overflow(page) == 0
    assert page.get_by_role("tab").count() == 0


def test_a_model_that_is_not_there_is_said(open_page, folder, problems):
    model = folder / "model/model.onnx"
    moved = model.rename(model.with_suffix(".moved"))
    try:
        page = open_page("")
        page.get_by_role("button", name="Clear").click()
        page.get_by_role("button", name="Think").click()
        expect(message(page)).to_contain_text("The model could not be run in this browser.")
    finally:
        moved.rename(model)
    problems.clear()  # the request that failed
