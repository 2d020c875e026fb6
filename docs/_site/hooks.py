"""Hooks of the documentation site, which `make docs` builds by `mkdocs.yml`.

Pages are written for the repository, where links lead to files. On the site

- a link to a file or folder beside `docs/` leads to a copy of it, a page under `repository/`;
- a line that is only a link to a section of such a file is replaced by that section;
- `<!-- the site: commands -->` and `<!-- the site: api -->` are replaced by what the code says.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

from hrm.cli import build
from hrm.cli.main import COMMANDS, find, root

ROOT = Path(__file__).parents[2]
DOCS, COPIES = PurePosixPath("docs"), PurePosixPath("repository")
CODE = re.compile(r"(^~{6}.*|^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^()\s#]+)(?=[^()\s]*\))")
SECTION = re.compile(r"^\[[^\]]*\]\(([^()\s#]+\.md)#([^()\s]+)\)$", re.MULTILINE)
WRITTEN = re.compile(r"<!-- the site: (commands|api) -->")
HEADING = re.compile(r"(#+) +(.+)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".sbatch": "sh"}
MODULES = ("hrm", "hrm.inference", "hrm.data", "hrm.tasks", "hrm.models", "hrm.optim")
FOR_PLUGINS = ("hrm.models.act.Core", "hrm.rollout.RolloutStep", "hrm.config.Config")
COLUMNS = 78  # as in a terminal of 80


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add copies of the files that pages link to."""
    waiting = {target for file in files.documentation_pages() for target in _outside(file)}
    waiting |= {PurePosixPath("CHANGELOG.md"), PurePosixPath("CONTRIBUTING.md")}
    done: set[PurePosixPath] = set()
    while waiting - done:
        path = (waiting - done).pop()
        done.add(path)
        file = File.generated(
            config, str(site_page(path)), content=copy_of(path), inclusion=InclusionLevel.NOT_IN_NAV
        )
        files.append(file)
        waiting |= _outside(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page as it stands on the site."""
    uri = page.file.src_uri
    markdown = with_sections(with_site_links(markdown, source_of(uri), uri), uri)
    return WRITTEN.sub(lambda match: {"commands": commands, "api": interface}[match[1]](), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """The theme's search says to no screen reader what it is."""
    nameless = 'data-md-component="search" role="dialog"'
    if nameless not in output:
        raise PluginError("the theme's search has changed; see on_post_page in hooks.py")
    return output.replace(nameless, f'{nameless} aria-label="Search"')


def source_of(uri: str) -> PurePosixPath:
    """Where a page of the site comes from, from the root of the repository."""
    path = PurePosixPath(uri)
    if not path.is_relative_to(COPIES):
        return DOCS / path
    path = path.relative_to(COPIES)
    return path.parent / path.stem if not (ROOT / path).exists() else path


def site_page(path: PurePosixPath) -> PurePosixPath:
    """The page of the site that shows a file or folder of the repository."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS)
    return COPIES / (path if path.suffix == ".md" else f"{path}.md")


def targets(markdown: str, source: PurePosixPath) -> Iterator[PurePosixPath]:
    """The files and folders that the links of a text lead to, from the root of the repository."""
    for prose in CODE.split(markdown)[::2]:
        for link in TARGET.findall(prose):
            yield PurePosixPath(normpath(source.parent / link))


def _outside(file: File) -> set[PurePosixPath]:
    """What a page links to beside `docs/`, also through the sections that it takes in."""
    source = source_of(file.src_uri)
    markdown = file.content_string
    found = set(targets(markdown, source))
    if source.is_relative_to(DOCS):
        found = set(targets(SECTION.sub("", markdown), source))
        for link, anchor in SECTION.findall(markdown):
            path = PurePosixPath(normpath(source.parent / link))
            found |= set(targets(section(path, anchor), path))
    return {path for path in found if not path.is_relative_to(DOCS)}


def with_site_links(markdown: str, source: PurePosixPath, uri: str) -> str:
    """A text whose links lead to pages of the site.

    Args:
        source: the file that it comes from.
        uri: the page that it stands in.
    """

    def site_link(match: re.Match[str]) -> str:
        path = PurePosixPath(normpath(source.parent / match[1]))
        return relpath(site_page(path), PurePosixPath(uri).parent)

    parts = CODE.split(markdown)
    parts[::2] = [TARGET.sub(site_link, prose) for prose in parts[::2]]
    return "".join(parts)


def with_sections(markdown: str, uri: str) -> str:
    """A page with the sections that its lines name."""

    def taken_in(match: re.Match[str]) -> str:
        path = source_of(normpath(PurePosixPath(uri).parent / match[1]))
        return with_site_links(section(path, match[2]), path, uri)

    return SECTION.sub(taken_in, markdown) if source_of(uri).is_relative_to(DOCS) else markdown


def section(path: PurePosixPath, anchor: str) -> str:
    """A section of a Markdown file with its heading.

    Raises:
        PluginError: there is none.
    """
    lines, level, fenced = [], 0, False
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if (heading := HEADING.match(line)) and not fenced:
            if level and len(heading[1]) <= level:
                break
            if not level and slugify(case="lower")(heading[2], "-") == anchor:
                level = len(heading[1])
        if level:
            lines.append(line)
    if not lines:
        raise PluginError(f"{path} has no section #{anchor}")
    return "\n".join(lines)


def copy_of(path: PurePosixPath) -> str:
    """A file or folder of the repository as Markdown.

    Raises:
        PluginError: it is not there.
    """
    here, hidden = ROOT / path, "---\nsearch: {exclude: true}\n---\n"
    if here.is_dir():
        names = sorted(c.name for c in here.iterdir() if not c.name.startswith(("__py", ".")))
        return f"{hidden}# {path}\n\n" + "".join(f"- `{name}`\n" for name in names)
    if not here.is_file():
        raise PluginError(f"a page links to {path}, which is not there")
    text = here.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return f"{hidden}# {path}\n\n~~~~~~{LANGUAGES.get(path.suffix, 'text')}\n{text}~~~~~~\n"


def commands() -> str:
    """Every command's `--help`, as a terminal of 80 columns shows it."""
    builders = {f"hrm build {name}": build.find(name) for name in build.BUILDERS}
    table: dict[str, click.Command] = {"hrm": root}
    for name in COMMANDS:
        table |= {f"hrm {name}": find(name)} | (builders if name == "build" else {})
    parts = []
    for name, command in table.items():
        settings = {**command.context_settings, "terminal_width": COLUMNS}
        shown = command.get_help(click.Context(command, info_name=name, **settings))
        parts += [f"## {name}", f"```text\n{shown.strip()}\n```"]
    return "\n\n".join(parts)


def interface() -> str:
    """The functions and classes that the packages list in their `__all__`, each once."""
    parts: list[str] = []
    shown: set[object] = set()
    for module in map(import_module, MODULES):
        listed = {name: getattr(module, name) for name in module.__all__}
        new = [n for n, value in listed.items() if callable(value) and value not in shown]
        shown |= {listed[name] for name in new}
        parts += [f"## {module.__name__}", *(f"::: {module.__name__}.{name}" for name in new)]
    return "\n\n".join([*parts, "## For plug-ins", *(f"::: {name}" for name in FOR_PLUGINS)])
