"""Fixtures of the page's tests: a server with small runs, and the page in a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from .page_actions import CHROMIUM, choose
from .serving import save_runs, serve

expect.set_options(timeout=30_000)  # the first answer waits for its model to be loaded
POLLED_SOONER = """
const inTime = window.setTimeout;
window.setTimeout = (what, ms, ...more) => inTime(what, ms === 2000 ? 150 : ms, ...more);
"""  # POLL_SECONDS of the view Training
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def runs(data_4x4, tmp_path_factory) -> Path:
    """Checkpoints' root with two runs of fresh weights: `tests/patient` never halts by itself."""
    return save_runs(tmp_path_factory.mktemp("checkpoints"), data_4x4)


@pytest.fixture(scope="module")
def url(runs, data_4x4) -> Iterator[str]:
    with serve(runs, data_4x4.parent) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def problems() -> list[str]:
    """What went wrong in the browser; a test removes what it expects by `forgive`."""
    return []


@pytest.fixture
def open_page(browser, url, problems) -> Iterator[Callable[..., Page]]:
    """Open the page; no request may leave for another host, and no console error may be left."""
    contexts = []

    def open_page(tab: str = "solve", init_script: str = "", **options) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        context.set_default_timeout(30_000)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.add_init_script(POLLED_SOONER)
        if init_script:
            context.add_init_script(init_script)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: problems.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda r: None if r.url.startswith((url, "data:")) else problems.append(r.url),
        )
        page.goto(f"{url}/#{tab}")
        if tab == "solve":
            expect(page.locator("#solve-origin")).to_contain_text("example")
            choose(page, "tests/patient")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    assert problems == []
