"""The one place that draws: puzzle grids for a terminal or a log file, learning curves as a PNG,
and the charts, grids and markup of an HTML report."""

from hrm.viz.charts import plot_learning_curves
from hrm.viz.terminal import draw_grid, legend, side_by_side, wants_color

__all__ = [
    "draw_grid",
    "legend",
    "plot_learning_curves",
    "side_by_side",
    "wants_color",
]
