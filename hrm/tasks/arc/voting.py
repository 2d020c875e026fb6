"""ARC's rule of the vote: of the answers to a question, the one that was given most often is first.

Among equals it is the one with the greater mean of sigmoid(q_halt); then the one that was given
first. Means are of exactly rounded sums, so that they do not depend on the order of the votes.
"""

from collections.abc import Mapping
from math import fsum
from typing import TypeVar

from hrm.tasks.arc.puzzles import NO_ANSWER

TRIES = 2  # answers that may be given to a test pair
EMPTY = NO_ANSWER.tolist()  # given where there is no answer, or an empty one

Answer = TypeVar("Answer")


class Votes(list[float]):
    """The votes for an answer: how sure each is, sigmoid(q_halt)."""

    @property
    def mean(self) -> float:
        return fsum(self) / len(self)


def ranked(answers: Mapping[Answer, Votes]) -> list[Answer]:
    """The answers to a question, the first one first.

    Args:
        answers: in the order in which they were first given.
    """
    weights = {answer: (len(votes), votes.mean) for answer, votes in answers.items()}
    return sorted(answers, key=lambda answer: weights[answer], reverse=True)
