"""Grids as exact strings; curves as a PNG of the promised size."""

import io
import resource
import signal
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image, ImageColor

from hrm.data.format import DatasetMetadata
from hrm.data.grid import Grid
from hrm.tasks import task_of
from hrm.tasks.arc.palette import COLORS
from hrm.viz import draw_grid, legend, plot_learning_curves, side_by_side, wants_color
from hrm.viz.cells import CHANGED, GIVEN, KEPT, WRONG
from hrm.viz.picture import (
    CELL_COLORS,
    INK,
    LARGEST_CELL,
    LAST_FRAME_SECONDS,
    MARGIN,
    PAPER,
    TITLE_HEIGHT,
    draw_picture,
    save_gif,
    save_png,
    side_by_side_pictures,
)
from hrm.viz.terminal import ANSI

SMALL = Grid((4, 4), (2, 2), ".1234")
ARC_COLORS = dict(zip("0123456789", COLORS, strict=True))
ARC = Grid((30, 30), None, "_=0123456789", None, ARC_COLORS, "=")
PUZZLE = np.array([1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
ANSWER = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1])


def metadata(**changes: object) -> DatasetMetadata:
    values = {
        "vocab_size": 10,
        "seq_len": 81,
        "num_puzzle_identifiers": 1,
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "total_groups": 1,
        "mean_puzzle_examples": 1.0,
        "sets": ("all",),
    }
    return DatasetMetadata.model_validate(values | changes)


def test_puzzle_is_framed_by_its_boxes():
    assert draw_grid(PUZZLE, SMALL, inputs=PUZZLE, title="puzzle").split("\n") == [
        "puzzle",
        "┌──────┬──────┐",
        "│ 1  . │ .  4 │",
        "│ .  . │ .  . │",
        "├──────┼──────┤",
        "│ .  . │ .  . │",
        "│ .  . │ .  1 │",
        "└──────┴──────┘",
    ]


def test_plain_marks_tell_given_answered_changed_wrong():
    previous, tokens = ANSWER.copy(), ANSWER.copy()
    previous[1], previous[4] = 4, 2
    tokens[4], tokens[5] = 1, 3
    previous[5] = 3
    drawn = draw_grid(tokens, SMALL, inputs=PUZZLE, previous=previous, answer=ANSWER)
    assert drawn.split("\n")[1:3] == ["│ 1 +2 │·3  4 │", "│*1 !3 │·1 ·2 │"]


def test_a_changed_given_is_wrong_without_an_answer():
    tokens = ANSWER.copy()
    tokens[0] = 3
    assert draw_grid(tokens, SMALL, inputs=PUZZLE).split("\n")[1] == "│!3 ·2 │·3  4 │"


def test_colours_replace_marks():
    previous = ANSWER.copy()
    previous[1] = 4
    drawn = draw_grid(ANSWER, SMALL, inputs=PUZZLE, previous=previous, color=True).split("\n")
    assert drawn[1].startswith("│ \x1b[1m1\x1b[0m \x1b[1;30;42m2\x1b[0m │ \x1b[36m3\x1b[0m ")
    assert ANSI.sub("", drawn[1]) == "│ 1 2 │ 3 4 │"
    assert drawn[0] == "┌─────┬─────┐"


def test_boxes_need_not_be_square():
    look = Grid((6, 6), (2, 3), ".123456")
    lines = draw_grid(np.zeros(36, int), look).split("\n")
    assert lines[0] == "┌─────────┬─────────┐"
    assert [i for i, line in enumerate(lines) if line.startswith("├")] == [3, 6]


def test_maze_draws_walls_and_marks_the_path():
    look = Grid((1, 20), None, "_# SGo", wall="#")
    inputs = np.array([1] * 14 + [3, 2, 2, 2, 4, 1])
    tokens = np.array([1] * 14 + [3, 5, 5, 2, 4, 1])
    previous = np.where(np.arange(20) == 16, 2, tokens)
    plain = draw_grid(tokens, look, inputs=inputs, previous=previous).split("\n")
    assert plain[1] == "│" + "██" * 14 + " S·o+o   G██│"
    color = draw_grid(tokens, look, inputs=inputs, previous=previous, color=True).split("\n")
    assert len(ANSI.sub("", color[1])) == len(plain[1])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"symbols": ".1234", "vocab_size": 5, "seq_len": 16}, SMALL),
        ({}, Grid((9, 9), (3, 3), ".123456789")),
        ({"vocab_size": 11}, Grid((9, 9), (3, 3), "_.123456789")),
        ({"vocab_size": 6, "seq_len": 900}, Grid((30, 30), None, "_# SGo", wall="#")),
        ({"vocab_size": 6, "seq_len": 625}, Grid((25, 25), None, "_# SGo", wall="#")),
        ({"vocab_size": 6, "seq_len": 16}, Grid((4, 4), (2, 2), "_.1234")),
        ({"vocab_size": 12, "seq_len": 900}, ARC),
        ({"vocab_size": 13, "seq_len": 900}, Grid((30, 30), None, "0123456789ABC")),
        ({"vocab_size": 3, "seq_len": 5}, Grid((1, 5), None, "012")),
        ({"symbols": ".1", "vocab_size": 4, "seq_len": 4}, Grid((2, 2), None, ".1Āā")),
    ],
)
def test_look_is_stated_or_inferred(changes, expected):
    assert task_of(metadata(**changes)).grid == expected


def test_two_sudokus_fit_side_by_side_into_100_columns():
    look = Grid((9, 9), (3, 3), ".123456789")
    blocks = [draw_grid(np.zeros(81, int), look, title=f"step {i}") for i in range(3)]
    lines = side_by_side(blocks, 100).split("\n")
    assert "step 0" in lines[0] and "step 1" in lines[0] and max(map(len, lines)) <= 100
    assert side_by_side(blocks, 20) == "\n\n".join(blocks)


def test_side_by_side_pads_by_visible_width():
    assert side_by_side(["\x1b[1ma\x1b[0m\nbb", "c"], 10, gap=1) == "\x1b[1ma\x1b[0m  c\nbb"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(Terminal()) and not wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())


def test_legend_names_every_mark():
    expected = "· answered   + changed in this step   ! wrong   * changed and wrong"
    assert legend(color=False) == expected
    assert "given" in ANSI.sub("", legend(color=True))


FULL = {"lm_loss": 0.5, "accuracy": 0.9, "exact_accuracy": 0.4, "steps": 7.5}
RUN = [{"step": s} | {f"train/{k}": v / s for k, v in FULL.items()} for s in range(1, 500)]
RUN = [r | ({"train/first_step_exact_accuracy": 0.1} if r["step"] % 16 == 1 else {}) for r in RUN]


@pytest.mark.parametrize(
    "records",
    [
        [*RUN, {"step": 500} | {f"eval/{k}": v for k, v in FULL.items()}],
        [{"step": 3, "eval/exact_accuracy": 0.5, "eval/lm_loss": float("nan")}],
        [{"step": 3}],
    ],
    ids=["whole run", "one evaluation", "no metrics"],
)
def test_learning_curves_are_a_png_of_1200_by_400(tmp_path, records):
    from matplotlib.image import imread

    path = tmp_path / "curves.png"
    plot_learning_curves(records, path, title="a $ sign, 100%")
    image = imread(path)
    assert image.shape[:2] == (400, 1200)
    assert image[..., :3].std() > 0.01
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_leaves_no_global_figure(tmp_path):
    import sys

    plot_learning_curves(RUN, tmp_path / "curves.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_a_picture_shows_the_kind_of_each_cell():
    previous, tokens = ANSWER.copy(), ANSWER.copy()
    previous[1] = 4
    tokens[5] = previous[5] = 3
    picture = draw_picture(tokens, SMALL, inputs=PUZZLE, previous=previous, answer=ANSWER)
    left, top, cell = MARGIN, MARGIN + TITLE_HEIGHT, LARGEST_CELL
    assert picture.size == (2 * left + 4 * cell + 1, 2 * MARGIN + TITLE_HEIGHT + 4 * cell + 1)
    for place, kind in ((0, GIVEN), (1, CHANGED), (2, KEPT), (5, WRONG)):
        row, column = divmod(place, 4)
        corner = (left + column * cell + 4, top + row * cell + 4)
        assert picture.getpixel(corner) == ImageColor.getrgb(CELL_COLORS[kind][0])


def test_walls_of_a_maze_are_dark_and_free_cells_light():
    maze = Grid((1, 4), None, "_# SGo", wall="#")
    picture = draw_picture(np.array([1, 2, 3, 4]), maze)
    colors = [
        picture.getpixel((MARGIN + column * LARGEST_CELL + 4, MARGIN + TITLE_HEIGHT + 4))
        for column in range(4)
    ]
    assert [color == ImageColor.getrgb(INK) for color in colors] == [True, False, False, False]
    assert colors[1] == ImageColor.getrgb(PAPER)


def test_steps_become_frames(tmp_path):
    steps = [draw_picture(np.roll(ANSWER, shift), SMALL) for shift in range(5)]
    save_gif(steps, tmp_path / "steps.gif")
    with Image.open(tmp_path / "steps.gif") as frames:
        assert frames.n_frames == 5 and frames.size == steps[0].size
        frames.seek(4)
        assert frames.info["duration"] == 1000 * LAST_FRAME_SECONDS
    sheet = side_by_side_pictures(steps, columns=2)
    assert sheet.size == (2 * steps[0].width, 3 * steps[0].height)
    save_png(sheet, tmp_path / "steps.png")
    with Image.open(tmp_path / "steps.png") as saved:
        assert saved.size == sheet.size
    assert len(list(tmp_path.iterdir())) == 2


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError), limited_file_size(100):
        save_png(draw_picture(ANSWER, SMALL), path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@contextmanager
def limited_file_size(size: int):
    """While inside, files cannot grow beyond a number of bytes, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
