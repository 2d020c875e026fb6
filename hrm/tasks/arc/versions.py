"""Versions of an ARC task: turned or reflected, in other colours; names and undoing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hrm.tasks.dihedral import COUNT, INVERSE, dihedral

SEPARATOR = "|||"
COLOURS = 10  # black, 0, stays


class Version(NamedTuple):
    """What is done to every grid of a task, inputs and outputs."""

    transform: int = 0  # see `dihedral`
    colours: tuple[int, ...] = tuple(range(COLOURS))  # new colour of each colour

    @staticmethod
    def parse(name: str) -> "tuple[str, Version]":
        """The task, and which version of it `name` means; a plain name is the task itself.

        Raises:
            ValueError: the name has the separator, and is none that `name` makes.
        """
        if SEPARATOR not in name:
            return name, Version()
        task, transform, colours = name.rsplit(SEPARATOR, 2)
        version = Version(int(transform.removeprefix("t")), tuple(map(int, colours)))
        known = version.transform < COUNT and sorted(version.colours) == list(range(COLOURS))
        if version.name(task) != name or not known:
            raise ValueError(f"{name!r} is not the name of a version")
        return task, version

    def name(self, task: str) -> str:
        """As in `identifiers.json`, for any version but the task itself."""
        return SEPARATOR.join((task, f"t{self.transform}", "".join(map(str, self.colours))))

    def apply(self, grid: np.ndarray) -> np.ndarray:
        """A grid of the task, [rows, columns] of colours, as it is in this version."""
        return dihedral(np.array(self.colours, np.uint8)[grid], self.transform)

    def undo(self, grid: np.ndarray) -> np.ndarray:
        """A grid of this version as it is in the task."""
        return np.argsort(self.colours).astype(np.uint8)[dihedral(grid, INVERSE[self.transform])]


@dataclass(frozen=True)
class Versions:
    """Versions of one task, as arrays."""

    transforms: np.ndarray  # [V] uint8
    colours: np.ndarray  # [V, 10] uint8

    @classmethod
    def of(cls, versions: Iterable[Version]) -> "Versions":
        transforms, colours = zip(*versions, strict=True)
        return cls(np.array(transforms, np.uint8), np.array(colours, np.uint8))

    def __len__(self) -> int:
        return len(self.transforms)

    def __iter__(self) -> Iterator[Version]:
        for transform, colours in zip(self.transforms.tolist(), self.colours.tolist(), strict=True):
            yield Version(transform, tuple(colours))

    def __getitem__(self, part: slice) -> "Versions":
        return Versions(self.transforms[part], self.colours[part])
