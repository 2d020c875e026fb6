"""The parts of a self-contained HTML page: tables, figures, the document and its style sheet.

Everything that is not markup made here is escaped, whatever it holds.
"""

from collections.abc import Sequence
from html import escape
from itertools import count

from hrm.viz.html_style import STYLE

RUN_COLORS = 8  # as the style sheet has them
DASHES = ("", "6 3", "2 2", "8 3 2 3", "12 3")

Cell = str | None  # None shows as a dash


def plain(text: object) -> str:
    """Text for an HTML page: escaped, and control characters written as escapes."""
    return escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)))


def run_style(run: int) -> tuple[str, str]:
    """CSS colour and SVG dashes of a run; alike only from the 41st run on."""
    return f"var(--run-{run % RUN_COLORS})", DASHES[run % len(DASHES)]


def run_name(run: int, name: str) -> str:
    """A run's name behind a sample of its line."""
    color, dashes = run_style(run)
    sample = (
        '<svg class="sample" viewBox="0 0 34 8" aria-hidden="true">'
        f'<path d="M0 4H34" stroke="{color}" stroke-dasharray="{dashes}"/></svg>'
    )
    return f'<span class="run">{sample}{plain(name)}</span>'


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], marked: bool = False
) -> str:
    """A table whose first column heads its rows; it scrolls alone where it is too wide.

    Args:
        caption: plain text.
        header: plain text, or HTML of `run_name` with `marked`.
        rows: as the header.
    """
    show = (lambda text: text) if marked else plain
    head = "".join(f'<th scope="col">{show(text)}</th>' for text in header)
    body = "".join(
        f'<tr><th scope="row">{show(first)}</th>'
        + "".join(f"<td>{'–' if cell is None else show(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{plain(caption)}"><table>'
        f"<caption>{plain(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(title: str, drawing: str, reading: str, numbers: str = "", level: int = 3) -> str:
    """A chart with its title, a sentence on how to read it, and its numbers to unfold.

    Args:
        title, reading: plain text.
        drawing, numbers: HTML.
    """
    details = f"<details><summary>The numbers</summary>{numbers}</details>" if numbers else ""
    return (
        f"<figure><h{level}>{plain(title)}</h{level}>{drawing}"
        f"<figcaption>{plain(reading)}</figcaption>{details}</figure>"
    )


def figures(parts: Sequence[str]) -> str:
    """Figures side by side, as many as fit."""
    return f'<div class="figures">{"".join(parts)}</div>'


def paragraph(text: str, kind: str = "") -> str:
    """One paragraph of plain text."""
    name = f' class="{kind}"' if kind else ""
    return f"<p{name}>{plain(text)}</p>"


def document(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page.

    Args:
        title, lead: plain text.
        sections: headings, which may be HTML of `run_name`, and contents, HTML.
    """
    numbers = count(1)
    numbered = [(f"section-{next(numbers)}", *section) for section in sections]
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in numbered)
    body = "".join(
        f'<section id="{name}"><h2>{heading}</h2>{content}</section>'
        for name, heading, content in numbered
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{plain(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{plain(title)}</h1>\n{paragraph(lead, 'lead')}\n"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n{body}\n</main>\n</body>\n</html>\n'
    )
