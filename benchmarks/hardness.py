"""What makes 9x9 Sudokus hard, and how many of them a model leaves unsolved.

    python benchmarks/hardness.py PUZZLES… [--limit N] [--model MODEL] [--steps N]

Of each file, as `hrm solve --file` takes it, or data set (its test puzzles): the share that needs
nested trials, medians of the settled share and of the guesses of a plain search, and what the model
leaves unsolved of those that need such trials and of the others. Needs the extra [generate].
"""

import argparse
from pathlib import Path

import numpy as np

from hrm.errors import run_command
from hrm.inference import Solver
from hrm.inference.sources import from_split, read_lines
from hrm.tasks.sudoku.bitboard import needs_nested_trials, settled_share
from hrm.tasks.sudoku.difficulty import count_guesses

BATCH_SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("puzzles", type=Path, nargs="+")
    parser.add_argument("--limit", type=int, default=100, help="so many of each, evenly spaced")
    parser.add_argument("--model", type=Path, default=Path("sudoku-9x9"))
    parser.add_argument("--steps", type=int, default=16, help="ACT steps of the model at most")
    arguments = parser.parse_args()
    solver = Solver.from_checkpoint(arguments.model)
    print("puzzles  nested  settled  guesses  unsolved: nested  others  all")
    for path in arguments.puzzles:
        questions = read(path, solver, arguments.limit)
        nested = np.array([needs_nested_trials(question) for question in questions])
        settled = np.median([settled_share(question, 1.0) for question in questions])
        guesses = np.median(count_guesses(questions, (3, 3))[0])
        asked = ["".join(map(str, question)) for question in questions]
        solutions = solver.solve(asked, batch_size=BATCH_SIZE, steps=arguments.steps)
        unsolved = np.array([not solution.valid for solution in solutions])
        kinds = (nested, ~nested, np.ones_like(nested))
        left = [f"{unsolved[kind].mean():.0%}" if kind.any() else "-" for kind in kinds]
        print(
            f"{len(questions):7}{nested.mean():8.0%}{settled:9.2f}{guesses:9.1f}"
            f"{left[0]:>18}{left[1]:>8}{left[2]:>5}  {path}",
            flush=True,
        )


def read(path: Path, solver: Solver, limit: int) -> np.ndarray:
    """Questions, [N, 81] uint8, 0 is blank; at most so many, evenly spaced."""
    if path.is_dir():
        puzzles = from_split(path, "test", solver.metadata, limit=limit)
    else:
        puzzles = read_lines(path, solver.task)
        count = min(limit, len(puzzles))
        puzzles = [puzzles[number * len(puzzles) // count] for number in range(count)]
    return np.stack([puzzle.inputs for puzzle in puzzles]).astype(np.uint8)


if __name__ == "__main__":
    run_command(main)
