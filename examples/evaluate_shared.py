"""How good is a model that somebody has shared? Fresh Sudokus, asked in three ways.

python examples/evaluate_shared.py                    # a model of the package, see hrm models
python examples/evaluate_shared.py sudoku-6x6 2x3     # another one, and the shape of its boxes

There are so few 4x4 Sudokus that some of these were in its training.
"""

import sys
import time

import hrm
from hrm.tasks.sudoku.generator import generate_split

WAYS = {
    "one attempt": {},
    "one ACT step": {"steps": 1},
    "up to 8 votes": {"votes": 8},
}


def main(name: str = "sudoku-4x4", box: str = "2x2", count: str = "200") -> None:
    """Print what each way solves, and what it costs."""
    rows, columns = map(int, box.split("x"))
    [(puzzles, answers), _] = generate_split((rows, columns), int(count), 1, seed=12345)
    solver = hrm.pretrained(name)
    head = f"{name}, {len(puzzles)} puzzles"
    print(f"{head:26}{'solved':>8}{'sure':>7}{'ACT steps':>11}{'puzzles/s':>11}")
    for way, how in WAYS.items():
        began = time.perf_counter()
        found = solver.solve(puzzles, **how)
        seconds = time.perf_counter() - began
        right = sum((s.tokens == a.ravel()).all() for s, a in zip(found, answers, strict=True))
        sure = sum(s.halt_probability for s in found) / len(found)
        steps = sum(s.total_steps for s in found) / len(found)
        speed = len(found) / seconds
        print(f"{way:26}{right / len(found):>8.1%}{sure:>7.0%}{steps:>11.1f}{speed:>11.0f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
