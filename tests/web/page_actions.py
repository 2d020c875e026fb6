"""What a user does on the page, and what is then to be seen; under the page's tests."""

import os
import re
import shutil
from collections.abc import Mapping

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from hrm.tasks import Task
from hrm.web.schemas import ReadPuzzle

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ENDED = re.compile("^(Halted|Ended) after")


def require_chromium() -> None:
    """Skip the test module that is being imported where there is no browser; with CI set, fail."""
    if CHROMIUM is None:
        reason = "no Chromium found: install the package chromium to run the page's tests"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)


def forgive(problems: list[str], text: str) -> None:
    """Take out console messages that a refused request leaves; there must be one."""
    assert [p for p in problems if text in p]
    problems[:] = [p for p in problems if text not in p]


def cell(page: Page, row: int, column: int) -> Locator:
    return page.get_by_role("textbox", name=re.compile(rf"^Row {row}, column {column}\b"))


def shown(page: Page) -> str:
    """The grid's symbols, '.' for an empty cell."""
    inputs = page.locator("#solve-grid input").all()
    return "".join(one.input_value() or "." for one in inputs)


def message(page: Page) -> Locator:
    return page.locator("#solve-message")


def think(page: Page) -> None:
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_have_text(ENDED)


def choose(page: Page, checkpoint: str) -> None:
    page.get_by_label("Checkpoint", exact=True).select_option(checkpoint)


def paste(page: Page, text: str) -> None:
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.keyboard.press("Control+V")


def answer_reading(page: Page, tasks: Mapping[str, Task]) -> None:
    """Let the server read puzzles for checkpoints, by name, that it does not have."""

    def read(route: Route) -> None:
        asked = route.request.post_data_json
        read = ReadPuzzle.of(asked["text"], tasks[asked["checkpoint"]])
        route.fulfill(json=read.model_dump())

    page.route("**/api/read", read)


def clear(page: Page) -> None:
    page.get_by_role("button", name="Clear").click()
    assert shown(page) == "." * 16
