"""Puzzle grids as lines of text, for a terminal or a log file."""

import os
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import TextIO

import numpy as np

from hrm.data.grid import BLANK_SYMBOLS, PAD_SYMBOL, Grid
from hrm.viz.cells import CHANGED, CHANGED_WRONG, GIVEN, KEPT, KINDS, WRONG, cell_kinds

WIDEST_SPACED_GRID = 16
MARKS = " ·+!*"
COLORS = {GIVEN: "1", KEPT: "36", CHANGED: "1;30;42", WRONG: "1;31", CHANGED_WRONG: "1;37;41"}
FAINT = "90"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def wants_color(stream: TextIO) -> bool:
    """Whether to write ANSI colours: a terminal, and `NO_COLOR` unset or empty."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def draw_grid(
    tokens: np.ndarray,
    grid: Grid,
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
        inputs: the puzzle, [T], which says what is given. None: all cells count as given.
        previous: the answer one step before, [T]; cells that differ from it are marked.
        answer: the right answer, [T], negative where unknown; cells that differ are marked.
        color: ANSI colours; else marks beside the cells, as `legend` explains them. Cells that
            are colours themselves have marks in any case, and their symbols.
    """
    rows, columns = grid.shape
    kinds = cell_kinds(tokens, grid, inputs, previous, answer)
    cells = [
        _cell(grid, int(t), int(k), color, narrow=columns > WIDEST_SPACED_GRID)
        for t, k in zip(tokens, kinds, strict=True)
    ]
    box_rows, box_columns = grid.box_shape or grid.shape
    bands = [range(c, min(c + box_columns, columns)) for c in range(0, columns, box_columns)]
    pad = "" if columns > WIDEST_SPACED_GRID or not color or grid.colors else " "
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


def legend(color: bool, grid: Grid | None = None) -> str:
    """One line that explains what `draw_grid` marks in a grid; None: in one without colours."""
    if not color or (grid and grid.colors):
        first = CHANGED if grid and grid.colors else KEPT
        return "   ".join(f"{MARKS[kind]} {KINDS[kind]}" for kind in range(first, len(KINDS)))
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


def _cell(grid: Grid, token: int, kind: int, color: bool, narrow: bool) -> str:
    symbol = grid.symbol(token)
    calm = kind in (GIVEN, KEPT)
    if grid.colors:
        return _color_cell(grid, symbol, " " if calm else MARKS[kind], color)
    wall, blank = calm and symbol == grid.wall, calm and symbol in BLANK_SYMBOLS
    if wall:
        symbol = "██"
    if color:
        return _paint(symbol, FAINT if wall or blank else COLORS[kind]) + " " * (not wall)
    text = symbol if wall else (" " if blank else MARKS[kind]) + symbol
    return text if narrow else text + " "


def _color_cell(grid: Grid, symbol: str, mark: str, color: bool) -> str:
    """Two characters, about a square; padding is left empty."""
    text = mark + (" " if symbol == PAD_SYMBOL else symbol)
    if not color:
        return text
    if symbol not in grid.colors:
        return _paint(text, FAINT)
    fill, ink = grid.colors[symbol]
    return _paint(text, f"1;{_rgb(38, ink)};{_rgb(48, fill)}")


def _rgb(plane: int, color: str) -> str:
    """24-bit colour, "#rrggbb", of the ink (38) or of the paper (48)."""
    return f"{plane};2;{';'.join(map(str, bytes.fromhex(color[1:])))}"


def _paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _visible(line: str) -> int:
    return len(ANSI.sub("", line))


def _rule(corners: str, widths: Sequence[int]) -> str:
    return corners[0] + corners[1].join("─" * width for width in widths) + corners[2]
