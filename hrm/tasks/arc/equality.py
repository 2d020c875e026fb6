"""When ARC tasks, or versions of one, are the same: found by their symmetries, not by their grids.

A task's content is its pairs without their order. A version is a transform and a permutation of
colours, applied to every grid; these form a group, so two versions of a task have the same content
exactly where they differ by a *symmetry* of it, a version that leaves its content as it is. There
are few of them, often one. Permutations count as far as colours are in use.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from hrm.tasks.arc.puzzles import Pair
from hrm.tasks.arc.versions import COLOURS
from hrm.tasks.dihedral import COMPOSED, COUNT, dihedral

BLACK = 0
ColourMap = dict[int, int]  # old colour -> new colour, one to one, for the colours in use


class DistinctVersions:
    """Which versions of a task were met before, under whatever transform and colours."""

    def __init__(self, pairs: Sequence[Pair]):
        symmetries = list(matches(pairs, pairs))
        self._used = np.array(sorted(symmetries[0][1]))
        self._transforms = np.array([transform for transform, _ in symmetries])
        self._images = np.array([[own[c] for c in self._used.tolist()] for _, own in symmetries])
        self._places = COUNT * COLOURS ** np.arange(len(self._used))
        self._met: set[int] = set()

    def add(self, transform: int, colours: np.ndarray) -> bool:
        """Meet a version; whether it is new.

        Args:
            colours: new colour of each colour, [10] integers.
        """
        if transform + int(colours[self._used] @ self._places) in self._met:
            return False
        transforms = np.take(COMPOSED[transform], self._transforms)
        self._met.update((transforms + colours[self._images] @ self._places).tolist())
        return True


def signature(pairs: Sequence[Pair]) -> tuple[object, ...]:
    """Equal for tasks of the same content, in whatever version; seldom equal for others."""
    return tuple(sorted(map(_pair_signature, pairs)))


def matches(pairs: Sequence[Pair], others: Sequence[Pair]) -> Iterator[tuple[int, ColourMap]]:
    """The versions of one task that have the content of another, each once.

    Of a task and itself they are the task's symmetries.

    Yields:
        Transform, see `dihedral`, and colours.
    """
    ours, theirs = _counted(pairs), _counted(others)
    if sorted(key for key, _ in ours) != sorted(key for key, _ in theirs):
        return
    for transform in range(COUNT):
        choices = []
        for key, (x, y) in ours:
            turned = (dihedral(x, transform), dihedral(y, transform))
            maps = (_colour_map(turned, other) for same, other in theirs if same == key)
            choices.append([found for found in maps if found is not None])
        # Different pairs go to different pairs, since every map is one to one.
        for colours in _joined(sorted(choices, key=len), {}):
            yield transform, colours


def _counted(pairs: Sequence[Pair]) -> list[tuple[tuple[object, ...], Pair]]:
    """The different pairs of a task, each with its signature and how often it is there."""
    written = [(_pair_signature(pair), [grid.tolist() for grid in pair]) for pair in pairs]
    ordered = sorted(range(len(pairs)), key=lambda n: written[n])
    found = []
    for (key, _), same in groupby(ordered, key=lambda n: written[n]):
        first, *more = same
        found.append(((1 + len(more), *key), pairs[first]))
    return found


def _pair_signature(pair: Pair) -> tuple[object, ...]:
    """What no transform and no permutation of colours changes."""
    parts: list[object] = []
    for grid in pair:
        black, *counts = np.bincount(grid.ravel(), minlength=COLOURS).tolist()
        parts.append((*sorted(grid.shape), black, *sorted(counts)))
    return tuple(parts)


def _colour_map(pair: Pair, other: Pair) -> ColourMap | None:
    """The colours by which a pair becomes another, None where none do."""
    if any(a.shape != b.shape for a, b in zip(pair, other, strict=True)):
        return None
    old, new = (np.concatenate([grid.ravel() for grid in grids]) for grids in (pair, other))
    codes = np.unique(old.astype(np.int64) * COLOURS + new)
    return _merged({BLACK: BLACK}, [divmod(code, COLOURS) for code in codes.tolist()])


def _joined(choices: Sequence[Sequence[ColourMap]], known: ColourMap) -> Iterator[ColourMap]:
    """What is known and one map of each list, joined: all that are one to one."""
    if not choices:
        yield known
        return
    for found in choices[0]:
        if (merged := _merged(known, found.items())) is not None:
            yield from _joined(choices[1:], merged)


def _merged(known: ColourMap, more: Iterable[tuple[int, int]]) -> ColourMap | None:
    """A map with more in it, None where they contradict each other or two colours become one."""
    merged = dict(known)
    for old, new in more:
        if merged.setdefault(old, new) != new:
            return None
    return merged if len(set(merged.values())) == len(merged) else None
