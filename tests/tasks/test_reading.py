"""Puzzles are read as people write them, and answers judged by the rules."""

import numpy as np
import pytest

from hrm.data.grid import Grid
from hrm.data.split import Split
from hrm.errors import UserError
from hrm.tasks.reading import (
    PuzzleError,
    contradiction,
    keeps_rules,
    parse_puzzle,
    puzzle_tokens,
    refuse_contradictions,
)

from ..conftest import ROOT
from .test_solver import SOLVED, metadata

LOOK = Grid((4, 4), (2, 2), ".1234")
MAZES = ROOT.parent / "shared" / "data" / "maze-30x30-hard-1k"


def test_blanks_of_a_sudoku_may_be_dots_zeros_or_underscores():
    for data, blank in ((metadata(), 0), (metadata(vocab_size=6, blank_identifier_id=0), 1)):
        parsed = parse_puzzle("1.0_" * 4, data)
        np.testing.assert_array_equal(parsed, [1 + blank, blank, blank, blank] * 4)


def test_letters_of_large_grids_may_be_small():
    data = metadata(vocab_size=17, seq_len=256)
    np.testing.assert_array_equal(
        parse_puzzle("aG" + "." * 254, data), parse_puzzle("Ag" + "." * 254, data)
    )


def test_mazes_are_read_by_their_characters():
    parsed = parse_puzzle("# SGo#", metadata(vocab_size=6, seq_len=6))
    np.testing.assert_array_equal(parsed, [1, 2, 3, 4, 5, 1])


def test_mistakes_name_place_and_column():
    with pytest.raises(PuzzleError) as caught:
        parse_puzzle("12x4", metadata(), "file.txt:3")
    assert str(caught.value).startswith("file.txt:3, column 3: character 'x' is not one of")
    assert caught.value.cell == 2


def test_padding_is_no_blank():
    padded = metadata(vocab_size=6, blank_identifier_id=0)
    digits = np.ones((1, 16), int)
    np.testing.assert_array_equal(puzzle_tokens(digits, padded), digits)
    with pytest.raises(UserError, match="token 0 is padding .* give strings"):
        puzzle_tokens(digits * 0, padded)


@pytest.mark.parametrize("symbols", [".1234", "_.1234"])
def test_a_sudoku_needs_the_rules_and_the_givens(symbols):
    look = Grid((4, 4), (2, 2), symbols)
    answer = np.array([symbols.index(c) for c in SOLVED])
    blank = np.full(16, symbols.index("."))
    given = blank.copy()
    given[0] = symbols.index("2")
    tokens = np.stack([answer, answer, np.full(16, answer[0])])
    assert keeps_rules(tokens, np.stack([blank, given, blank]), look) == [True, False, False]


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
    look = Grid((3, 4), None, "_# SGo")
    tokens, inputs = (
        np.array([[look.symbols.index(c) for c in "".join(rows)]]) for rows in (answer, MAZE)
    )
    assert keeps_rules(tokens, inputs, look) == [expected]


@pytest.mark.skipif(not MAZES.is_dir(), reason="the mazes are not there")
def test_answers_of_real_mazes_are_shortest_paths():
    split = Split.open(MAZES / "train")
    examples = [split.example(index) for index in range(0, len(split), 10)]
    look = Grid.from_metadata(split.metadata)
    inputs = np.stack([example.inputs for example in examples])
    labels = np.stack([example.labels for example in examples])
    assert keeps_rules(labels, inputs, look) == [True] * 100
    assert keeps_rules(inputs, inputs, look) == [False] * 100


def test_a_maze_without_a_way_has_no_answer():
    look = Grid((1, 3), None, "_# SGo")
    inputs = np.array([[3, 1, 4]])
    assert keeps_rules(inputs, inputs, look) == [False]


def test_rules_of_other_tasks_are_not_known():
    look = Grid((4, 4), None, "0123456789")
    assert keeps_rules(np.zeros((2, 16), int), np.zeros((2, 16), int), look) == [None, None]


@pytest.mark.parametrize(
    ("text", "expected", "cell"),
    [
        ("1..1" + "." * 12, "1 is given 2 times in row 1", 3),
        ("..3.......3.....", "3 is given 2 times in column 3", 10),
        ("." * 10 + "4....4", "4 is given 2 times in box 4", 15),
    ],
)
def test_contradicting_givens_are_named(text, expected, cell):
    puzzle = parse_puzzle(text, metadata())
    found = contradiction(puzzle, LOOK)
    assert (found.reason, found.cell) == (expected, cell)
    message = f"b, column {cell + 1}: contradicts itself: {expected}"
    with pytest.raises(PuzzleError, match=message):
        refuse_contradictions([puzzle * 0, puzzle], LOOK, ["a", "b"])


@pytest.mark.parametrize("text", [SOLVED, "." * 16])
def test_what_does_not_contradict_itself(text):
    assert contradiction(parse_puzzle(text, metadata()), LOOK) is None
