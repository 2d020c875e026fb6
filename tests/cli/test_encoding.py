"""Output where a terminal or a file cannot show all characters."""

import io
import sys

import numpy as np
import pytest

from hrm.cli.encoding import accept_any_text
from hrm.cli.main import main
from hrm.data.grid import DIGIT_SYMBOLS
from hrm.inference.sources import from_lines
from hrm.tasks import task_of
from hrm.viz import draw_grid

from ..conftest import saved_run
from ..inference.test_solver import metadata

SIDES = {(2, 2): 4, (2, 3): 6, (3, 3): 9, (4, 4): 16}


def stream(encoding: str) -> io.TextIOWrapper:
    opened = io.TextIOWrapper(io.BytesIO(), encoding)
    accept_any_text(opened, None)
    return opened


def written(opened: io.TextIOWrapper) -> str:
    opened.flush()
    return opened.buffer.getvalue().decode(opened.encoding)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "│·│ é 数 \\udcff"),
        ("latin-1", "|·| é \\u6570 \\udcff"),
        ("ascii", "|:| \\xe9 \\u6570 \\udcff"),
        ("cp437", "│·│ é \\u6570 \\udcff"),
    ],
)
def test_any_text_can_be_written(encoding, expected):
    opened = stream(encoding)
    opened.write("│·│ é 数 \udcff")
    assert written(opened) == expected


@pytest.mark.parametrize("box", SIDES)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_drawn_puzzle_can_be_read_back(encoding, box):
    side = SIDES[box]
    task = task_of(
        metadata(
            seq_len=side**2,
            vocab_size=side + 1,
            grid_shape=(side, side),
            box_shape=box,
            symbols=DIGIT_SYMBOLS[: side + 1],
        )
    )
    puzzle = np.arange(side**2) * 7 % (side + 1)
    opened = stream(encoding)
    opened.write(draw_grid(puzzle, task.grid, inputs=puzzle))
    text = written(opened)
    assert ("┌" in text) == (encoding == "utf-8") and ("+--" in text) == (encoding != "utf-8")
    [read] = from_lines(io.StringIO(text), "drawn.txt", task)
    np.testing.assert_array_equal(read.inputs, puzzle)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_solving_on_a_terminal_without_frames(encoding, data_4x4, tmp_path, monkeypatch):
    run_dir = saved_run(data_4x4, tmp_path / "run")
    out, err = stream(encoding), stream(encoding)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    arguments = ["hrm", "solve", str(run_dir), "--trace", "--device", "cpu", "12" + "." * 14]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, 1)
    lines = written(out).splitlines()
    assert lines[2].startswith("+------+------+") and lines[3].startswith("| 1  2 | .  . |")
    assert max(map(len, lines[:9])) <= 40 and "Traceback" not in written(err)
