"""Puzzles are read as people write them, and answers judged by the rules."""

import numpy as np
import pytest

from hrm.data.split import Split
from hrm.errors import UserError
from hrm.inference.sources import from_lines
from hrm.tasks import PuzzleError, Task, task_of
from hrm.tasks.base import Unit

from ..conftest import ROOT
from ..inference.test_solver import SOLVED, metadata

SUDOKU = task_of(metadata())


def maze(rows: int, columns: int) -> Task:
    return task_of(metadata(vocab_size=6, seq_len=rows * columns, grid_shape=(rows, columns)))


MAZES = ROOT.parent / "shared" / "data" / "maze-30x30-hard-1k"


def test_blanks_of_a_sudoku_may_be_dots_zeros_or_underscores():
    for data, blank in ((metadata(), 0), (metadata(vocab_size=6, blank_identifier_id=0), 1)):
        parsed = task_of(data).read("1.0_" * 4)
        np.testing.assert_array_equal(parsed, [1 + blank, blank, blank, blank] * 4)


def test_letters_of_large_grids_may_be_small():
    data = metadata(vocab_size=17, seq_len=256)
    np.testing.assert_array_equal(
        task_of(data).read("aG" + "." * 254), task_of(data).read("Ag" + "." * 254)
    )


def test_mazes_are_read_by_their_characters():
    parsed = task_of(metadata(vocab_size=6, seq_len=6)).read("# SGo#")
    np.testing.assert_array_equal(parsed, [1, 2, 3, 4, 5, 1])


def test_mistakes_name_place_and_column():
    with pytest.raises(PuzzleError) as caught:
        task_of(metadata()).read("12x4", "file.txt:3")
    assert str(caught.value).startswith("file.txt:3, column 3: character 'x' is not one of")
    assert caught.value.cell == 2


def test_padding_is_no_blank():
    padded = task_of(metadata(vocab_size=6, blank_identifier_id=0))
    digits = np.ones((1, 16), int)
    np.testing.assert_array_equal(padded.read_all(digits), digits)
    with pytest.raises(UserError, match="token 0 is padding .* give strings"):
        padded.read_all(digits * 0)


@pytest.mark.parametrize("symbols", [".1234", "_.1234"])
def test_a_sudoku_needs_the_rules_and_the_givens(symbols):
    task = task_of(metadata(symbols=symbols, vocab_size=len(symbols)))
    answer = np.array([symbols.index(c) for c in SOLVED])
    blank = np.full(16, symbols.index("."))
    given = blank.copy()
    given[0] = symbols.index("2")
    tokens = np.stack([answer, answer, np.full(16, answer[0])])
    assert task.are_valid(tokens, np.stack([blank, given, blank])) == [True, False, False]


MAZE = ("S  #", " #  ", "   G")
PATHS = {
    ("S  #", "o#  ", "oooG"): True,
    ("Soo#", " #oo", "   G"): True,
    ("Soo#", "o#oo", "oooG"): False,  # both
    ("S  #", "o#  ", "o ooG"[:4]): False,  # a gap
    ("S  #", " #  ", "   G"): False,  # none
    ("Soo#", " #o ", "  oG"): True,
    ("So #", " oo ", "  oG"): False,  # through the wall
    ("o  #", "o#  ", "oooG"): False,  # the start is gone
    ("S  #", "o#  ", "ooo "): False,  # the goal is gone
    ("S oo", "o#  ", "oooG"): False,  # a wall is gone
}


@pytest.mark.parametrize(("answer", "expected"), PATHS.items())
def test_a_maze_needs_one_shortest_path(answer, expected):
    task = maze(3, 4)
    tokens, inputs = (
        np.array([[task.symbols.index(c) for c in "".join(rows)]]) for rows in (answer, MAZE)
    )
    assert task.are_valid(tokens, inputs) == [expected]


@pytest.mark.skipif(not MAZES.is_dir(), reason="the mazes are not there")
def test_answers_of_real_mazes_are_shortest_paths():
    split = Split.open(MAZES / "train")
    examples = [split.example(index) for index in range(0, len(split), 10)]
    task = task_of(split.metadata)
    inputs = np.stack([example.inputs for example in examples])
    labels = np.stack([example.labels for example in examples])
    assert task.are_valid(labels, inputs) == [True] * 100
    assert task.are_valid(inputs, inputs) == [False] * 100


def test_a_maze_without_a_way_has_no_answer():
    inputs = np.array([[3, 1, 4]])
    assert maze(1, 3).are_valid(inputs, inputs) == [False]


@pytest.mark.parametrize(
    ("rows", "reason", "cell"),
    [
        (("S  #", " #  ", "    "), "no goal; one cell must be G", None),
        (("   #", " #  ", "   G"), "no start; one cell must be S", None),
        (("S  #", " # S", "   G"), "a second start (S)", 7),
        (("S  #", " #G ", "   G"), "a second goal (G)", 11),
        (("S #G", "  ##", "    "), "there is no way from S to G", None),
    ],
)
def test_a_maze_without_an_answer_is_told(rows, reason, cell):
    task = maze(3, 4)
    good, bad = task.read("\n".join(MAZE)), task.read("\n".join(rows))
    assert task.contradictory(np.stack([good, bad])).tolist() == [False, True]
    assert task.contradiction(good) is None
    with pytest.raises(PuzzleError) as caught:
        task.refuse_contradictions([good, bad], ["a.txt:1", "a.txt:4"])
    shown = "" if cell is None else f", column {cell + 1}"
    assert str(caught.value) == f"a.txt:4{shown}: contradicts itself: {reason}"


def test_rows_of_a_maze_keep_their_spaces():
    task = maze(3, 4)
    drawn = [*MAZE, *("    ", "S## ", "G   ")]
    readings = [*task.notation.find([f"{line}\n" for line in drawn], (3, 4), "a.txt")]
    assert [task.grid.text(reading.tokens) for reading in readings] == [
        "".join(MAZE),
        "    S## G   ",
    ]
    below = ["    \n", *(f"{row}\n" for row in ("S## ", "  # ", "G   "))]
    [puzzle] = from_lines(below, "a.txt", maze(4, 4))
    assert maze(4, 4).grid.text(puzzle.inputs) == "    S##   # G   "
    with pytest.raises(PuzzleError, match="a.txt:1: 4 char.*; spaces are cells, at the end of a"):
        [*task.notation.find(["S  #\n", " #\n", "   G\n"], (3, 4), "a.txt")]


def test_rules_of_other_tasks_are_not_known():
    other = task_of(metadata(vocab_size=10))
    assert other.are_valid(np.zeros((2, 16), int), np.zeros((2, 16), int)) == [None, None]


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "latin-square", "symbols": ".1234"},
        {"task": "sudoku", "symbols": ".abcd"},
        {"task": "sudoku", "seq_len": 36, "vocab_size": 7},  # boxes of 2x3 or 3x2
        {"task": "maze", "symbols": ".1234"},
        {"task": "grids"},
    ],
    ids=str,
)
def test_what_is_not_known_is_drawn_and_never_judged(changes):
    data = metadata(**changes)
    task = task_of(data)
    grids = np.tile(np.arange(data.seq_len) % 2 + 1, (2, 1))
    assert task.name == "grids"
    assert task.are_valid(grids, grids) == [None, None]
    assert task.contradiction(grids[0]) is None and not task.contradictory(grids).any()
    task.refuse_contradictions(list(grids), ["a", "b"])
    assert len(task.grid.text(grids[0])) == data.seq_len


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "sudoku"),
        ({"vocab_size": 6}, "sudoku"),
        ({"vocab_size": 6, "seq_len": 900}, "maze"),
        ({"vocab_size": 12, "seq_len": 900}, "arc"),
        ({"vocab_size": 13, "seq_len": 900}, "grids"),
        ({"task": "sudoku"}, "sudoku"),
        ({"task": "maze", "vocab_size": 6}, "maze"),
        ({"seq_len": 36, "vocab_size": 7}, "grids"),
        ({"seq_len": 36, "vocab_size": 7, "box_shape": (3, 2)}, "sudoku"),
    ],
    ids=str,
)
def test_the_task_is_named_or_inferred(changes, name):
    assert task_of(metadata(**changes)).name == name


def test_tokens_without_a_symbol_have_letters_of_their_own():
    task = task_of(metadata(vocab_size=70, seq_len=70, symbols="_aĀ"))
    assert len(set(task.symbols)) == 70 and task.symbols.startswith("_aĀ")
    tokens = np.arange(70, dtype=np.int32)
    np.testing.assert_array_equal(task.read(task.grid.text(tokens)), tokens)


def test_frames_and_spaces_of_a_sudoku_do_not_count():
    drawn = "+-----+-----+\n| 1 2 | . . |\n| . 0 | _ 4 |\n" + "│ . . │ . . │\r\n" * 2
    np.testing.assert_array_equal(SUDOKU.read(drawn), [1, 2, *[0] * 5, 4, *[0] * 8])
    with pytest.raises(PuzzleError) as caught:
        SUDOKU.read("1 2 | . x")
    assert (caught.value.cell, caught.value.column) == (3, 8)
    assert str(caught.value).startswith("puzzle, column 9: character 'x'")


@pytest.mark.parametrize(
    ("text", "expected", "cell"),
    [
        ("1..1" + "." * 12, "1 is given 2 times in row 1", 3),
        ("..3.......3.....", "3 is given 2 times in column 3", 10),
        ("." * 10 + "4....4", "4 is given 2 times in box 4", 15),
    ],
)
def test_contradicting_givens_are_named(text, expected, cell):
    puzzle = SUDOKU.read(text)
    found = SUDOKU.contradiction(puzzle)
    assert (found.reason, found.cell) == (expected, cell)
    message = f"b, column {cell + 1}: contradicts itself: {expected}"
    with pytest.raises(PuzzleError, match=message):
        SUDOKU.refuse_contradictions([puzzle * 0, puzzle], ["a", "b"])


@pytest.mark.parametrize("text", [SOLVED, "." * 16])
def test_what_does_not_contradict_itself(text):
    assert SUDOKU.contradiction(SUDOKU.read(text)) is None
    assert not SUDOKU.contradictory(SUDOKU.read(text)[None]).any()


class Unequal(Task):
    """Its units have different numbers of cells."""

    units = (Unit("pair 1", (0, 1)), Unit("line 1", (1, 2, 3, 4)), Unit("cell 1", (5,)))


@pytest.mark.parametrize(
    ("text", "reason", "cell"),
    [
        ("12.2..", "2 is given 2 times in line 1", 3),
        ("1.1.1.", "1 is given 2 times in line 1", 4),
        ("22....", "2 is given 2 times in pair 1", 1),
        ("1.2.11", None, None),
        ("......", None, None),
    ],
)
def test_contradictions_in_units_of_different_sizes(text, reason, cell):
    task = Unequal(metadata(vocab_size=3, seq_len=6, grid_shape=(1, 6), symbols=".12"))
    inputs = task.read(text)
    found = task.contradiction(inputs)
    assert (found and found.reason, found and found.cell) == (reason, cell)
    np.testing.assert_array_equal(task.contradictory(np.stack([inputs] * 3)), [bool(reason)] * 3)


LARGE = task_of(metadata(vocab_size=17, seq_len=256))


@pytest.mark.parametrize(
    ("text", "first", "meaning"),
    [
        ("10A" + "." * 253, [1, 16, 10], "0 is read as a digit, G"),
        ("10A" + "-" * 253, [1, 16, 10], "0 is read as a digit, G"),
        ("10G" + "." * 253, [1, 0, 16], None),
        ("10A" + "0" * 253, [1, 0, 10], None),
        ("AHp" + "." * 253, [10, 1, 9], "H to P are read as 1 to 9"),
        ("A0H" + "." * 253, [10, 0, 1], "H to P are read as 1 to 9"),
        ("ABC" + "." * 253, [10, 11, 12], None),
    ],
)
def test_what_a_character_means_may_depend_on_the_others(text, first, meaning):
    reading = LARGE.notation.reading(text, LARGE.shape)
    assert reading.tokens[:3].tolist() == first and not reading.tokens[3:].any()
    assert (reading.spelling.meaning if reading.spelling else "").startswith(meaning or "")
    assert (reading.spelling is None) == (meaning is None)


def test_dashes_of_a_frame_do_not_make_zeros_digits():
    rows = ["|".join(("1000" if r == 0 else "0000", *["0000"] * 3)) for r in range(16)]
    tokens = LARGE.read("\n-----\n".join(rows))
    assert tokens[0] == 1 and not tokens[1:].any()


def test_no_given_is_ever_dropped():
    """Whatever is written around and between them: a text is refused, or all its digits count."""
    rng = np.random.default_rng(0)
    pieces = np.array([*"1234", *"..00__**--", "\n", "\n", " ", "|", "+", "#", "·", "[", "--+--\n"])
    read = 0
    for _ in range(4000):
        puzzle = "".join(rng.choice(list("1234.-"), 16))
        places = np.sort(rng.choice(17, rng.integers(0, 5)))[::-1]
        for place in places:
            puzzle = puzzle[:place] + str(rng.choice(pieces)) + puzzle[place:]
        try:
            tokens = SUDOKU.read(puzzle)
        except PuzzleError:
            continue
        read += 1
        shown = "\n".join(line.partition("#")[0] for line in puzzle.split("\n"))
        digits = [int(c) for c in shown if c in "1234"]
        assert tokens[tokens > 0].tolist() == digits, puzzle
    assert read > 500
