"""The crop is the rectangle that a plain search finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.tasks.arc.crop import content, crop, grid_of

from .making import SIDE, brute_force_crop, tokens_of


@st.composite
def predictions(draw) -> np.ndarray:
    """Tokens of all kinds, colours mostly: holes, ragged rows, whole grids; also wrong tokens."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tokens = rng.integers(2, 12, size=(SIDE, SIDE))
    if draw(st.booleans()):
        widths = rng.integers(draw(st.integers(0, SIDE)), SIDE + 1, size=SIDE)
        tokens[np.arange(SIDE) >= widths[:, None]] = draw(st.sampled_from([0, 1, 12, -1]))
    holes = rng.random((SIDE, SIDE)) < draw(st.sampled_from([0, 0.002, 0.02, 0.5, 1]))
    tokens[holes] = rng.integers(2, size=holes.sum())
    return tokens.ravel()


@given(st.lists(predictions(), min_size=1, max_size=4))
def test_it_is_the_largest_rectangle_of_colours(rows):
    for found, row in zip(crop(np.stack(rows)), rows, strict=True):
        np.testing.assert_array_equal(found, brute_force_crop(row), strict=True)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (30, 30), (30, 1), (1, 30)])
def test_a_whole_grid_comes_back(shape, dtype):
    grid = np.random.default_rng(0).integers(10, size=shape, dtype=np.uint8)
    [found] = crop(tokens_of(grid)[None].astype(dtype))
    np.testing.assert_array_equal(found, grid, strict=True)
    assert grid_of(content(found)) == grid.tolist()


def test_of_equal_areas_the_one_with_fewest_rows_counts():
    tokens = np.zeros((SIDE, SIDE), int)
    tokens[:2, :2] = tokens[0, :4] = tokens[:4, 0] = 5
    assert crop(tokens.reshape(1, -1))[0].shape == (1, 4)
    tokens[2, :2] = 5
    assert crop(tokens.reshape(1, -1))[0].shape == (3, 2)


def test_where_the_first_token_is_no_colour_there_is_no_grid():
    tokens = np.full((3, SIDE**2), 5)
    tokens[:, 0] = [0, 1, 12]
    assert [grid.shape for grid in crop(tokens)] == [(0, 0)] * 3
    assert grid_of(content(crop(tokens)[0])) == []
    assert crop(tokens[:0]) == []
