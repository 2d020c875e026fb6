"""Time and memory of the Sudoku builder, whole process.

    python benchmarks/builder.py --source-dir FOLDER   # with train.csv; else generated puzzles

Builds 1,000 puzzles with 1,000 augmented versions each (1,001,000 rows), and the generated data
sets. Targets for the first: 5 s and 400 MB on 2 cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = (sys.executable, "-m", "hrm", "build", "sudoku")
GENERATED = ("2x2", "2x3", "3x3")
KIB_PER_RSS_UNIT = 1 / 1024 if sys.platform == "darwin" else 1


def measure(arguments: list[str], output_dir: Path) -> tuple[float, float, float]:
    """Run the command; return wall seconds, peak resident MB and MB written."""
    command = [*BUILD, *arguments, "--output-dir", str(output_dir)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    written = sum(path.stat().st_size for path in output_dir.rglob("*") if path.is_file())
    return seconds, usage.ru_maxrss * KIB_PER_RSS_UNIT * 1024 / 1e6, written / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source-dir", help="folder with train.csv (default: generate puzzles)")
    parser.add_argument("--num-aug", type=int, default=1000)
    args = parser.parse_args()
    source = ["--source-dir", args.source_dir] if args.source_dir else ["--generate", "3x3"]
    cases = [[*source, "--num-aug", str(args.num_aug)]]
    cases += [["--generate", box] for box in GENERATED]

    print(f"{'seconds':>8} {'peak MB':>8} {'written MB':>11}  arguments")
    with tempfile.TemporaryDirectory() as folder:
        for number, arguments in enumerate(cases):
            seconds, peak, written = measure(arguments, Path(folder) / str(number))
            shown = " ".join(arguments)
            print(f"{seconds:8.2f} {peak:8.0f} {written:11.1f}  {shown}", flush=True)


if __name__ == "__main__":
    main()
