"""A question of ARC, asked in the versions of its task that a model knows.

Shapes: V versions, T tokens of a canvas.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np

from hrm.errors import UserError
from hrm.tasks.arc.crop import content, crop, grid_of
from hrm.tasks.arc.encoding import encode
from hrm.tasks.arc.puzzles import BLANK_NAME
from hrm.tasks.arc.versions import SEPARATOR, Version, Versions
from hrm.tasks.arc.voting import TRIES, Votes, ranked
from hrm.tasks.base import Choice
from hrm.tasks.dihedral import INVERSE, dihedral

SHOWN_NAMES = 5


class ArcPoll:
    """A `Poll`, whose first version is the question as it stands.

    Args:
        question: the grid, [rows, columns] uint8, in that version.
        versions: V of them, with their identifiers.
        side: rows and columns of the canvas.
    """

    tries = TRIES

    def __init__(
        self,
        question: np.ndarray,
        versions: Sequence[Version],
        identifiers: Sequence[int],
        side: int,
    ):
        self.identifiers = np.array(identifiers, np.int32)
        self._versions, self._side = versions, side
        plain = versions[0].undo(question)
        corners = np.zeros((len(versions), 2), np.int64)
        self.inputs = encode(plain, Versions.of(versions), corners, side).astype(np.int32)

    def undo(
        self, version: int, answer: np.ndarray, confidence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Poll`; around the grid the confidence, [T] floats, is the mean of that in it."""
        asked, own = self._versions[version], self._versions[0]
        [grid] = crop(answer[None])
        rows, columns = grid.shape
        inside = confidence.reshape(self._side, self._side)[:rows, :columns]
        turned = dihedral(dihedral(inside, INVERSE[asked.transform]), own.transform)
        around = (inside if inside.size else confidence).mean()
        values = np.full((self._side, self._side), around, confidence.dtype)
        values[: turned.shape[0], : turned.shape[1]] = turned
        return self._tokens(content(asked.undo(grid))), values.ravel()

    def count(self, answers: np.ndarray, halt_probability: Sequence[float]) -> list[Choice]:
        """The answers, [V, T] integers, as answers to the question, the first one first."""
        votes: dict[bytes, Votes] = {}
        first: dict[bytes, int] = {}
        given = zip(self._versions, crop(answers), halt_probability, strict=True)
        for number, (version, answer, sure) in enumerate(given):
            grid = content(version.undo(answer))
            votes.setdefault(grid, Votes()).append(sure)
            first.setdefault(grid, number)
        return [
            Choice(self._tokens(grid), len(votes[grid]), votes[grid].mean, first[grid])
            for grid in ranked(votes)
        ]

    def _tokens(self, answer: bytes) -> np.ndarray:
        """An answer of the task itself, as it is in the question's version: [T] int32."""
        grid = np.array(grid_of(answer), np.uint8).reshape(answer[0], answer[1])
        own = Versions.of(self._versions[:1])
        return encode(grid, own, np.zeros((1, 2), np.int64), self._side)[0].astype(np.int32)


class ArcPolls:
    """All versions that a model knows, by the names of their tasks.

    Args:
        names: by identifier.
        side: rows and columns of the canvas.
    """

    def __init__(self, names: Sequence[str], side: int):
        self._names, self._side = names, side
        self._known = {name: n for n, name in enumerate(names) if name != BLANK_NAME}
        self._of_task: dict[str, list[int]] = {}
        for name, identifier in self._known.items():
            self._of_task.setdefault(_task(name), []).append(identifier)

    def of(self, name: str, inputs: np.ndarray, most: int, place: str) -> ArcPoll:
        """Versions of a question, which is the first: then as the data set has them.

        Raises:
            UserError: the name is not known, or the question is not at the top left of its canvas,
                as in training splits.
        """
        if name not in self._known:
            raise UserError(f"{place}: {self._unknown(name)}")
        [question] = crop(inputs[None])
        if not question.size:
            raise UserError(f"{place}: is not at the top left of its canvas; use votes=1")
        asked = self._known[name]
        others = (number for number in self._of_task[_task(name)] if number != asked)
        identifiers = [asked, *islice(others, most - 1)]
        try:
            versions = [Version.parse(self._names[number])[1] for number in identifiers]
        except ValueError as error:
            raise UserError(f"{place}: {error}; build the data set again") from None
        return ArcPoll(question, versions, identifiers, self._side)

    def _unknown(self, name: str) -> str:
        tasks = list(islice(self._of_task, SHOWN_NAMES))
        more = ", …" if len(self._of_task) > SHOWN_NAMES else ""
        known = f"{len(self._of_task):,} known: {', '.join(tasks)}{more}" if tasks else "none known"
        return (
            f"the model does not know a task {name!r}; it learns a task's rule in training, from "
            "its demonstrations and under its name, and cannot read demonstrations afterwards: "
            "train it on a data set with this task, or name the file as the task is named there "
            f"({known})"
        )


def _task(name: str) -> str:
    return name.partition(SEPARATOR)[0]
