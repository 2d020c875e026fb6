"""The documentation site: built strictly, whole in itself, and read in a browser."""

import functools
import os
import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from mkdocs.exceptions import PluginError
from playwright.sync_api import Browser, Page, expect

import hrm
from hrm.cli.build import BUILDERS
from hrm.cli.main import COMMANDS

from .conftest import ROOT
from .web.conftest import browser  # noqa: F401

HOOKS = ROOT / "docs" / "_site" / "hooks.py"
DRAWING = ROOT / "docs" / "_site" / "thinking.py"
PICTURE = ROOT / "docs" / "thinking.svg"
LARGEST_PICTURE = 500_000  # bytes
REFERENCE = re.compile(r'(?:href|src)="([^"]+)"')
FETCHED = re.compile(r'<(?:script|link|img|iframe)[^>]*(?:href|src)="(?:https?:)?//')


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """Of a server of static files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:  # noqa: F811
    """A page whose requests to other places are refused, and fail the test as any error does."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    found = context.new_page()
    problems: list[str] = []
    found.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else 0)
    found.on("pageerror", lambda error: problems.append(str(error)))

    def answer(route) -> None:
        if route.request.url.startswith(("http://127.0.0.1:", "file:", "data:", "about:")):
            return route.continue_()
        problems.append(route.request.url)
        route.abort()

    context.route("**/*", answer)
    yield found
    context.close()
    assert problems == []


def test_every_reference_is_there_and_nothing_is_fetched_from_elsewhere(site):
    missing = []
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not FETCHED.search(text), path
        for link in REFERENCE.findall(text):
            target = unquote(link.partition("#")[0])
            is_here = target and not re.match(r"[a-z]+:", target) and path.name != "404.html"
            if is_here and not (path.parent / target).exists():
                missing.append(f"{path.relative_to(site)}: {link}")
    assert missing == []


def test_the_reference_is_complete(site):
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for name in [*COMMANDS, *(f"build {name}" for name in BUILDERS)]:
        assert f'id="hrm-{name.replace(" ", "-")}"' in commands
    assert "--halt-probability X" in commands
    interface = (site / "api.html").read_text(encoding="utf-8")
    names = [f"hrm.{name}" for name in hrm.__all__ if name not in hrm.SUBMODULES]
    for name in [*names, "hrm.Solver.solve", "hrm.data.DatasetWriter.add", "hrm.tasks.Task.units"]:
        assert f'id="{name}"' in interface, name
    assert "probability of each cell's token" in interface  # a comment behind a field


def test_sections_and_files_are_taken_in_as_they_are(site):
    start = (site / "start.html").read_text(encoding="utf-8")
    assert 'id="quickstart"' in start and 'id="train-on-a-cpu"' in start
    assert 'id="measured"' not in start
    results = (site / "results.html").read_text(encoding="utf-8")
    assert 'href="performance.html"' in results  # README says docs/performance.md
    assert (site / "repository" / "hrm" / "models" / "act.py.html").is_file()


def test_a_section_or_file_that_has_gone_stops_the_build():
    hooks = runpy.run_path(str(HOOKS))
    readme = PurePosixPath("README.md")
    assert hooks["section"](readme, "measured").startswith("## Measured\n")
    with pytest.raises(PluginError, match="README.md has no section #gone"):
        hooks["section"](readme, "gone")
    with pytest.raises(PluginError, match="hrm/gone.py, which is not there"):
        hooks["copy_of"](PurePosixPath("hrm/gone.py"))


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search_finds_pages(site, address, page, scheme):
    page.goto(f"{address}/index.html" if scheme == "http" else (site / "index.html").as_uri())
    picture = page.locator("img[src='thinking.svg']")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    field = page.locator("input.md-search__input")
    field.focus()
    expect(page.locator(".md-search-result__meta")).to_have_text("Type to start searching")
    # It listens to keys, which `fill` does not press; slowly, to ask beginnings, too.
    field.press_sequentially("voting rollouts", delay=60)
    result = page.locator(".md-search-result__link").filter(has_text="Solving").first
    expect(result).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_title("Dark").first.click()
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")


def test_pages_fit_a_phone(address, page):
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("index", "solving", "configuration", "api"):
        page.goto(f"{address}/{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


@pytest.mark.parametrize(
    "color_scheme, names",
    [
        ("light", ("index", "start", "solving", "configuration", "api")),
        ("dark", ("index", "start")),
    ],
)
def test_axe_finds_no_violation(address, page, color_scheme, names):
    page.emulate_media(color_scheme=color_scheme)
    for name in names:
        page.goto(f"{address}/{name}.html")
        found = {violation["id"]: violation for violation in Axe().run(page).response["violations"]}
        found.pop("landmark-unique", None)  # the theme's buttons to copy code, one per block
        assert not found, (name, found)


def test_the_picture_shows_what_the_model_thinks():
    drawing = runpy.run_path(str(DRAWING))
    drawn = drawing["draw"](drawing["model"](), drawing["PUZZLE"], drawing["calls"]())
    shown = PICTURE.read_text(encoding="utf-8")
    assert len(shown) < LARGEST_PICTURE
    assert words(shown) == words(drawn), f"run: python {DRAWING} {PICTURE}"


def words(picture: str) -> list[str]:
    """Titles, digits and percentages of the first steps; later ones differ from CPU to CPU."""
    assert picture.count('id="f3"') == 1
    return re.findall(r"<text[^>]*>([^<]*)<", picture.partition('id="f3"')[0])
