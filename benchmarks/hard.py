"""How well a model solves Sudokus of all difficulties, and what more thinking buys.

    python benchmarks/hard.py [MODEL] [--csv PUZZLES.csv] [--limit N] [--ways learned,steps64,…]

Of the CSV file (source,question,answer,rating; the rating in guesses of a plain search) by ratings,
and of random 9x9 puzzles, made here, by their givens: share solved exactly, ACT steps of all
attempts per puzzle, and puzzles per second.
"""

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hrm.device import keep_memory
from hrm.errors import run_command
from hrm.inference import Solver
from hrm.tasks.sudoku.generator import generate_puzzles

WAYS: dict[str, dict[str, Any]] = {
    "learned": {},
    "steps64": {"steps": 64},
    "steps256": {"steps": 256},
    "votes8": {"votes": 8},
    "votes8-steps64": {"votes": 8, "steps": 64},
    "guesses25": {"guesses": 25},
    "guesses100": {"guesses": 100},
    "guesses400": {"guesses": 400},
    "guesses1600": {"guesses": 1600},
    "votes64": {"votes": 64},
    "noise16-steps64": {"noise": 0.3, "rollouts": 16, "steps": 64},
}
GIVENS = (26, 28, 30, 32, 36, 40)
BANDS = [(0, 0), *((2**n, 2 ** (n + 1) - 1) for n in range(9)), (512, 10**9)]  # of guesses
BATCH_SIZE = 64

Group = tuple[str, list[str], list[str]]  # name, questions, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, nargs="?", default=Path("sudoku-9x9"))
    parser.add_argument("--csv", type=Path, help="puzzles with ratings, instead of random ones")
    parser.add_argument("--limit", type=int, help="so many puzzles, evenly spaced")
    parser.add_argument("--count", type=int, default=200, help="random puzzles of each kind")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    arguments = parser.parse_args()
    keep_memory()
    solver = Solver.from_checkpoint(arguments.model)
    if arguments.csv is None:
        groups = list(made(arguments.count))
    else:
        groups = list(by_rating(arguments.csv, arguments.limit))
    for way in arguments.ways.split(","):
        print(f"\n{way}: {WAYS[way] or 'learned halting, one pass'}")
        print(f"{'':>14}{'puzzles':>9}{'exact':>9}{'ACT steps':>11}{'puzzles/s':>11}", flush=True)
        rows = [measured(solver, group, WAYS[way]) for group in groups]
        if arguments.csv is not None:
            together = np.array(rows)
            count = together[:, 0].sum()
            exact, steps = (together[:, 0] @ together[:, column] / count for column in (1, 2))
            show("all", count, exact, steps, count / (together[:, 0] / together[:, 3]).sum())


def measured(solver: Solver, group: Group, how: dict[str, Any]) -> tuple[float, ...]:
    """Number of puzzles, share solved exactly, ACT steps, puzzles per second; printed as well."""
    name, questions, answers = group
    began = time.perf_counter()
    solutions = solver.solve(questions, batch_size=BATCH_SIZE, **how)
    seconds = time.perf_counter() - began
    exact = np.mean([s.answer == answer for s, answer in zip(solutions, answers, strict=True)])
    steps = np.mean([s.total_steps for s in solutions])
    row = len(questions), float(exact), float(steps), len(questions) / seconds
    show(name, *row)
    return row


def show(name: str, count: float, exact: float, steps: float, rate: float) -> None:
    print(f"{name:>14}{count:>9.0f}{exact:>9.1%}{steps:>11.1f}{rate:>11.2f}", flush=True)


def by_rating(path: Path, limit: int | None) -> Iterator[Group]:
    """The puzzles of a file in bands of their ratings."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if limit is not None and limit < len(rows):
        rows = [rows[n * len(rows) // limit] for n in range(limit)]
    for least, most in BANDS:
        band = [row for row in rows if least <= int(row["rating"]) <= most]
        if band:
            name = (
                str(least) if least == most else f"{least}-{most}" if most < 10**9 else f"{least}-"
            )
            yield f"{name} guesses", [r["question"] for r in band], [r["answer"] for r in band]


def made(count: int) -> Iterator[Group]:
    """Random puzzles by their givens."""
    for givens in GIVENS:
        found = generate_puzzles((3, 3), count, (givens, givens), seed=givens)
        questions, answers = (["".join(map(str, row)) for row in rows] for rows in found)
        yield f"{givens} givens", questions, answers


if __name__ == "__main__":
    run_command(main)
