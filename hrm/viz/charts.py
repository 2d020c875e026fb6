"""Curves and charts, drawn with matplotlib."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hrm.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_POINTS, MOST_POINTS = 30, 200
TRAIN_COLOR, EVAL_COLOR, TEXT_COLOR, GRID_COLOR = "#8c96a3", "#1f6fb4", "#2b2f36", "#e3e6ea"


def plot_learning_curves(
    records: Sequence[Mapping[str, float]], path: Path, title: str = ""
) -> None:
    """Write loss, accuracy and ACT steps over the training step as a PNG of 1200 x 400 pixels.

    Args:
        records: lines of `metrics.jsonl`; keys that are missing leave their curve out, and long
            curves are drawn as means of neighbouring points.
        path: replaced at once, so that a reader never sees half a picture.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(12, 4), dpi=100, layout=layout)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=TEXT_COLOR, parse_math=False)
    loss, accuracy, steps = figure.subplots(1, 3, sharex=True)
    for axes, label in ((loss, "cross-entropy loss"), (accuracy, "accuracy"), (steps, "ACT steps")):
        _frame(axes, label)
    for split, color in (("train", TRAIN_COLOR), ("eval", EVAL_COLOR)):
        _curve(loss, records, f"{split}/lm_loss", split, color)
        _curve(accuracy, records, f"{split}/exact_accuracy", f"{split}, exact", color)
        _curve(accuracy, records, f"{split}/accuracy", f"{split}, token", color, linestyle="--")
        _curve(steps, records, f"{split}/steps", split, color)
    first = "train/first_step_exact_accuracy"
    _curve(accuracy, records, first, "train, exact at first step", TRAIN_COLOR, linestyle=":")
    accuracy.set_ylim(-0.02, 1.02)
    accuracy.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    steps.set_ylim(0, 1.05 * steps.get_ylim()[1])
    for axes in (loss, accuracy, steps):
        _finish(axes)

    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _frame(axes: "Axes", label: str) -> None:
    axes.set_title(label, fontsize=10, color=TEXT_COLOR)
    axes.set_xlabel("training step", color=TEXT_COLOR)
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.grid(color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOR, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID_COLOR)


def _curve(
    axes: "Axes",
    records: Sequence[Mapping[str, float]],
    key: str,
    label: str,
    color: str,
    **style: Any,
) -> None:
    points = [(r["step"], r[key]) for r in records if key in r and math.isfinite(r[key])]
    if not points:
        return
    if len(points) == 1 or (len(points) <= FEW_POINTS and label.startswith("eval")):
        style |= {"marker": "o", "markersize": 3.5}
    x, y = thinned(points)
    axes.plot(x, y, label=label, color=color, linewidth=1.6, **style)


def thinned(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """x and y of at most `MOST_POINTS` points: means of neighbouring ones, float64."""
    chunks = np.array_split(np.array(points, np.float64), min(len(points), MOST_POINTS))
    x, y = np.array([chunk.mean(axis=0) for chunk in chunks]).T
    return x, y


def _finish(axes: "Axes") -> None:
    if axes.lines:
        axes.legend(frameon=False, fontsize=8, labelcolor=TEXT_COLOR)
    else:
        axes.set_ylim(0, 1)
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes, color=TRAIN_COLOR)
