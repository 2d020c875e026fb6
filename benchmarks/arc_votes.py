"""Which answer to trust where no rule tells: votes on the test inputs of ARC tasks, by three rules.

    python benchmarks/arc_votes.py CHECKPOINT…

Each test input is solved in all known versions of its task, in all ACT steps. pass@1 and pass@2 are
those of the data set's evaluator: by the number of votes and then the mean of sigmoid(q_halt), as
published; by the largest sigmoid(q_halt); and of the task as it stands alone.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from hrm.data.format import read_split
from hrm.errors import run_command
from hrm.inference import Solver
from hrm.tasks.arc import Evaluator
from hrm.tasks.arc.voting import Votes, ranked

BATCH_SIZE = 64


def by_sureness(answers: Mapping[Any, Votes]) -> list[Any]:
    return sorted(answers, key=lambda answer: max(answers[answer]), reverse=True)


RULES: dict[str, tuple[Callable[..., list[Any]], bool]] = {  # the order, and: all versions
    "majority": (ranked, True),
    "largest q_halt": (by_sureness, True),
    "the task as it stands": (ranked, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="step_<n>, or runs' folders")
    arguments = parser.parse_args()
    print(f"{'':>32}{'pass@1':>10}{'pass@2':>10}")
    for path in arguments.checkpoints:
        solver = Solver.from_checkpoint(path)
        assert solver.data_path is not None
        votes = predictions(solver)
        names = solver.names()
        as_it_stands = ["|||" not in names[n] for n in votes["puzzle_identifiers"]]
        for rule, (order, all_versions) in RULES.items():
            rows = slice(None) if all_versions else np.array(as_it_stands)
            evaluator = Evaluator(solver.data_path)
            evaluator.add({name: values[rows] for name, values in votes.items()})
            with patch("hrm.tasks.arc.evaluator.ranked", order):
                metrics, _ = evaluator.result()
            passed = "".join(f"{metrics[f'ARC/pass@{k}']:>10.1%}" for k in (1, 2))
            print(f"{path.name + ', ' + rule:>32}{passed}", flush=True)


def predictions(solver: Solver) -> dict[str, np.ndarray]:
    """The test split's examples and what the model makes of them, as `Evaluator.add` takes them."""
    assert solver.data_path is not None
    [arrays] = read_split(solver.data_path / "test")[1].values()
    identifiers = np.repeat(arrays.puzzle_identifiers, np.diff(arrays.puzzle_indices))
    solutions = solver.solve(
        arrays.inputs,
        halting="max_steps",
        puzzle_identifiers=identifiers,
        batch_size=BATCH_SIZE,
    )
    sure = torch.tensor([solution.halt_probability for solution in solutions])
    return {
        "inputs": np.array(arrays.inputs),
        "puzzle_identifiers": identifiers,
        "preds": np.stack([solution.tokens for solution in solutions]),
        "q_halt_logits": torch.logit(sure.double(), eps=1e-9).numpy(),
    }


if __name__ == "__main__":
    run_command(main)
