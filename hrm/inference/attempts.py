"""Ways to ask a model for the same answer: symmetric versions, other start states.

Solver and server try them one after the other until an answer is valid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from hrm.errors import UserError
from hrm.tasks import Symmetry, Task


@dataclass(frozen=True)
class Attempt:
    """One way to ask; the first one asks for the puzzle as it is."""

    symmetry: Symmetry | None = None
    start_seed: int | None = None  # of other start states; None: the model's own

    def apply(self, puzzles: np.ndarray) -> np.ndarray:
        """What the model is asked, [..., T] -> [..., T]."""
        return puzzles if self.symmetry is None else self.symmetry.apply(puzzles)

    def undo(self, answers: np.ndarray) -> np.ndarray:
        """The model's tokens -> tokens of the puzzle's answer, [..., T] -> [..., T]."""
        return answers if self.symmetry is None else self.symmetry.undo(answers)

    def undo_cells(self, values: np.ndarray) -> np.ndarray:
        """One value per cell, likewise, [..., T]."""
        return values if self.symmetry is None else self.symmetry.undo_cells(values)

    def undo_probabilities(self, values: np.ndarray) -> np.ndarray:
        """One value per cell and token, likewise, [..., T, V]."""
        return values if self.symmetry is None else self.symmetry.undo_probabilities(values)


def plan_attempts(task: Task, votes: int, restarts: int, seed: int) -> list[Attempt]:
    """The puzzle as it is, then `votes - 1` symmetric versions, then `restarts` other starts.

    Raises:
        UserError: a number is out of range, or the task has not as many versions.
    """
    for name, value, least in (("votes", votes, 1), ("restarts", restarts, 0)):
        if value < least:
            raise UserError(f"{name}={value}: must be at least {least}")
    versions = task.symmetries(votes - 1, seed) if votes > 1 else []
    return [
        Attempt(),
        *(Attempt(symmetry) for symmetry in versions),
        *(Attempt(start_seed=seed + number) for number in range(restarts)),
    ]


class Answered(Protocol):
    """What answers are compared by."""

    @property
    def valid(self) -> bool | None: ...
    @property
    def halt_probability(self) -> float: ...


Answer = TypeVar("Answer", bound=Answered)


def best_of(answers: Sequence[Answer]) -> Answer:
    """The valid answer, else the one of highest halting probability; of equals the first."""
    return max(answers, key=lambda answer: (bool(answer.valid), answer.halt_probability))
