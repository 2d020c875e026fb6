"""Generated mazes: one shortest path, long enough, none twice, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.tasks.dihedral import COUNT, dihedral
from hrm.tasks.maze import generator
from hrm.tasks.maze.generator import (
    default_min_path,
    generate_split,
    longest_path,
    parse_maze_shape,
)

TOKENS = "_# SGo"


def drawn(tokens: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.array(list(TOKENS))[tokens].reshape(shape)


def shortest_ways(maze: np.ndarray) -> tuple[int, int]:
    """Moves of a shortest path and how many there are, by powers of the adjacency matrix."""
    cells = np.argwhere(maze != "#")
    apart = np.abs(cells[:, None] - cells[None]).sum(-1)
    adjacent = (apart == 1).astype(object)  # whole numbers without an end
    symbols = maze[tuple(cells.T)]
    start, goal = int(np.argmax(symbols == "S")), int(np.argmax(symbols == "G"))
    ways = adjacent[start]
    for moves in range(1, len(cells)):
        if ways[goal]:
            return moves, int(ways[goal])
        ways = ways @ adjacent
    raise AssertionError("no way")


sides = st.integers(4, 11)


@settings(max_examples=40)
@given(rows=sides, columns=sides, seed=st.integers(0, 2**63 - 1), share=st.floats(0, 1))
def test_mazes_have_one_shortest_path_of_the_length_that_is_asked(rows, columns, seed, share):
    shape = rows, columns
    least = max(1, round(share * default_min_path(shape)))
    (train, _), again = (generate_split(shape, 3, 0, least, seed) for _ in range(2))
    assert (train[0] == again[0][0]).all() and (train[1] == again[0][1]).all()
    assert train[0].dtype == train[1].dtype == np.uint8
    for question, answer in zip(*train, strict=True):
        maze, solved = drawn(question, shape), drawn(answer, shape)
        assert (maze == "S").sum() == (maze == "G").sum() == 1 and not (maze == "o").any()
        moves, ways = shortest_ways(maze)
        assert ways == 1 and moves >= least
        changed = maze != solved
        assert (maze[changed] == " ").all() and (solved[changed] == "o").all()
        assert changed.sum() == moves - 1
        assert shortest_ways(np.where(solved == " ", "#", solved)) == (moves, 1)


def test_mazes_have_loops():
    questions = generate_split((15, 15), 20, 0)[0][0]
    free = (questions != TOKENS.index("#")).sum(1)
    assert (free > 8 * 8 + 8 * 8 - 1).all()  # rooms, and the passages of a tree


@pytest.mark.parametrize("shape", [(5, 5), (5, 7)])
def test_no_maze_is_another_one_turned(shape):
    """Also where there are few: 5x5 has hardly more than are asked for."""
    train, test = generate_split(shape, 300, 200)
    known: set[bytes] = set()
    for question in np.concatenate([train[0], test[0]]):
        grid = question.reshape(shape)
        turned = [dihedral(grid, number) for number in range(COUNT)]
        versions = {version.tobytes() for version in turned if version.shape == shape}
        assert not versions & known
        known |= versions
    assert len(train[0]) == 300 and len(test[0]) == 200


def test_another_seed_gives_other_mazes_and_a_longer_test_split_the_same_training_mazes():
    first, other, longer = (
        generate_split((7, 9), 10, num_test, seed=seed)[0]
        for num_test, seed in ((0, 1), (0, 2), (5, 1))
    )
    assert (first[0] != other[0]).any() and (first[0] == longer[0]).all()


def test_an_even_side_has_a_line_of_wall_at_its_end():
    questions = generate_split((6, 8), 5, 0)[0][0].reshape(-1, 6, 8)
    assert (questions[:, -1] == 1).all() and (questions[:, :, -1] == 1).all()
    assert (questions[:, 0] != 1).any(1).all()


@pytest.mark.parametrize(
    ("shape", "counts", "least", "words"),
    [
        ((9, 9), (1, 0), 49, ["--min-path 49", "more than 48 moves"]),
        ((3, 3), (10, 0), None, ["--generate 3x3", "(found 3)", "--num-train"]),
        ((5, 5), (900, 100), 8, ["too few different mazes for 900 training and 100 test"]),
        ((41, 41), (1, 0), longest_path((41, 41)), ["--min-path 880", "out of reach"]),
    ],
)
def test_what_is_out_of_reach_ends_with_one_line(monkeypatch, shape, counts, least, words):
    monkeypatch.setattr(generator, "MAX_FAILURES_IN_A_ROW", 5)
    monkeypatch.setattr(generator, "MAX_REPEATS_IN_A_ROW", 200)
    with pytest.raises(UserError) as caught:
        generate_split(shape, *counts, least)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_the_search_for_a_maze_ends_by_the_clock(monkeypatch):
    monkeypatch.setattr(generator, "PATIENCE_SECONDS", 0)
    monkeypatch.setattr(generator, "MAX_FAILURES_IN_A_ROW", 10**9)
    with pytest.raises(UserError, match="out of reach"):
        generate_split((31, 31), 1, 0, longest_path((31, 31)))


@pytest.mark.parametrize(
    "text", ["2x9", "9x2", "0x0", "101x100", "9", "9x", "ax9", "9x9x9", "-9x9"]
)
def test_shapes_that_make_no_maze(text):
    with pytest.raises(UserError):
        parse_maze_shape(text)
    assert parse_maze_shape("3X100") == (3, 100)
