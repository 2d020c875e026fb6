"""How long a user waits before anything happens.

    python benchmarks/startup.py [--rounds 3] [--solve CHECKPOINT…]

Whole processes: `--help`, `import hrm`, one puzzle solved, and from the command to the first line
of `metrics.jsonl`, which is written after the first step, with an empty compilation cache (cold)
and with the one that this leaves behind (warm). The puzzles are generated; the published model
trains at batch 32.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
HRM = [sys.executable, "-m", "hrm"]
CASES = {
    "quickstart 4x4": ("2x2", ["--config-name", "quickstart_4x4"]),
    "published, batch 32": ("3x3", ["global_batch_size=32", "epochs=1000", "eval_interval=1000"]),
}
POLL_SECONDS, LONGEST_SECONDS = 0.01, 300


def whole_process(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - start


def build(folder: Path, box: str) -> Path:
    whole_process(
        *(*HRM, "build", "sudoku", "--generate", box, "--num-train", "1000", "--num-test", "32"),
        *("--num-aug", "10", "--output-dir", str(folder)),
    )
    return folder


def to_first_step(data_path: Path, run: Path, cache: Path, arguments: list[str]) -> float:
    """Seconds from the start of the command to the first line of metrics."""
    command = [*HRM, "train", str(data_path), *arguments, f"checkpoint_path={run}"]
    command += ["log_interval=1", "overwrite=true", "progress=false", "checkpoint_interval=null"]
    metrics = run / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    try:
        while not (metrics.is_file() and metrics.stat().st_size):
            if process.poll() is not None or time.perf_counter() - start > LONGEST_SECONDS:
                raise SystemExit(f"no first step: {' '.join(command)}")
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - start
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--solve", nargs="*", default=[], help="checkpoints to solve a puzzle with")
    options = parser.parse_args()
    rounds = range(options.rounds)

    print(f"{'what':>40} {'seconds':>8}")
    for name, command in (
        ("hrm --version", [*HRM, "--version"]),
        ("hrm --help", [*HRM, "--help"]),
        ("hrm solve --help", [*HRM, "solve", "--help"]),
        ("python -c 'import hrm'", [sys.executable, "-c", "import hrm"]),
        ("import hrm; hrm.build_model", [sys.executable, "-c", "import hrm; hrm.build_model"]),
        ("import hrm; hrm.Solver", [sys.executable, "-c", "import hrm; hrm.Solver"]),
        *(
            (f"hrm solve, one puzzle of {run}", [*HRM, "solve", run, "--index", "0"])
            for run in options.solve
        ),
    ):
        seconds = statistics.median(whole_process(*command) for _ in rounds)
        print(f"{name:>40} {seconds:8.2f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, (box, arguments) in CASES.items():
            data_path = build(Path(folder) / box, box)
            cold, warm = [], []
            for number in rounds:
                cache, run = Path(folder) / f"{box}-cache-{number}", Path(folder) / f"{box}-run"
                cold.append(to_first_step(data_path, run, cache, arguments))
                warm.append(to_first_step(data_path, run, cache, arguments))
            for kind, values in (("cold", cold), ("warm", warm)):
                what = f"first step of {name}, {kind}"
                print(f"{what:>40} {statistics.median(values):8.2f}", flush=True)


if __name__ == "__main__":
    main()
