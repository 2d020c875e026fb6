"""Own grids as a task: how they are written."""

import numpy as np
import pytest

from hrm.data.format import DatasetMetadata
from hrm.inference.sources import from_lines
from hrm.tasks import GridsTask, PuzzleError, task_of

CANVAS = "12¦34¦¦¦_"  # 2x2 of 3x3


def task(symbols: str, shape: tuple[int, int] = (3, 3)):
    return task_of(
        DatasetMetadata(
            vocab_size=len(symbols),
            seq_len=shape[0] * shape[1],
            num_puzzle_identifiers=1,
            pad_id=0,
            ignore_label_id=None,
            blank_identifier_id=-1,
            total_groups=1,
            mean_puzzle_examples=1,
            sets=("all",),
            task="grids",
            grid_shape=shape,
            symbols=symbols,
        )
    )


SEVERAL = task("_¦0123456789")


@pytest.mark.parametrize(
    "text", ["12/34", "12/34/", "12\n34\n", " 12\r\n 34", CANVAS, "12¦\n34¦\n¦¦_"]
)
def test_a_grid_is_written_without_its_canvas(text):
    assert SEVERAL.grid.text(SEVERAL.read(text)) == CANVAS
    assert SEVERAL.read_all([text]).shape == (1, 9)


@pytest.mark.parametrize(
    "text, shown",
    [("7", "7¦_¦_____"), ("123", "123¦¦¦___"), ("1/2/3", "1¦_2¦_3¦_"), ("123456789",) * 2],
)
def test_sizes_up_to_the_canvas(text, shown):
    assert SEVERAL.grid.text(SEVERAL.read(text)) == shown


@pytest.mark.parametrize(
    "text, reason",
    [
        ("12/3", "rows of 2, 1 characters"),
        ("1234", "1x4 cells, expected at most 3x3"),
        ("1/2/3/4", "4x1 cells, expected at most 3x3"),
        ("12/3x", "puzzle, row 2, column 2: character 'x' is not one of"),
        ("", "holds no cell"),
    ],
)
def test_what_is_no_grid(text, reason):
    with pytest.raises(PuzzleError) as refused:
        SEVERAL.read(text)
    assert reason in str(refused.value)


def test_files_hold_grids_between_blank_lines_or_one_a_line():
    text = "12\n34\n\n12/34\n7\n\n\n123456789\n1\n"
    puzzles = from_lines(text.splitlines(keepends=True), "x.txt", SEVERAL)
    shown = [SEVERAL.grid.text(puzzle.inputs) for puzzle in puzzles]
    assert shown == [CANVAS, CANVAS, "7¦_¦_____", "123456789", "1¦_¦_____"]
    assert [puzzle.place for puzzle in puzzles] == [f"x.txt:{n}" for n in (1, 4, 5, 8, 9)]
    with pytest.raises(PuzzleError, match="x.txt:3"):
        from_lines(["12\n", "\n", "12\n", "345\n"], "x.txt", SEVERAL)


def test_spaces_and_slashes_are_cells_where_they_are_symbols():
    spaced, slashed = task("_¦ x"), task("_¦/x")
    assert spaced.grid.text(spaced.read(" x\nx ")) == " x¦x ¦¦¦_"
    assert slashed.grid.text(slashed.read("/x\nx/")) == "/x¦x/¦¦¦_"


def test_grids_of_one_size_are_written_in_one_line_too():
    one = task("_01", (2, 2))
    for text in ("0110", "01/10", "01\n10"):
        assert np.array_equal(one.read(text), [1, 2, 2, 1])
    assert one.are_valid(np.zeros((1, 4), int), np.zeros((1, 4), int)) == [None]


def test_grids_of_one_size_have_its_rows():
    """A turned question is refused, not written in another order."""
    one, several = task("_ab", (2, 3)), task("_¦ab", (2, 3))
    assert np.array_equal(one.read("aab/bab/"), [1, 1, 2, 2, 1, 2])
    for read in (one, several):
        for text in ("ab/ab/ab", "ab\nab\nab", "a/ababa"):
            with pytest.raises(PuzzleError, match="rows of|cells, expected"):
                read.read(text)
    [found] = from_lines(["aab/bab\n"], "x.txt", one)
    assert found.inputs.tolist() == [1, 1, 2, 2, 1, 2]
    with pytest.raises(PuzzleError, match="x.txt:1"):
        from_lines(["ab/ab/ab\n"], "x.txt", one)


def test_no_cell_is_given_where_answers_may_change_all():
    one = task("_.#o", (2, 2))
    assert not one.grid.givens(one.read(".#oo")).any() and one.grid.empty == "_."

    class Filled(GridsTask):
        keeps_givens = True

    assert Filled(one.metadata).grid.givens(one.read(".#oo")).tolist() == [False, True, True, True]
