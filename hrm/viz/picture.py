"""Puzzle grids as images: one picture, or the steps of a solution as a GIF."""

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hrm.data.grid import BLANK_SYMBOLS, PAD_SYMBOL, Grid
from hrm.files import atomic_write
from hrm.viz.cells import CHANGED, CHANGED_WRONG, GIVEN, KEPT, WRONG, cell_kinds

PAPER, INK, LINE, FAINT = "#ffffff", "#22262e", "#22262e", "#c3c9d1"
CELL_COLORS = {  # background, symbol
    GIVEN: ("#eceff3", INK),
    KEPT: (PAPER, "#1f6fb4"),
    CHANGED: ("#d3f0d8", "#14602a"),
    WRONG: ("#fbdcd9", "#a3160a"),
    CHANGED_WRONG: ("#f3a79f", "#6d0d05"),
}
LARGEST_CELL, SMALLEST_CELL, WIDEST_GRID = 44, 12, 480  # pixels
MARGIN, TITLE_HEIGHT = 14, 30
LEAST_WIDTH = 200  # of a grid that may be as small as one cell, so that its title fits
FRAME_SECONDS, LAST_FRAME_SECONDS = 0.8, 3.0


def draw_picture(
    tokens: np.ndarray,
    grid: Grid,
    *,
    inputs: np.ndarray | None = None,
    previous: np.ndarray | None = None,
    answer: np.ndarray | None = None,
    title: str = "",
) -> Image.Image:
    """A grid as an RGB image; arguments as of `draw_grid`."""
    rows, columns = grid.shape
    cell = max(SMALLEST_CELL, min(LARGEST_CELL, WIDEST_GRID // max(rows, columns)))
    width = max(columns * cell, LEAST_WIDTH if grid.colors else 0) + 2 * MARGIN + 1
    image = Image.new("RGB", (width, rows * cell + 2 * MARGIN + TITLE_HEIGHT + 1), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, MARGIN - 2), title, INK, _font(15))
    left, top = MARGIN, MARGIN + TITLE_HEIGHT
    kinds = cell_kinds(tokens, grid, inputs, previous, answer)
    for place, (token, kind) in enumerate(zip(tokens.tolist(), kinds.tolist(), strict=True)):
        row, column = divmod(place, columns)
        x, y = left + column * cell, top + row * cell
        _draw_cell(pen, x, y, cell, grid, token, kind)
    box_rows, box_columns = grid.box_shape or grid.shape
    for row in range(rows + 1):
        thick = 3 if row % box_rows == 0 else 1
        y = top + row * cell
        pen.line((left, y, left + columns * cell, y), LINE if thick > 1 else FAINT, thick)
    for column in range(columns + 1):
        thick = 3 if column % box_columns == 0 else 1
        x = left + column * cell
        pen.line((x, top, x, top + rows * cell), LINE if thick > 1 else FAINT, thick)
    for row in range(0, rows + 1, box_rows):  # over the thin lines that cross them
        y = top + row * cell
        pen.line((left, y, left + columns * cell, y), LINE, 3)
    return image


def _draw_cell(
    pen: ImageDraw.ImageDraw, x: int, y: int, cell: int, grid: Grid, token: int, kind: int
) -> None:
    background, ink = CELL_COLORS[kind]
    symbol = grid.symbol(token)
    if grid.colors:
        return _draw_color(pen, x, y, cell, grid, symbol, kind)
    if symbol == grid.wall and kind in (GIVEN, KEPT):
        background = INK
    elif symbol in BLANK_SYMBOLS and kind in (GIVEN, KEPT):
        background = PAPER
    pen.rectangle((x, y, x + cell, y + cell), background)
    if symbol not in (*BLANK_SYMBOLS, PAD_SYMBOL, grid.wall):
        middle = (x + cell / 2, y + cell / 2)
        pen.text(middle, symbol, ink, _font(int(cell * 0.56), kind == GIVEN), anchor="mm")


def _draw_color(
    pen: ImageDraw.ImageDraw, x: int, y: int, cell: int, grid: Grid, symbol: str, kind: int
) -> None:
    """A cell that is a colour, its symbol in it; a corner where it changed, a frame if wrong."""
    fill, ink = grid.colors.get(symbol, (PAPER, FAINT))
    pen.rectangle((x, y, x + cell, y + cell), fill)
    if symbol != PAD_SYMBOL:
        middle = (x + cell / 2, y + cell / 2)
        pen.text(middle, symbol, ink, _font(int(cell * 0.5), symbol in grid.colors), anchor="mm")
    mark = INK if symbol not in grid.colors else ink
    if kind in (CHANGED, CHANGED_WRONG):
        end, size = x + cell - 1, cell * 0.3
        pen.polygon(((end - size, y + 1), (end, y + 1), (end, y + 1 + size)), mark)
    if kind in (WRONG, CHANGED_WRONG):
        inset = max(2, cell // 12)
        pen.rectangle((x + inset, y + inset, x + cell - inset, y + cell - inset), None, mark, inset)


def side_by_side_pictures(pictures: Sequence[Image.Image], columns: int = 4) -> Image.Image:
    """Equally large pictures in rows of at most `columns`."""
    across = min(columns, len(pictures))
    down = math.ceil(len(pictures) / across)
    width, height = pictures[0].size
    sheet = Image.new("RGB", (across * width, down * height), PAPER)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, across)
        sheet.paste(picture, (column * width, row * height))
    return sheet


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as temporary:
        picture.save(temporary, "PNG")


def save_gif(pictures: Sequence[Image.Image], path: Path) -> None:
    """Write pictures as `as_gif` makes them.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_bytes(as_gif(pictures))


def as_gif(pictures: Sequence[Image.Image]) -> bytes:
    """Pictures of one size as an endless animation that rests at the last one."""
    seconds = [FRAME_SECONDS] * (len(pictures) - 1) + [LAST_FRAME_SECONDS]
    first, *rest = (picture.quantize(64) for picture in pictures)
    written = io.BytesIO()
    first.save(
        written,
        "GIF",
        save_all=True,
        append_images=rest,
        duration=[int(1000 * s) for s in seconds],
        loop=0,
        disposal=1,
    )
    return written.getvalue()


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", name), size)
