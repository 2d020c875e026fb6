"""Guesses: what is likely is written into a puzzle that a model cannot solve, and it asks again.

The likeliest partial puzzle comes first, by the model's own probabilities; a wrong guess shows by
none of its answers being valid. A puzzle with guesses is one with hints (`hint_rate`) to the model.

Shapes: T tokens per puzzle, V vocabulary.
"""

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

from hrm.tasks import Task

AT_ONCE = 4  # partial puzzles of one puzzle that are asked side by side
LEAST_LIKELY = 0.02  # probability of a token below which it is no guess


@dataclass(frozen=True, order=True)
class Guess:
    """A puzzle with some guesses written into it."""

    surprise: float  # -log of the product of their probabilities
    number: int  # of those of the same puzzle, in the order in which they were found
    tokens: np.ndarray = field(compare=False, repr=False)  # T, int32


class Guesses:
    """The partial puzzles of one puzzle that have not been asked yet: at first those of one guess.

    Args:
        inputs: the puzzle, [T] int32.
        probabilities: what the model answered, [T, V].
        most: so many are asked at most.
    """

    def __init__(self, task: Task, inputs: np.ndarray, probabilities: np.ndarray, most: int):
        self.taken, self._most = 0, most  # so many have been taken
        self._task, self._open, self._count = task, list[Guess](), 0
        self.branch(Guess(0.0, 0, inputs), probabilities)

    def take(self) -> list[tuple[int, Guess]]:
        """The likeliest, to be asked side by side, each with its number from 1; none at the end."""
        count = min(AT_ONCE, self._most - self.taken, len(self._open))
        numbers = range(self.taken + 1, self.taken + count + 1)
        self.taken += count
        return [(number, heapq.heappop(self._open)) for number in numbers]

    def branch(self, asked: Guess, probabilities: np.ndarray) -> None:
        """Add what follows from a partial puzzle whose answer is not valid: one guess more.

        It is made in the open cell of which the model knows least (the highest entropy).

        Args:
            probabilities: what the model answered, [T, V].
        """
        is_open = ~self._task.grid.givens(asked.tokens)
        if not is_open.any():
            return
        entropy = -(probabilities * np.log(probabilities + 1e-9)).sum(-1)
        cell = int(np.where(is_open, entropy, -1).argmax())
        tokens = np.flatnonzero(probabilities[cell] >= LEAST_LIKELY)
        partial = np.tile(asked.tokens, (len(tokens), 1))
        partial[:, cell] = tokens
        fits = self._task.grid.givens(partial)[:, cell] & ~self._task.contradictory(partial)
        for token, row in zip(tokens[fits].tolist(), partial[fits], strict=True):
            self._count += 1
            surprise = asked.surprise - math.log(probabilities[cell, token])
            heapq.heappush(self._open, Guess(surprise, self._count, row))


def guessed_cells(puzzle: np.ndarray, asked: np.ndarray) -> tuple[int, ...]:
    """Cells into which guesses were written, [T] and [T]."""
    return tuple(np.flatnonzero(asked != puzzle).tolist())
