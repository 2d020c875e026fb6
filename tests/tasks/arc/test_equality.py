"""Equality by symmetries is equality of the sets of pairs, written out."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hrm.tasks.arc.equality import DistinctVersions, matches, signature
from hrm.tasks.arc.puzzles import Pair
from hrm.tasks.arc.versions import COLOURS, Version
from hrm.tasks.dihedral import COMPOSED, COUNT, INVERSE, dihedral

ITSELF = Version()


def content(pairs: list[Pair], version: Version = ITSELF) -> list[tuple[object, ...]]:
    """The pairs of a version, without their order."""
    changed = [[version.apply(grid) for grid in pair] for pair in pairs]
    return sorted(tuple((grid.shape, grid.tobytes()) for grid in pair) for pair in changed)


def grids(colours: int):
    sizes = st.tuples(st.integers(1, 3), st.integers(1, 3))
    cells = st.integers(0, colours)
    rows = sizes.flatmap(
        lambda s: st.lists(
            st.lists(cells, min_size=s[1], max_size=s[1]), min_size=s[0], max_size=s[0]
        )
    )
    return rows.map(lambda values: np.array(values, np.uint8))


tasks = st.integers(0, 3).flatmap(
    lambda colours: st.lists(st.tuples(grids(colours), grids(colours)), min_size=1, max_size=4)
)
versions = st.builds(
    lambda transform, colours: Version(transform, (0, *colours)),
    st.integers(0, COUNT - 1),
    st.permutations(range(1, COLOURS)),
)
ONE = np.ones((1, 1), np.uint8)
STRIPES = np.array([[1, 2], [1, 2]], np.uint8)


@settings(max_examples=300)
@given(tasks, st.lists(versions, min_size=1, max_size=8))
@example([(ONE, ONE)] * 3, [Version()])
@example([(STRIPES, ONE), (STRIPES.T, ONE)], [Version(6)])
def test_a_version_is_new_where_its_content_is(pairs: list[Pair], drawn: list[Version]) -> None:
    distinct, met = DistinctVersions(pairs), []
    for version in drawn:
        is_new = content(pairs, version) not in met
        met.append(content(pairs, version))
        assert distinct.add(version.transform, np.array(version.colours, np.uint8)) == is_new


@settings(max_examples=50)
@given(tasks)
def test_symmetries_are_all_that_keep_the_content(pairs: list[Pair]) -> None:
    """Colours up to 3, and only permutations of these are tried."""
    symmetries = list(matches(pairs, pairs))
    used = sorted(symmetries[0][1])
    expected = {
        (transform, tuple(colours[c] for c in used))
        for transform in range(COUNT)
        for colours in ((0, *p, *range(4, 10)) for p in permutations((1, 2, 3)))
        if content(pairs, Version(transform, colours)) == content(pairs)
    }
    found = [(transform, tuple(own[c] for c in used)) for transform, own in symmetries]
    assert set(found) == expected and len(found) == len(expected)


@given(tasks, versions)
def test_a_task_is_found_in_its_versions(pairs: list[Pair], version: Version) -> None:
    changed = [(version.apply(x), version.apply(y)) for x, y in reversed(pairs)]
    assert signature(changed) == signature(pairs)
    used = sorted({0}.union(*(np.unique(grid).tolist() for pair in pairs for grid in pair)))
    wanted = (version.transform, {colour: version.colours[colour] for colour in used})
    assert wanted in matches(pairs, changed)


def test_how_often_a_pair_is_there_counts() -> None:
    zero = np.zeros((1, 1), np.uint8)
    one, two = [(zero, ONE), (ONE, zero)], [(zero, ONE), (zero, ONE), (ONE, zero)]
    assert not list(matches(one, two)) and not list(matches(two, [one[1], *two[1:]]))
    assert list(matches(two, two)) == [(t, {0: 0, 1: 1}) for t in range(COUNT)]


def test_black_stays_black() -> None:
    zero = np.zeros((1, 1), np.uint8)
    assert not list(matches([(zero, zero)], [(ONE, ONE)]))


def test_as_many_symmetries_as_there_can_be() -> None:
    """Nine pairs of one colour each: every permutation is a symmetry."""
    pairs = [(ONE * n, ONE * n) for n in range(1, 7)]
    assert len(list(matches(pairs, pairs))) == COUNT * 720


@pytest.mark.parametrize("first", range(COUNT))
def test_transforms_compose(first: int) -> None:
    grid = np.arange(6).reshape(2, 3)
    assert COMPOSED[INVERSE[first]][first] == 0
    for then in range(COUNT):
        twice = dihedral(dihedral(grid, first), then)
        assert twice.tolist() == dihedral(grid, COMPOSED[then][first]).tolist()
