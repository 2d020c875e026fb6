"""Grids as tokens, drawn out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hrm.tasks.arc.drawing import draw_corners, draw_no_corners
from hrm.tasks.arc.encoding import SYMBOLS, encode
from hrm.tasks.arc.versions import Version, Versions

GRID = np.array([[3, 0, 5], [0, 5, 5]], np.uint8)
SWAPPED = (0, 1, 2, 5, 4, 3, 6, 7, 8, 9)


def drawn(version: Version, corner: tuple[int, int], side: int = 5, grid=GRID) -> list[str]:
    [tokens] = encode(grid, Versions.of([version]), np.array([corner]), side)
    assert tokens.dtype == np.uint8 and tokens.shape == (side * side,)
    return ["".join(SYMBOLS[t] for t in row) for row in tokens.reshape(side, side)]


def test_a_grid_is_marked_where_it_ends() -> None:
    assert drawn(Version(), (0, 0)) == ["305=_", "055=_", "===__", "_____", "_____"]
    assert drawn(Version(), (1, 1)) == ["_____", "_305=", "_055=", "_===_", "_____"]


def test_a_grid_that_touches_an_edge_has_no_mark_there() -> None:
    assert drawn(Version(), (3, 1)) == ["_____", "_____", "_____", "_305=", "_055="]
    assert drawn(Version(), (2, 2)) == ["_____", "_____", "__305", "__055", "__==="]
    assert drawn(Version(), (3, 2)) == ["_____", "_____", "_____", "__305", "__055"]
    assert drawn(Version(), (0, 0), 3) == ["305", "055", "==="]


def test_versions_are_placed_as_they_are_turned_and_coloured() -> None:
    assert drawn(Version(6, SWAPPED), (0, 1)) == ["_50=_", "_03=_", "_33=_", "_==__", "_____"]


@given(st.data())
def test_many_versions_are_each_as_alone(data: st.DataObject) -> None:
    versions = [
        Version(data.draw(st.integers(0, 7)), (0, *data.draw(st.permutations(range(1, 10)))))
        for _ in range(data.draw(st.integers(1, 9)))
    ]
    corners = [data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for _ in versions]
    tokens = encode(GRID, Versions.of(versions), np.array(corners), 6)
    for row, version, corner in zip(tokens, versions, corners, strict=True):
        canvas = np.zeros((7, 7), int)
        grid = version.apply(GRID)
        (r, c), (n, m) = corner, grid.shape
        canvas[r : r + n, c : c + m] = grid + 2
        canvas[r + n, c : c + m] = canvas[r : r + n, c + m] = 1
        assert row.tolist() == canvas[:6, :6].ravel().tolist()


def test_one_pair_of_each_version_stays_in_its_corner() -> None:
    """The others are anywhere where both of their grids fit."""
    pairs = [(GRID, GRID.T), (GRID, GRID), (GRID[:1], GRID)]
    versions = Versions.of([Version(t) for t in range(8)] * 100)
    corners = draw_corners(pairs, versions, 4, np.random.RandomState(0))
    assert corners.shape == (800, 3, 2) and (corners.max(2) == 0).any(1).all()
    assert (corners.max(2) == 0).all(0).tolist() == [False] * 3
    assert corners[:, 0].max(0).tolist() == [1, 1]  # 3x3 cells are taken
    upright = ~np.isin(versions.transforms, [1, 3, 6, 7])
    assert corners[upright, 1:].max((0, 1)).tolist() == [2, 1]
    assert corners[~upright, 1:].max((0, 1)).tolist() == [1, 2]
    assert draw_no_corners(pairs, versions, 4, np.random.RandomState(0)).max() == 0


def test_a_single_pair_stays() -> None:
    corners = draw_corners(
        [(GRID, GRID)], Versions.of([Version()] * 9), 30, np.random.RandomState(0)
    )
    assert corners.shape == (9, 1, 2) and corners.max() == 0


def test_arrays_of_limits_draw_what_single_limits_do() -> None:
    """Which the published stream relies on."""
    limits = np.random.default_rng(0).integers(1, 32, 2000)
    one, all_at_once = np.random.RandomState(3), np.random.RandomState(3)
    assert [one.randint(0, n) for n in limits.tolist()] == all_at_once.randint(0, limits).tolist()
    assert one.randint(0, 2**31) == all_at_once.randint(0, 2**31)
