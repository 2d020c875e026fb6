"""What more thinking buys, and whether the solver is as fast as evaluation.

    python benchmarks/solving.py CHECKPOINT… [--limit N] [--rounds 5] [--only accuracy|speed]

First table: ways to better answers from the same weights, on each checkpoint's own test split:
share solved exactly, and ACT steps of all attempts per puzzle (the cost).
Second table: the same puzzles with learned halting through `Solver.solve` and `evaluate`, in turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.format import read_split
from hrm.device import keep_memory
from hrm.errors import run_command
from hrm.evaluation import evaluate
from hrm.inference import Solver
from hrm.ranks import ALONE

BATCH_SIZE = 64
WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("halting learned (default)", {}),
    ("halting max_steps", {"halting": "max_steps"}),
    ("steps 32", {"steps": 32}),
    ("steps 64", {"steps": 64}),
    ("votes 2", {"votes": 2}),
    ("votes 4", {"votes": 4}),
    ("votes 8", {"votes": 8}),
    ("votes 16", {"votes": 16}),
    ("votes 8, q_halt", {"votes": 8, "select": "q_halt"}),
    ("votes 8, majority", {"votes": 8, "select": "majority"}),
    ("restarts 1", {"restarts": 1}),
    ("restarts 3", {"restarts": 3}),
    ("restarts 15", {"restarts": 15}),
    *(
        (f"noise {noise}, rollouts {count}", {"noise": noise, "rollouts": count})
        for noise, count in ((0.1, 16), (0.3, 16), (1.0, 16), (0.3, 2), (0.3, 4), (0.3, 64))
    ),
    ("the same, steps 64", {"noise": 0.3, "rollouts": 64, "steps": 64}),
    ("rollouts 16, q_halt", {"noise": 0.3, "rollouts": 16, "select": "q_halt"}),
    ("rollouts 16, majority", {"noise": 0.3, "rollouts": 16, "select": "majority"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="step_<n>, or runs' folders")
    parser.add_argument("--limit", type=int, help="so many puzzles of each test split")
    parser.add_argument("--rounds", type=int, default=5, help="of the second table")
    parser.add_argument("--only", choices=("accuracy", "speed"), help="one of the tables")
    arguments = parser.parse_args()
    keep_memory()
    solvers = [Solver.from_checkpoint(path) for path in arguments.checkpoints]
    columns = [path.name for path in arguments.checkpoints]
    if arguments.only != "speed":
        _print_accuracy(solvers, columns, arguments.limit)
    if arguments.only != "accuracy":
        _print_speed(solvers, columns, arguments.rounds)


def _print_accuracy(solvers: list[Solver], names: list[str], limit: int | None) -> None:
    print("solved exactly, ACT steps per puzzle")
    print(f"{'':>26}" + "".join(f"{name:>18}" for name in names) + f"{'mean':>18}")
    for label, options in WAYS:
        cells = [_accuracy_and_cost(solver, options, limit) for solver in solvers]
        cells.append(tuple(np.mean(cells, axis=0)))
        shown = "".join(f"{exact:>11.1%}{steps:>7.2f}" for exact, steps in cells)
        print(f"{label:>26}{shown}", flush=True)


def _print_speed(solvers: list[Solver], names: list[str], rounds: int) -> None:
    print("puzzles/s with learned halting, medians of rounds in turns")
    print(f"{'':>26}{'Solver.solve':>14}{'evaluate':>14}{'ratio':>8}")
    for name, solver in zip(names, solvers, strict=True):
        ours, theirs = _speeds(solver, rounds)
        print(f"{name:>26}{ours:>14.1f}{theirs:>14.1f}{ours / theirs:>8.2f}", flush=True)


def _accuracy_and_cost(
    solver: Solver, options: dict[str, Any], limit: int | None
) -> tuple[float, float]:
    inputs, labels = (rows[:limit] for rows in _test_split(solver))
    solutions = solver.solve(inputs, batch_size=BATCH_SIZE, **options)
    exact = [np.array_equal(s.tokens, label) for s, label in zip(solutions, labels, strict=True)]
    return float(np.mean(exact)), float(np.mean([s.total_steps for s in solutions]))


def _test_split(solver: Solver) -> tuple[np.ndarray, np.ndarray]:
    assert solver.data_path is not None
    _, sets = read_split(solver.data_path / "test")
    arrays = list(sets.values())
    return np.concatenate([a.inputs for a in arrays]), np.concatenate([a.labels for a in arrays])


def _speeds(solver: Solver, rounds: int) -> tuple[float, float]:
    """Puzzles per second of solver and evaluation; a first round of each is not counted."""
    assert solver.data_path is not None
    inputs, _ = _test_split(solver)
    dataset = PuzzleDataset(
        PuzzleDatasetConfig(
            seed=0,
            dataset_path=solver.data_path,
            global_batch_size=BATCH_SIZE,
            test_set_mode=True,
            epochs_per_iter=1,
            rank=0,
            num_replicas=1,
        ),
        split="test",
    )

    def evaluated() -> None:
        probability = solver.halt_probability
        evaluate(
            solver.model, dataset, solver.device, ALONE, "learned", halt_probability=probability
        )

    ways: list[Callable[[], object]] = [
        lambda: solver.solve(inputs, batch_size=BATCH_SIZE),
        evaluated,
    ]
    seconds: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for way, taken in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            way()
            if number:
                taken.append(time.perf_counter() - start)
    ours, theirs = (len(inputs) / statistics.median(taken) for taken in seconds)
    return ours, theirs


if __name__ == "__main__":
    run_command(main)
