"""What a solution says where versions have voted."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from hrm.inference import Solution
from hrm.inference.polls import solve_by_vote
from hrm.tasks import Choice

RIGHT, WRONG = np.array([1, 2]), np.array([1, 3])


class Poll:
    """Three versions, of which the second and the third gave the answer that wins."""

    tries = 2
    inputs = np.array([[0, 0], [1, 1], [2, 2]], np.int32)
    identifiers = np.array([4, 5, 6], np.int32)

    def count(self, answers: np.ndarray, halt_probability: list[float]) -> list[Choice]:
        assert answers.tolist() == [[3, 1], [2, 1], [2, 1]]
        assert halt_probability == [0.5, 0.25, 0.75]
        return [Choice(RIGHT, 2, 0.5, 1), Choice(WRONG, 1, 0.5, 0)]


class Solver:
    grid = SimpleNamespace(text=lambda tokens: "".join(map(str, tokens)))
    task = SimpleNamespace(are_valid=lambda answers, inputs: [None])

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], Any]] = []

    def solve(self, inputs: np.ndarray, **how: Any) -> list[Solution]:
        self.asked.append((how["puzzle_identifiers"].tolist(), how.get("trace")))
        kinds = {0: ([3, 1], 0.5, 7), 1: ([2, 1], 0.25, 8), 2: ([2, 1], 0.75, 9)}
        return [
            Solution(
                row,
                np.array(kinds[row[0]][0]),
                "",
                None,
                kinds[row[0]][2],
                kinds[row[0]][1],
                np.zeros(2, np.float32),
                10,
                "the trace" if how.get("trace") else None,  # type: ignore[arg-type]
            )
            for row in inputs
        ]


def test_a_solution_is_what_most_versions_say():
    solver = Solver()
    first, second = solve_by_vote(solver, [Poll(), Poll()], trace=True)  # type: ignore[arg-type]
    assert solver.asked == [([4, 5, 6, 4, 5, 6], None), ([4, 4], True)]
    assert (first.tokens.tolist(), first.answer) == ([1, 2], "12")
    assert (first.steps, first.attempt, first.halt_probability) == (8, 2, 0.5)
    assert (first.total_steps, first.votes, len(first.choices)) == (30, 3, 2)
    assert first.confidence.tolist() == [1, np.float32(2 / 3)]
    assert first.inputs.tolist() == [0, 0] and first.trace == second.trace == "the trace"
