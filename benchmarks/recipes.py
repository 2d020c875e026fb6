"""Which recipe learns most in the same time: Sudokus, one CPU core a run, unseen puzzles.

    python benchmarks/recipes.py [--sizes 6x6 9x9] [--seeds 0 1 2] [--recipes trm …] [--jobs 2]
    python benchmarks/recipes.py --sizes hard --csv FOLDER [--seeds 1] [--recipes no_hints …]

First every recipe's training step is timed against a plain one's, in turns; then each run trains
for as many steps as fit into its minutes, with the batch, learning rate and average of the weights
of the size's own recipe, and is evaluated once. What has been timed or trained is not repeated, and
a run that was interrupted goes on: everything is kept below --folder. A table and `recipes.png` are
the output; --show only draws them.

6x6 and 9x9 are generated grids and the quickstarts' recipes, with published models narrowed to
hidden size 128. `hard` is the train.csv and test.csv of --csv, with 30 puzzles found around each to
learn from; names of `switches.py` are recipes, too, and runs last whole epochs, rounded up.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from switches import SWITCHES, use

MINUTES = {"6x6": 3, "9x9": 10, "hard": 17}
CONFIG = {"6x6": "quickstart_6x6", "9x9": "quickstart_9x9", "hard": "pretrained_sudoku_9x9_first"}
VERSIONS = ("--num-train", "1000", "--num-test", "500", "--num-aug", "1000")
DATA = {  # flags of `hrm build sudoku`, the first two as in `make quickstart`
    "6x6": ("--generate", "2x3", "--givens", "18", *VERSIONS),
    "9x9": ("--generate", "3x3", "--givens", "40", *VERSIONS),
    "hard": ("--num-related", "30", "--num-aug", "1"),
}
NARROW = ("arch.hidden_size=128", "arch.num_heads=4", "arch.forward_dtype=auto")
LAST_CYCLE = ("arch.backprop=last_cycle", "arch.q_continue=false")
PLAIN = ("optimizer=adam_atan2", "stagger=false")
MODELS: dict[str, tuple[str, ...]] = {
    "hrm_v1": ("arch=hrm_v1", *NARROW, *PLAIN),
    "hrm_v1-last_cycle": ("arch=hrm_v1", *NARROW, *LAST_CYCLE, *PLAIN),
    "trm": ("arch=trm", *NARROW, *PLAIN),
    "trm_mlp": ("arch=trm_mlp", *NARROW, *PLAIN),
    "quickstart": PLAIN,
}
EASY = {
    **MODELS,
    **{f"{name}-stagger": (*keys, "stagger=true") for name, keys in MODELS.items()},
    "quickstart-muon": ("optimizer=muon", "stagger=false"),
    "quickstart-muon-stagger": ("optimizer=muon", "stagger=true"),
    "symbols-muon-stagger": ("arch=symbol_equivariant", "optimizer=muon", "stagger=true"),
}
HARD = {
    "symbols": (),
    "adam_atan2": ("optimizer=adam_atan2",),
    "no_hints": ("hint_rate=0.0",),
    "three_L_calls": ("arch.L_cycles=3",),
    **dict.fromkeys(SWITCHES, ()),
    "depth_curriculum": ("arch.L_cycles=4",),
}
RECIPES = {"6x6": EASY, "9x9": EASY, "hard": HARD}
REFERENCE = {"6x6": "quickstart", "9x9": "quickstart", "hard": "symbols"}
KEYS = {"6x6": (), "9x9": (), "hard": ("lr_min_ratio=0.3",)}  # of all recipes of a size
ROUNDS, STEPS_A_ROUND, WARM_UP_STEPS = 7, 6, 5
BATCH_SIZE = 32


class Timer:
    """A process that trains one recipe, a few steps whenever it is asked."""

    def __init__(self, size: str, name: str, data: Path):
        command = [sys.executable, __file__, "--time", size, name, str(data)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one_thread()
        )
        self.measured: list[float] = []

    def ask(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.measured.append(float(self.process.stdout.readline()))

    def end(self) -> float:
        """Median seconds of a step."""
        self.process.communicate()
        return statistics.median(self.measured[1:])


def answer_timer(size: str, name: str, data: Path) -> None:
    """Seconds of CPU time of a step, one line per line of standard input."""
    import torch

    from hrm.data import PuzzleDataset, PuzzleDatasetConfig
    from hrm.device import free_memory, keep_memory, to_device
    from hrm.ranks import Ranks
    from hrm.training.config import load_pretrain_config
    from hrm.training.sizing import for_device
    from hrm.training.state import TrainState, train_step

    keep_memory()
    ranks, device = Ranks(0, 1, 0), torch.device("cpu")
    if name in SWITCHES:
        use(name)
    keys = [f"data_path={data}", *KEYS[size], *RECIPES[size][name]]
    config = load_pretrain_config(keys, CONFIG[size])
    batches = PuzzleDatasetConfig(
        seed=0,
        dataset_path=data,
        global_batch_size=config.global_batch_size,
        test_set_mode=False,
        epochs_per_iter=1000,
        rank=0,
        num_replicas=1,
    )
    train_set = PuzzleDataset(batches, split="train")
    config = for_device(config, device, train_set.metadata, ranks.size, free_memory(device))
    state = TrainState.create(config, train_set.metadata, device, ranks)
    steps = train_set.iterate(0, 0)
    count = WARM_UP_STEPS
    for _ in sys.stdin:
        start = time.process_time()
        for _ in range(count):
            _, batch, _ = next(steps)
            train_step(state, to_device(batch, device), config, ranks)
        print((time.process_time() - start) / count, flush=True)
        count = STEPS_A_ROUND


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def hrm(*arguments: str, switch: str | None = None) -> None:
    script = [str(Path(__file__).with_name("switches.py")), switch] if switch else ["-m", "hrm"]
    command = [sys.executable, *script, *arguments]
    done = subprocess.run(command, env=one_thread(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def data_set(size: str, seed: int, source: Path | None) -> Path:
    """The data set of this size and seed, built where it is not there."""
    if size == "hard":
        assert source is not None
        path = Path("data") / f"recipes-{source.resolve().name}"
        where = ("--source-dir", str(source))
    else:
        path, where = Path("data") / f"quickstart-{size}-seed{seed}", ("--seed", str(seed))
    if not path.exists():
        shared = ("--identifiers", "shared", "--output-dir", str(path))
        hrm("build", "sudoku", *DATA[size], *where, *shared)
    return path


def timed_as(name: str) -> str:
    """The recipe whose step takes as long, on average over a run."""
    return "three_L_calls" if name == "depth_curriculum" else name.removesuffix("-stagger")


def known_times(size: str, folder: Path) -> dict[str, float]:
    """Seconds of a training step, as they were measured by earlier calls."""
    path = folder / size / "step_times.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    return known


def step_times(size: str, names: list[str], folder: Path, source: Path | None) -> dict[str, float]:
    """As `known_times`; what is missing is measured, with nothing else running."""
    path, known = folder / size / "step_times.json", known_times(size, folder)
    first = REFERENCE[size]
    new = {timed_as(name) for name in names} - known.keys()
    if new:
        data = data_set(size, 0, source)
        timers = {name: Timer(size, name, data) for name in dict.fromkeys([first, *sorted(new)])}
        for _ in range(1 + ROUNDS):
            for timer in timers.values():
                timer.ask()
        measured = {name: timer.end() for name, timer in timers.items()}
        reference = known.get(first, measured[first])
        known |= {name: measured[name] / measured[first] * reference for name in new}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=1))
    return known


def epochs(size: str, seconds_a_step: float, puzzles: int) -> int:
    wanted = 60 * MINUTES[size] / seconds_a_step * BATCH_SIZE / puzzles
    return math.ceil(wanted) if size == "hard" else max(1, round(wanted))


def run_folder(folder: Path, size: str, name: str, seed: int) -> Path:
    return folder / size / f"{name}-seed{seed}"


def train(folder: Path, size: str, name: str, seed: int, seconds_a_step: float, data: Path) -> None:
    run = run_folder(folder, size, name, seed)
    if last_evaluation(run):
        return
    from hrm.data.format import read_metadata

    started = time.perf_counter()
    count = epochs(size, seconds_a_step, read_metadata(data / "train").total_groups)
    hrm(
        "train",
        str(data),
        *("--config-name", CONFIG[size], f"checkpoint_path={run}", "resume=auto"),
        *(f"seed={seed}", f"epochs={count}", "eval_interval=null"),
        *("checkpoint_interval=1min", "log_interval=10", *KEYS[size], *RECIPES[size][name]),
        switch=name if name in SWITCHES else None,
    )
    result = last_evaluation(run)
    seconds = time.perf_counter() - started
    print(f"{run}: {result['eval/exact_accuracy']:.1%}, {seconds:.0f} s", flush=True)


def last_evaluation(run: Path) -> dict[str, Any]:
    """The last line of `metrics.jsonl` with an evaluation; empty where there is none."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return next((json.loads(line) for line in reversed(lines) if '"eval/exact' in line), {})


def ends(folder: Path, size: str, name: str, seeds: list[int]) -> list[dict[str, Any]]:
    """The last evaluations of the runs that have ended."""
    found = (last_evaluation(run_folder(folder, size, name, seed)) for seed in seeds)
    return [end for end in found if end]


def exact(end: dict[str, Any]) -> float:
    """In percent."""
    return 100 * float(end["eval/exact_accuracy"])


def show(folder: Path, sizes: list[str], names: list[str], seeds: list[int]) -> None:
    """A table for docs/recipes.md, and its picture."""
    for size in sizes:
        times = known_times(size, folder)
        print(
            f"\n| {size}, {MINUTES[size]} minutes | ms a step | steps | minutes | exact, % | mean |"
        )
        print("| --- | --- | --- | --- | --- | --- |")
        for name in names:
            found = ends(folder, size, name, seeds) if name in RECIPES[size] else []
            if found:
                cells = " ".join(f"{exact(end):.1f}" for end in found)
                mean = statistics.mean(map(exact, found))
                seconds, steps = times[timed_as(name)], found[0]["step"]
                shown = f"{1e3 * seconds:.0f} | {steps:,} | {seconds * steps / 60:.1f}"
                print(f"| {name} | {shown} | {cells} | {mean:.1f} |")
    draw(folder, sizes, names, seeds)


def draw(folder: Path, sizes: list[str], names: list[str], seeds: list[int]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.6 + 0.3 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for panel, size in zip(panels, sizes, strict=True):
        panel.set_title(f"{size}, {MINUTES[size]} minutes on one core")
        panel.set_xlabel("unseen puzzles solved exactly, %")
        panel.set_xlim(-2, 102)
        panel.grid(axis="x", color="0.9")
        for number, name in enumerate(names):
            found = [exact(end) for end in ends(folder, size, name, seeds)]
            if found:
                panel.plot(found, [number] * len(found), "o", color="tab:blue", alpha=0.5)
                panel.plot([statistics.mean(found)], [number], "|", color="black", markersize=14)
        panel.set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.savefig(folder / "recipes.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", choices=sorted(MINUTES), default=["6x6", "9x9"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", help="default: all of the sizes'")
    parser.add_argument("--csv", type=Path, help="folder of the puzzles of size hard")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--folder", type=Path, default=Path("checkpoints/recipes"))
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument("--time", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.time:
        size, name, data = arguments.time
        answer_timer(size, name, Path(data))
        return
    folder, sizes = arguments.folder, arguments.sizes
    if "hard" in sizes and arguments.csv is None and not arguments.show:
        parser.error("--sizes hard needs --csv, a folder with train.csv and test.csv")
    known = list({name: 0 for size in sizes for name in RECIPES[size]})
    names = arguments.recipes or known
    if unknown := set(names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: of these sizes there are {', '.join(known)}")
    if not arguments.show:
        here = {size: [name for name in names if name in RECIPES[size]] for size in sizes}
        times = {size: step_times(size, here[size], folder, arguments.csv) for size in sizes}
        with ThreadPoolExecutor(arguments.jobs) as pool:
            waiting = []
            for size in sizes:
                for seed in arguments.seeds:
                    data = data_set(size, seed, arguments.csv)
                    for name in here[size]:
                        job = (folder, size, name, seed, times[size][timed_as(name)], data)
                        waiting.append(pool.submit(train, *job))
            for run in waiting:
                run.result()
    show(folder, sizes, names, arguments.seeds)


if __name__ == "__main__":
    main()
