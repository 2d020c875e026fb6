"""Puzzle grids as SVG, to stand inside an HTML page; colours are classes of `hrm.viz.html`.

Shapes: T tokens per puzzle.
"""

import numpy as np

from hrm.data.grid import BLANK_SYMBOLS, PAD_SYMBOL, Grid
from hrm.viz.cells import GIVEN, KEPT, WRONG, cell_kinds
from hrm.viz.html import plain

CELL = 20
HOTTEST = 0.5  # opacity that leaves symbols readable
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
    parts = [_opening(alt, rows, columns)]
    for place, (token, kind) in enumerate(zip(tokens.tolist(), kinds.tolist(), strict=True)):
        y, x = (CELL * part for part in divmod(place, columns))
        parts.append(_cell(grid, token, CLASSES[kind], x, y))
    return "".join([*parts, *_lines(grid), "</svg>"])


def heat_grid(shares: np.ndarray, grid: Grid, alt: str, inputs: np.ndarray, cell: int) -> str:
    """How much falls to each cell of a puzzle, darkest where most does.

    Args:
        shares: [T] float, not negative.
        inputs: the puzzle, [T].
        cell: the one that gets a frame, from 0.
    """
    rows, columns = grid.shape
    shades = HOTTEST * shares / max(float(shares.max()), 1e-30)
    parts = [_opening(alt, rows, columns)]
    for place, (token, shade) in enumerate(zip(inputs.tolist(), shades.tolist(), strict=True)):
        y, x = (CELL * part for part in divmod(place, columns))
        square = f'x="{x}" y="{y}" width="{CELL}" height="{CELL}"'
        parts.append(f'<rect class="heat" fill-opacity="{shade:.2f}" {square}/>')
        if (symbol := grid.symbol(token)) not in BLANK_SYMBOLS:
            parts.append(_text("given", symbol, x, y))
    y, x = (CELL * part + 1 for part in divmod(cell, columns))
    inner = f'x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}"'
    frame = f'<rect class="frame" style="stroke:var(--ink)" {inner}/>'
    return "".join([*parts, *_lines(grid), frame, "</svg>"])


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
    return back + _text(kind, symbol, x, y)


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


def _opening(alt: str, rows: int, columns: int) -> str:
    return (
        f'<svg class="grid" role="img" aria-label="{plain(alt)}" '
        f'viewBox="-1 -1 {columns * CELL + 2} {rows * CELL + 2}" style="width:{_width(columns)}">'
    )


def _text(kind: str, symbol: str, x: int, y: int) -> str:
    return f'<text class="{kind}" x="{x + CELL / 2:g}" y="{y + 14.5:g}">{plain(symbol)}</text>'


def _lines(grid: Grid) -> list[str]:
    rows, columns = grid.shape
    box_rows, box_columns = grid.box_shape or grid.shape
    width, height = columns * CELL, rows * CELL
    across = [_line(0, CELL * n, width, CELL * n, n % box_rows == 0) for n in range(rows + 1)]
    down = [_line(CELL * n, 0, CELL * n, height, n % box_columns == 0) for n in range(columns + 1)]
    return across + down


def _line(x1: int, y1: int, x2: int, y2: int, strong: bool) -> str:
    kind = "border" if strong else "thin"
    return f'<path class="{kind}" d="M{x1} {y1}L{x2} {y2}"/>'


def _width(columns: int) -> str:
    return f"{min(1.05 * columns, 22):g}rem"
