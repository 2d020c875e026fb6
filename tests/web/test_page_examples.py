"""The page with nothing but the models of the package: each brings puzzles of its own."""

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from hrm.checkpoint import shipped_models

from .page_actions import choose, message, require_chromium, shown, think
from .serving import serve
from .test_page_views import assert_accessible, overflow

require_chromium()


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """A server that finds neither a run nor a data set."""
    empty = tmp_path_factory.mktemp("empty")
    with serve(empty, empty, shipped=True) as address:
        yield address


def test_every_model_shows_an_example_and_solves_it(open_page):
    page = open_page("training")
    page.get_by_role("tab", name="Solve").click()
    for name in shipped_models():
        choose(page, name)
        expect(page.locator("#solve-origin")).to_have_text(
            f"example 0 of {name}, test: the right answer is known"
        )
        think(page)
        expect(message(page)).to_contain_text("solved exactly")
        example = page.get_by_role("button", name="Example from the data set")
        example.click()
        expect(page.locator("#solve-origin")).to_have_text(re.compile(r"^example (?!0 )"))


def test_the_examples_are_a_data_set(open_page):
    page = open_page("data")
    expect(page.get_by_label("Data set")).to_have_value("sudoku-9x9")
    expect(page.get_by_label("Split").locator("option")).to_have_text(["test (12)"])
    page.get_by_label("Data set").select_option("sudoku-4x4")
    page.get_by_label("Only those answered wrongly by").check()
    expect(page.locator("#wrong-message")).to_have_text("No wrong answer in 12 examples.")
    page.get_by_role("button", name="Open in Solve").click()
    expect(page.locator("#solve-origin")).to_contain_text("of sudoku-4x4, test")
    assert len(shown(page)) == 16


def test_a_look_inside_the_model(open_page):
    page = open_page("training")
    page.get_by_role("tab", name="Solve").click()
    choose(page, "sudoku-4x4")
    expect(page.locator("#solve-origin")).to_contain_text("of sudoku-4x4")
    page.get_by_text("Inside the model").click()
    expect(page.locator("#inside-message")).to_contain_text("Press Think")
    think(page)
    taken = int(page.locator("#player-step").get_attribute("max"))
    expect(page.locator("#inside-table tr")).to_have_count(taken)
    paths = page.locator("#inside-paths svg")
    expect(paths).to_have_count(2)
    expect(paths.first).to_have_attribute("aria-label", re.compile(f"^z_H: {taken} steps"))
    expect(page.locator("#inside-paths circle")).to_have_count(2 * (taken + 1))
    most = page.locator("#inside-most")
    expect(most).to_have_text(re.compile(r"^Row 1, column 1 attends most to row \d"))
    page.locator("#inside-row").fill("3")
    page.locator("#inside-row").press("Enter")
    expect(most).to_have_text(re.compile("^Row 3, column 1 attends most to"))
    page.locator(".heat").nth(7).click()
    expect(most).to_have_text(re.compile("^Row 2, column 4 attends most to"))
    mean = most.text_content()
    page.locator("#inside-head").select_option("0")
    assert most.text_content() != mean
    assert_accessible(page)
    page.set_viewport_size({"width": 320, "height": 600})
    assert overflow(page) == 0
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#inside-body")).to_be_hidden()


def test_a_cell_that_is_not_there_is_refused(url):
    asked = {"checkpoint": "sudoku-4x4", "puzzle": "." * 16, "steps": 1}
    answer = httpx.post(f"{url}/api/inside", json=asked | {"cell": 16}, timeout=60)
    assert answer.status_code == 422
    assert answer.json()["error"] == "cell=16: the puzzle has 16 cells"
