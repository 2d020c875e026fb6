"""What the documentation names is there: links, their headings, and back-ticked paths."""

import re
from pathlib import Path

import pytest

from .conftest import ROOT
from .written import BLOCK, all_blocks

PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("hrm/**/*.md")]
    if page.is_file()
)
NAMING = [page for page in PAGES if page.name != "CHANGELOG.md"]  # it also names what has gone
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
COMMAND = re.compile(r"^ *(?:\$ )?(?:hrm|python\d?|pip|make|torchrun|curl|git) ", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
FOLDERS = "hrm|tests|benchmarks|docs|launch|dataset|config"
NAMED_PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./*{{}},<>…-]*")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The headings of a page as links write them."""
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(prose(page)))
    return {title.strip().replace(" ", "-") for title in plain}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(CODE.sub("`code`", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def alternatives(path: str) -> list[str]:
    """`a/{b,c}.py` -> `a/b.py`, `a/c.py`."""
    match = re.search(r"\{([^{}]*)\}", path)
    if match is None:
        return [path]
    before, after = path[: match.start()], path[match.end() :]
    return [p for one in match[1].split(",") for p in alternatives(before + one + after)]


def missing_paths(text: str) -> list[str]:
    """Paths of this project that a text names, but for those with placeholders."""
    found = [path.rstrip(".,") for code in CODE.findall(text) for path in NAMED_PATH.findall(code)]
    paths = [one for path in found if not set("<>…") & set(path) for one in alternatives(path)]
    return [path for path in paths if not list(ROOT.glob(path))]


@pytest.mark.parametrize("name", names(PAGES))
def test_links_lead_somewhere(name):
    assert broken_links(ROOT / name) == []


@pytest.mark.parametrize("name", names(NAMING))
def test_paths_that_are_named_exist(name):
    assert missing_paths(prose(ROOT / name)) == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    links = "[a](#a-heading) [b](#gone) [c](gone.md) [d](https://x.org) `[e](f)`"
    page.write_text(f"# A heading\n{links}\n")
    assert broken_links(page) == ["#gone", "gone.md"]


def test_missing_paths_are_found():
    text = "`hrm/gone.py`, `hrm/{config,lost}.py`, `hrm/<name>/x.py`; `python benchmarks/no.py -x`"
    assert missing_paths(text) == ["hrm/gone.py", "hrm/lost.py", "benchmarks/no.py"]


RUN = [page for page in NAMING if page.parent in (ROOT, ROOT / "docs")]  # not the model cards


def unmarked_commands(text: str) -> list[str]:
    """Commands that no test sees, since they stand in no block of their language."""
    others = [block.code for block in all_blocks(text) if block.language not in ("sh", "python")]
    indented = re.findall(r"(?:^|\n\n)((?: {4}.*\n)+)", BLOCK.sub("", text))
    return COMMAND.findall("\n".join([*others, *indented]))


@pytest.mark.parametrize("name", names(RUN))
def test_commands_are_run_or_say_why_not(name):
    """tests/test_readme.py and tests/test_own_task.py run all blocks that do not say why not."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert unmarked_commands(text) == []
    reasons = [block.reason for block in all_blocks(text) if block.reason]
    assert len(re.findall("^ *<!-- not run", text, re.MULTILINE)) == len(reasons), (
        "a reason stands in the line before its block"
    )
    if (ROOT / name).name == "CONTRIBUTING.md":  # no test runs its blocks
        assert not [b for b in all_blocks(text) if b.language in ("sh", "python") and not b.reason]


def test_unmarked_commands_are_found():
    text = (
        "    hrm solve x\n\n```\n$ make test\n```\n\n```sh\nhrm train x\n```\n\n- a\n    python x\n"
    )
    assert [found.strip() for found in unmarked_commands(text)] == ["$ make", "hrm"]
