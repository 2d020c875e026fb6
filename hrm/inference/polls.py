"""Puzzles that are answered by the votes of versions which the model knows by name.

Shapes: V versions of a puzzle, T tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from hrm.inference.solver import Solution, Solver
from hrm.tasks import Poll


def solve_by_vote(
    solver: Solver, polls: Sequence[Poll], *, trace: bool = False, **how: Any
) -> list[Solution]:
    """Answers to puzzles, each the one that their versions gave most votes.

    A solution's `confidence` is the share of the votes that agree on a cell; `steps` and `attempt`
    are of the first version that gave the answer, and `halt_probability` is a mean over those that
    did.

    Args:
        polls: N of them, the versions to ask of each puzzle.
        trace: keep what was answered after every step to the puzzle itself.
        how: as of `Solver.solve`, which solves each version.
    """
    inputs = np.concatenate([poll.inputs for poll in polls])
    identifiers = np.concatenate([poll.identifiers for poll in polls])
    answers = iter(solver.solve(inputs, puzzle_identifiers=identifiers, **how))
    found = [_elected(solver, poll, list(islice(answers, len(poll.inputs)))) for poll in polls]
    if trace:
        own = np.stack([poll.inputs[0] for poll in polls])
        names = np.stack([poll.identifiers[0] for poll in polls])
        how |= {"trace": True, "progress": None}
        traced = solver.solve(own, puzzle_identifiers=names, **how)
        found = [replace(a, trace=b.trace) for a, b in zip(found, traced, strict=True)]
    return found


def _elected(solver: Solver, poll: Poll, answers: Sequence[Solution]) -> Solution:
    tokens = np.stack([answer.tokens for answer in answers])
    choices = poll.count(tokens, [answer.halt_probability for answer in answers])
    best = choices[0]
    agreeing = [choice.votes * (choice.tokens == best.tokens) for choice in choices]
    [valid] = solver.task.are_valid(best.tokens[None], answers[0].inputs[None])
    return replace(
        answers[0],
        tokens=best.tokens,
        answer=solver.grid.text(best.tokens),
        valid=valid,
        steps=answers[best.first].steps,
        halt_probability=best.halt_probability,
        confidence=(np.sum(agreeing, axis=0) / len(answers)).astype(np.float32),
        total_steps=sum(answer.total_steps for answer in answers),
        attempt=best.first + 1,
        votes=len(answers),
        choices=tuple(choices[: poll.tries]),
    )
