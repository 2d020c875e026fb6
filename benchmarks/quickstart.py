"""Time `make quickstart` and its exact accuracy on unseen puzzles, over sizes and seeds.

    python benchmarks/quickstart.py --sizes 4x4 6x6 --seeds 0 1 2

The environment must exist already (`make quickstart` creates it the first time).
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["4x4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    print(
        f"{'size':>5} {'seed':>5} {'seconds':>8} {'exact accuracy':>15} {'puzzles':>8}", flush=True
    )
    for size in arguments.sizes:
        for seed in arguments.seeds:
            start = time.perf_counter()
            subprocess.run(
                ["make", "quickstart", f"SIZE={size}", f"SEED={seed}"],
                cwd=ROOT,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            seconds = time.perf_counter() - start
            run = ROOT / "checkpoints" / "quickstart" / f"{size}-seed{seed}"
            last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
            exact, count = last["eval/exact_accuracy"], last["eval/count"]
            print(f"{size:>5} {seed:>5} {seconds:>8.0f} {exact:>15.1%} {count:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
