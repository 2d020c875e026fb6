"""A puzzle grid as SVG, to stand inside an HTML page; colours are classes of `hrm.viz.html`.

Shapes: T tokens per puzzle.
"""

import numpy as np

from hrm.data.grid import BLANK_SYMBOLS, PAD_SYMBOL, Grid
from hrm.viz.cells import GIVEN, KEPT, WRONG, cell_kinds
from hrm.viz.html import plain

CELL = 20
CLASSES = {GIVEN: "given", KEPT: "answered", WRONG: "mistake"}


def svg_grid(
    tokens: np.ndarray,
    grid: Grid,
    alt: str,
    inputs: np.ndarray,
    answer: np.ndarray | None = None,
) -> str:
    """The grid with the borders of its boxes; wrong cells have a tint and a bar below.

    Cells that are colours show their symbol, too; wrong ones have a frame.

    Args:
        tokens: [T] integers.
        inputs: the puzzle, [T]; its given cells are bold.
        answer: the right answer, [T], negative where unknown; cells that differ are marked.
    """
    rows, columns = grid.shape
    kinds = cell_kinds(tokens, grid, inputs, None, answer)
    if answer is None:
        kinds = np.where(kinds == WRONG, KEPT, kinds)
    width, height = columns * CELL, rows * CELL
    parts = [
        f'<svg class="grid" role="img" aria-label="{plain(alt)}" '
        f'viewBox="-1 -1 {width + 2} {height + 2}" style="width:{_width(columns)}">'
    ]
    for place, (token, kind) in enumerate(zip(tokens.tolist(), kinds.tolist(), strict=True)):
        y, x = (CELL * part for part in divmod(place, columns))
        parts.append(_cell(grid, token, CLASSES[kind], x, y))
    box_rows, box_columns = grid.box_shape or grid.shape
    parts += [_line(0, y, width, y, y // CELL % box_rows == 0) for y in range(0, height + 1, CELL)]
    parts += [
        _line(x, 0, x, height, x // CELL % box_columns == 0) for x in range(0, width + 1, CELL)
    ]
    return "".join([*parts, "</svg>"])


def _cell(grid: Grid, token: int, kind: str, x: int, y: int) -> str:
    symbol = grid.symbol(token)
    if grid.colors:
        return _color_cell(grid, symbol, kind == "mistake", x, y)
    square = f'x="{x}" y="{y}" width="{CELL}" height="{CELL}"'
    if symbol == grid.wall and kind != "mistake":
        return f'<rect class="wall" {square}/>'
    back = ""
    if kind == "mistake":
        back = (
            f'<rect class="mistake" {square}/>'
            f'<rect class="bar" x="{x + 3}" y="{y + CELL - 4}" width="{CELL - 6}" height="2"/>'
        )
    if symbol in BLANK_SYMBOLS and kind != "mistake":
        return back
    text = f'<text class="{kind}" x="{x + CELL / 2:g}" y="{y + 14.5:g}">{plain(symbol)}</text>'
    return back + text


def _color_cell(grid: Grid, symbol: str, is_wrong: bool, x: int, y: int) -> str:
    """A cell that is a colour, its symbol in it; wrong ones have a frame in the symbol's ink."""
    square, text, ink = "", "", "var(--ink)"
    if symbol in grid.colors:
        fill, ink = grid.colors[symbol]
        square = f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{fill}"/>'
    if symbol != PAD_SYMBOL:
        style = f' style="fill:{ink}"' if symbol in grid.colors else ""
        kind = "colour" if symbol in grid.colors else "end"
        place = f'x="{x + CELL / 2:g}" y="{y + 14.5:g}"'
        text = f'<text class="{kind}"{style} {place}>{plain(symbol)}</text>'
    if is_wrong:
        inner = f'x="{x + 2}" y="{y + 2}" width="{CELL - 4}" height="{CELL - 4}"'
        square += f'<rect class="frame" style="stroke:{ink}" {inner}/>'
    return square + text


def _line(x1: int, y1: int, x2: int, y2: int, strong: bool) -> str:
    kind = "border" if strong else "thin"
    return f'<path class="{kind}" d="M{x1} {y1}L{x2} {y2}"/>'


def _width(columns: int) -> str:
    return f"{min(1.05 * columns, 22):g}rem"
