"""The eight transforms, written out, and versions of ARC tasks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.tasks.arc.versions import Version
from hrm.tasks.dihedral import COUNT, INVERSE, dihedral

GRID = np.array([[1, 2, 3], [4, 5, 6]])
TRANSFORMED = (
    [[1, 2, 3], [4, 5, 6]],
    [[3, 6], [2, 5], [1, 4]],
    [[6, 5, 4], [3, 2, 1]],
    [[4, 1], [5, 2], [6, 3]],
    [[3, 2, 1], [6, 5, 4]],
    [[4, 5, 6], [1, 2, 3]],
    [[1, 4], [2, 5], [3, 6]],
    [[6, 3], [5, 2], [4, 1]],
)


@pytest.mark.parametrize("number", range(COUNT))
def test_each_transform_and_its_inverse(number: int) -> None:
    turned = dihedral(GRID, number)
    assert turned.tolist() == TRANSFORMED[number]
    assert dihedral(turned, INVERSE[number]).tolist() == GRID.tolist()


@given(st.integers(0, 7), st.permutations(range(1, 10)))
def test_versions_are_named_and_undone(transform: int, permutation: list[int]) -> None:
    version = Version(transform, (0, *permutation))
    name = version.name("a_b|c")
    assert name.startswith(f"a_b|c|||t{transform}|||0") and Version.parse(name) == (
        "a_b|c",
        version,
    )
    assert version.undo(version.apply(GRID)).tolist() == GRID.tolist()
    assert version.apply(GRID).tolist() == np.take(version.colours, TRANSFORMED[transform]).tolist()


def test_the_task_itself_has_a_plain_name() -> None:
    assert Version.parse("007bbfb7") == ("007bbfb7", Version())
    for name in ("a|||t8|||0123456789", "a|||t0|||0113456789", "a|||0123456789", "a|||tx|||01"):
        with pytest.raises(ValueError):
            Version.parse(name)
