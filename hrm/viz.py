"""The one place that draws: puzzle grids for a terminal or a log file, learning curves as a PNG."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from hrm.data.format import DatasetMetadata
from hrm.data.sudoku import SYMBOLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAD_SYMBOL = "_"
MAZE_SYMBOLS = "# SGo"
TOKEN_SYMBOLS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
UNKNOWN_SYMBOL = "?"
BLANK_SYMBOLS = ". "
WALL = "#"
WIDEST_SPACED_GRID = 16
FEW_POINTS, MOST_POINTS = 30, 200

KINDS = ("given", "answered", "changed in this step", "wrong", "changed and wrong")
GIVEN, KEPT, CHANGED, WRONG, CHANGED_WRONG = range(len(KINDS))
MARKS = " ·+!*"
COLORS = {GIVEN: "1", KEPT: "36", CHANGED: "1;30;42", WRONG: "1;31", CHANGED_WRONG: "1;37;41"}
FAINT = "90"
ANSI = re.compile(r"\x1b\[[0-9;]*m")

TRAIN_COLOR, EVAL_COLOR, TEXT_COLOR, GRID_COLOR = "#8c96a3", "#1f6fb4", "#2b2f36", "#e3e6ea"


@dataclass(frozen=True)
class GridLook:
    """What turns a row of tokens into a picture."""

    shape: tuple[int, int]
    box_shape: tuple[int, int] | None
    symbols: str  # token -> character

    @classmethod
    def from_metadata(cls, metadata: DatasetMetadata) -> "GridLook":
        """As the metadata say; what foreign data sets leave out is inferred.

        A square grid whose vocabulary is its side + 1 (+ 2: with padding, as the original writes
        it) is a Sudoku; a vocabulary of 6 is the original's maze. Else tokens show as 0-9A-Za-z.
        """
        shape = metadata.inferred_grid_shape() or (1, metadata.seq_len)
        symbols = metadata.symbols or _infer_symbols(shape, metadata.vocab_size)
        symbols = symbols[: metadata.vocab_size].ljust(metadata.vocab_size, UNKNOWN_SYMBOL)
        sudoku = symbols.removeprefix(PAD_SYMBOL) == SYMBOLS[: shape[0] + 1]
        box_shape = metadata.inferred_box_shape() if sudoku else metadata.box_shape
        return cls(shape, box_shape, symbols)

    @property
    def is_sudoku(self) -> bool:
        """Whether the Sudoku rules hold: digits 1..n in boxes of n cells."""
        return (
            self.box_shape is not None
            and self.shape == (math.prod(self.box_shape),) * 2
            and self.symbols.removeprefix(PAD_SYMBOL) == SYMBOLS[: self.shape[0] + 1]
        )

    def symbol(self, token: int) -> str:
        return self.symbols[token] if 0 <= token < len(self.symbols) else UNKNOWN_SYMBOL

    def givens(self, inputs: np.ndarray) -> np.ndarray:
        """Cells that the answer must keep, [T] bool; none where no symbol stands for a blank."""
        if not set(self.symbols) & set(BLANK_SYMBOLS):
            return np.zeros(len(inputs), bool)
        empty = [t for t, s in enumerate(self.symbols) if s in BLANK_SYMBOLS + PAD_SYMBOL]
        return ~np.isin(inputs, empty)


def _infer_symbols(shape: tuple[int, int], vocab_size: int) -> str:
    if shape[0] == shape[1] < len(SYMBOLS):
        digits = SYMBOLS[: shape[0] + 1]
        for symbols in (digits, PAD_SYMBOL + digits):
            if len(symbols) == vocab_size:
                return symbols
    return PAD_SYMBOL + MAZE_SYMBOLS if vocab_size == 6 else TOKEN_SYMBOLS


def wants_color(stream: TextIO) -> bool:
    """Whether to write ANSI colours: a terminal, and `NO_COLOR` unset or empty."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def wrong_cells(
    look: GridLook, tokens: np.ndarray, inputs: np.ndarray, answer: np.ndarray | None
) -> np.ndarray:
    """Cells that differ from the answer where it is known (>= 0), else from a given: [T] bool."""
    if answer is None:
        return look.givens(inputs) & (tokens != inputs)
    return (answer >= 0) & (tokens != answer)


def draw_grid(
    tokens: np.ndarray,
    look: GridLook,
    *,
    inputs: np.ndarray | None = None,
    previous: np.ndarray | None = None,
    answer: np.ndarray | None = None,
    color: bool = False,
    title: str = "",
) -> str:
    """A framed grid as lines of text, with the borders of its boxes.

    Args:
        tokens: [T] integers.
        inputs: the puzzle, [T]; tells given from answered cells. None: all cells count as given.
        previous: the answer one step before, [T]; cells that differ from it are marked.
        answer: the right answer, [T], negative where unknown; cells that differ are marked.
        color: ANSI colours; else marks beside the cells, as `legend` explains them.
    """
    rows, columns = look.shape
    kinds = _kinds(tokens, look, inputs, previous, answer)
    cells = [
        _cell(look.symbol(t), int(k), color, narrow=columns > WIDEST_SPACED_GRID)
        for t, k in zip(tokens, kinds, strict=True)
    ]
    box_rows, box_columns = look.box_shape or look.shape
    bands = [range(c, min(c + box_columns, columns)) for c in range(0, columns, box_columns)]
    pad = "" if columns > WIDEST_SPACED_GRID or not color else " "
    cell_width = len(ANSI.sub("", cells[0]))
    widths = [len(band) * cell_width + len(pad) for band in bands]

    lines = [title] if title else []
    lines.append(_rule("┌┬┐", widths))
    for row in range(rows):
        if row and row % box_rows == 0:
            lines.append(_rule("├┼┤", widths))
        parts = (pad + "".join(cells[row * columns + c] for c in band) for band in bands)
        lines.append("│" + "│".join(parts) + "│")
    lines.append(_rule("└┴┘", widths))
    return "\n".join(lines)


def legend(color: bool) -> str:
    """One line that explains what `draw_grid` marks."""
    if not color:
        return "   ".join(
            f"{mark} {name}" for mark, name in list(zip(MARKS, KINDS, strict=True))[1:]
        )
    return "   ".join(_paint(name, COLORS[kind]) for kind, name in enumerate(KINDS))


def side_by_side(blocks: Sequence[str], width: int, gap: int = 3) -> str:
    """Lay equally wide blocks of lines in as many columns as fit into `width` characters."""
    split = [block.split("\n") for block in blocks]
    widest = max((_visible(line) for lines in split for line in lines), default=0)
    per_row = max(1, (width + gap) // (widest + gap))
    chunks = [split[i : i + per_row] for i in range(0, len(split), per_row)]
    return "\n\n".join(
        "\n".join(
            (" " * gap).join(line + " " * (widest - _visible(line)) for line in lines).rstrip()
            for lines in zip_longest(*chunk, fillvalue="")
        )
        for chunk in chunks
    )


def _kinds(
    tokens: np.ndarray,
    look: GridLook,
    inputs: np.ndarray | None,
    previous: np.ndarray | None,
    answer: np.ndarray | None,
) -> np.ndarray:
    if inputs is None:
        return np.full(len(tokens), GIVEN)
    changed = np.zeros(len(tokens), bool) if previous is None else tokens != previous
    wrong = wrong_cells(look, tokens, inputs, answer)
    kinds = np.where(look.givens(inputs), GIVEN, KEPT)
    kinds = np.where(changed, CHANGED, kinds)
    return np.where(wrong, np.where(changed, CHANGED_WRONG, WRONG), kinds)


def _cell(symbol: str, kind: int, color: bool, narrow: bool) -> str:
    calm = kind in (GIVEN, KEPT)
    wall, blank = calm and symbol == WALL, calm and symbol in BLANK_SYMBOLS
    if wall:
        symbol = "██"
    if color:
        return _paint(symbol, FAINT if wall or blank else COLORS[kind]) + " " * (not wall)
    text = symbol if wall else (" " if blank else MARKS[kind]) + symbol
    return text if narrow else text + " "


def _paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _visible(line: str) -> int:
    return len(ANSI.sub("", line))


def _rule(corners: str, widths: Sequence[int]) -> str:
    return corners[0] + corners[1].join("─" * width for width in widths) + corners[2]


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
    accuracy.set_ylim(-0.02, 1.02)
    accuracy.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    steps.set_ylim(0, 1.05 * steps.get_ylim()[1])
    for axes in (loss, accuracy, steps):
        _finish(axes)

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    chunks = np.array_split(np.array(points, np.float64), min(len(points), MOST_POINTS))
    x, y = np.array([chunk.mean(axis=0) for chunk in chunks]).T
    axes.plot(x, y, label=label, color=color, linewidth=1.6, **style)


def _finish(axes: "Axes") -> None:
    if axes.lines:
        axes.legend(frameon=False, fontsize=8, labelcolor=TEXT_COLOR)
    else:
        axes.set_ylim(0, 1)
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes, color=TRAIN_COLOR)
