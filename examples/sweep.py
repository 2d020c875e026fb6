"""Two learning rates with two seeds each, on two cores: which one learns the task better?

python examples/own_task.py data/stones
python examples/sweep.py data/stones

Stopped by whatever, the same command goes on. More words are keys for all runs, such as epochs=20.
"""

import csv
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from hrm import Solver

FOLDER = Path("checkpoints/own/rates")
WORDS = ["--config-name", "quickstart_4x4", "--jobs", "2", "lr=1e-3,3e-4", "seed=0,1"]


def sweep(data: str, *keys: str) -> list[dict[str, str]]:
    """Train what is not trained yet; every run as sweep.csv has it."""
    command = [sys.executable, "-m", "hrm", "sweep", data, *WORDS, *keys]
    subprocess.run([*command, f"checkpoint_path={FOLDER}"], check=True)
    with (FOLDER / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def main(data: str, *keys: str) -> None:
    """Compare the rates, and let the best of the runs solve a puzzle that is new to it."""
    runs = sweep(data, *keys)
    by_rate = defaultdict(list)
    for run in runs:
        by_rate[run["lr"]].append(float(run["exact_accuracy"]))
    for rate, found in by_rate.items():
        print(f"lr={rate}: {fmean(found):.1%} solved exactly, mean of {len(found)} seeds")
    best = max(runs, key=lambda run: float(run["exact_accuracy"]))
    solver = Solver.from_checkpoint(best["folder"])
    [solution] = solver.solve(["..o.#./o..o../..o..o/#...#./o..#oo/.oo.#o"])
    print(f"{best['run']} answers {solution.answer} after {solution.steps} ACT steps")


if __name__ == "__main__":
    main(*sys.argv[1:])
