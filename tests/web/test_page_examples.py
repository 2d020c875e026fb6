"""The page with nothing but the models of the package: each brings puzzles of its own."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from hrm.checkpoint import shipped_models

from .page_actions import choose, message, require_chromium, shown, think
from .serving import serve

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
