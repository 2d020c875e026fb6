"""Charts of a report as SVG, to stand inside an HTML page.

Text stays text, and colours are CSS variables of the page (`hrm.viz.html`), so that a chart is
right in light, in dark and on paper. Equal data give equal bytes.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hrm.viz.charts import FEW_POINTS, thinned
from hrm.viz.html import DASHES, RUN_COLORS, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn as these colours, written as the page's variables.
INK, FAINT, RULE, RIGHT, WRONG = "#010101", "#010102", "#010103", "#010104", "#010105"
NAMES = {INK: "ink", FAINT: "faint", RULE: "rule", RIGHT: "right", WRONG: "wrong"}
NAMES |= {f"#0102{n:02x}": f"run-{n}" for n in range(RUN_COLORS)}


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    run: int  # its place among the runs; gives colour and dashes
    x: Sequence[float]
    y: Sequence[float]
    main: bool = True  # drawn strongly, with marks where there are few points


def line_chart(
    series: Sequence[Series],
    alt: str,
    x_label: str,
    percent: bool = False,
    log: bool = False,
) -> str:
    """Lines over a common axis; points that are not finite are left out.

    Args:
        alt: what is read out where the chart is not seen.
        percent: y is a share in 0..1.
        log: y on a logarithmic scale, where all of it is above 0.
    """
    figure, [axes] = _figure()
    values = [v for s in series for v in s.y if math.isfinite(v)]
    for s in sorted(series, key=lambda s: s.main):
        _line(axes, s)
    axes.set_xlabel(x_label)
    if percent:
        _percent(axes)
    elif log and values and min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    elif values:
        axes.set_ylim(0, 1.08 * max(*values, 1e-9)) if min(values) >= 0 else None
    return _svg(figure, alt)


def path_chart(paths: Sequence[Series], alt: str, x_label: str, y_label: str) -> str:
    """Ways through a plane: where each begins is an open mark, where it ends a large one."""
    figure, [axes] = _figure()
    for path in paths:
        color = _run_color(path.run)
        style: dict[str, Any] = {"color": color, "markeredgecolor": color, "linestyle": ""}
        axes.plot(path.x, path.y, color=color, marker="o", markersize=3, linewidth=1.2)
        axes.plot(path.x[:1], path.y[:1], marker="o", markerfacecolor="none", markersize=9, **style)
        axes.plot(path.x[-1:], path.y[-1:], marker="o", markersize=9, **style)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return _svg(figure, alt)


def rate_chart(
    labels: Sequence[str],
    rates: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    totals: Sequence[int],
    alt: str,
    x_label: str,
    run: int = 0,
) -> str:
    """Shares with their intervals, one per group, the group's size below its name."""
    figure, [axes] = _figure()
    x = np.arange(len(labels))
    spread = np.abs(np.array(intervals).T - np.array(rates))
    style: dict[str, Any] = {"fmt": "o", "markersize": 5, "capsize": 3, "linewidth": 1.5}
    axes.errorbar(x, rates, yerr=spread, color=_run_color(run), **style)
    names = [f"{label}\nn={total:,}" for label, total in zip(labels, totals, strict=True)]
    crowded = len(labels) > 6
    axes.set_xticks(x, names, rotation=50 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_xlabel(x_label)
    _percent(axes)
    return _svg(figure, alt)


def histogram_chart(right: np.ndarray, wrong: np.ndarray, alt: str, x_label: str) -> str:
    """Counts at 1, 2, …, right answers below wrong ones.

    Args:
        right, wrong: [bars] integers.
    """
    figure, [axes] = _figure()
    x = np.arange(1, len(right) + 1)
    axes.bar(x, right, color=RIGHT, label="right")
    if (some := wrong > 0).any():  # a bar of no height would still show its edge
        style: dict[str, Any] = {"color": "none", "edgecolor": WRONG, "hatch": "////"}
        axes.bar(x[some], wrong[some], bottom=right[some], label="wrong", **style)
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    axes.set_xlabel(x_label)
    axes.set_ylabel("puzzles")
    axes.locator_params(axis="both", integer=True)
    axes.set_xlim(0.4, len(right) + 0.6)
    return _svg(figure, alt)


def reliability_chart(
    probability: np.ndarray,
    accuracy: np.ndarray,
    intervals: tuple[np.ndarray, np.ndarray],
    counts: np.ndarray,
    alt: str,
    run: int = 0,
) -> str:
    """Probability against accuracy, and below how many answers each bin holds.

    Args:
        probability, accuracy, counts: [bins]; bins of equal width over 0..1, NaN where empty.
        intervals: lower and upper end of the accuracy, [bins] each.
    """
    figure, (axes, below) = _figure(heights=(3, 1))
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle=(0, (4, 3)), linewidth=1)
    spread = np.abs(np.stack(intervals) - accuracy)
    style: dict[str, Any] = {"fmt": "o-", "markersize": 5, "capsize": 3, "linewidth": 1.5}
    filled = counts > 0
    axes.errorbar(
        probability[filled],
        accuracy[filled],
        yerr=spread[:, filled],
        color=_run_color(run),
        **style,
    )
    axes.set_ylabel("answers that are right")
    _percent(axes)
    width = 1 / len(counts)
    below.bar((np.arange(len(counts)) + 0.5) * width, counts, width * 0.9, color=FAINT)
    below.set_yscale("symlog", linthresh=1)
    below.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    below.set_yticks([0, *(100**power for power in range(1, 6) if 100**power <= counts.max())])
    below.set_yticks([], minor=True)
    below.set_ylim(0, 2 * max(1, counts.max()))
    below.set_ylabel("answers")
    below.set_xlabel("halting probability")
    below.set_xlim(-0.02, 1.02)
    below.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return _svg(figure, alt)


def _run_color(run: int) -> str:
    return f"#0102{run % RUN_COLORS:02x}"


def _figure(heights: Sequence[int] = (1,)) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(5.2, 3.4), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    grid = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes in grid[:, 0]:
        axes.patch.set_visible(False)
        axes.grid(color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", color=RULE, labelcolor=INK, labelsize=9)
        axes.xaxis.label.set(color=INK, fontsize=10)
        axes.yaxis.label.set(color=INK, fontsize=10)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(RULE)
    return figure, list(grid[:, 0])


def _percent(axes: "Axes") -> None:
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _line(axes: "Axes", series: Series) -> None:
    pairs = zip(series.x, series.y, strict=True)
    if not (points := [(x, y) for x, y in pairs if math.isfinite(y)]):
        return
    x, y = thinned(points)
    dashes = DASHES[series.run % len(DASHES)]
    pattern = tuple(float(length) / 2 for length in dashes.split())
    marked = len(points) == 1 or (series.main and len(points) <= FEW_POINTS)
    axes.plot(
        x,
        y,
        color=_run_color(series.run),
        linestyle=(0, pattern) if pattern else "-",
        linewidth=2 if series.main else 1.2,
        alpha=1 if series.main else 0.55,
        marker="o" if marked else None,
        markersize=4,
    )


def _svg(figure: "Figure", alt: str) -> str:
    import matplotlib

    figure.patch.set_visible(False)
    written = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plain(alt)}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return _inline(written.getvalue(), alt)


def _inline(svg: str, alt: str) -> str:
    """Make a whole SVG file a part of a page: no prologue, no names from elsewhere."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    head = f'<svg class="chart" role="img" aria-label="{plain(alt)}" {view[0]}>'
    svg = head + svg[svg.index(">") + 1 :].replace("xlink:href", "href")
    svg = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "")
    svg = re.sub(r"#0102[0-9a-f]{2}|#01010[1-5]", lambda m: f"var(--{NAMES[m[0]]})", svg)
    return _with_own_ids(svg)


def _with_own_ids(svg: str) -> str:
    """Drop the ids that nothing in the chart refers to: they would be the same in every chart."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    keep: Callable[[re.Match[str]], str] = lambda m: m[0] if m[1] in used else ""  # noqa: E731
    return re.sub(r' id="([^"]*)"', keep, svg)
