"""Evaluations of runs over their training FLOPs, as one picture.

    python benchmarks/curves.py docs/recipes_hard.png RUN … [--metric exact_accuracy]

RUN is a run's folder, or NAME=FOLDER.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from hrm.checkpoint import find_checkpoint, load_checkpoint
from hrm.errors import run_command
from hrm.models.flops import training_flops
from hrm.records import METRICS_FILE, read_records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN")
    parser.add_argument("--metric", default="exact_accuracy")
    arguments = parser.parse_args()
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for text in arguments.runs:
        name, _, folder = text.rpartition("=")
        flops, values = curve(Path(folder), f"eval/{arguments.metric}")
        axes.plot(flops, values, "o-", markersize=3, label=name or Path(folder).name)
    axes.set(xlabel="FLOPs of training", ylabel=arguments.metric.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(arguments.picture, dpi=150)


def curve(run: Path, metric: str) -> tuple[list[float], list[float]]:
    """Training FLOPs at each evaluation, and what was measured."""
    checkpoint = load_checkpoint(find_checkpoint(run))
    config = checkpoint.model.model.inner.config
    each = training_flops(config) * checkpoint.config.global_batch_size
    found = [line for line in read_records(run / METRICS_FILE) if metric in line]
    return [each * line["step"] for line in found], [line[metric] for line in found]


if __name__ == "__main__":
    run_command(main)
