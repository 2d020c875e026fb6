"""What learned halting gains in evaluation: the same puzzles with all ACT steps and with learned.

    python benchmarks/evaluation.py CHECKPOINT [--data-path …] [--puzzles 2000] [--batch-size 64]

Both are evaluated once without being timed, then in turns, with a large matrix product. MFU is the
FLOP/s of the products of all ACT steps over the rate of that one. A puzzle that takes a fourth of
the steps should take a fourth of the time: the last line says how much of that is reached.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import get_args

import torch
from training import rate_of_product

from hrm.checkpoint import load_checkpoint
from hrm.config import DeviceName, Halting
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.puzzle_dataset import NamedBatch
from hrm.device import compile_model, pick_device
from hrm.errors import run_command
from hrm.evaluation import evaluate
from hrm.models.flops import act_step_flops
from hrm.models.losses import ACTLossHead
from hrm.ranks import ALONE

SPEED_TARGET, ACCURACY_TARGET = 0.85, 0.005


class FirstBatches(PuzzleDataset):
    """As many batches of the test split as hold `puzzles`."""

    def __init__(self, data_path: Path, puzzles: int, batch_size: int):
        config = PuzzleDatasetConfig(
            seed=0,
            dataset_path=data_path,
            global_batch_size=batch_size,
            test_set_mode=True,
            epochs_per_iter=1,
            rank=0,
            num_replicas=1,
        )
        super().__init__(config, split="test")
        self.batches = -(-puzzles // batch_size)

    def __iter__(self) -> Iterator[NamedBatch]:
        return islice(self.iterate(0), self.batches)

    def __len__(self) -> int:
        """Puzzles."""
        return sum(size for _, _, size in self)


@dataclass
class Measured:
    """Metrics of one way to halt, the same in every round, and seconds of each round."""

    metrics: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def run(
        self,
        model: ACTLossHead,
        dataset: PuzzleDataset,
        device: torch.device,
        halting: Halting,
        halt_probability: float,
    ) -> None:
        start = time.perf_counter()
        result = evaluate(model, dataset, device, ALONE, halting, halt_probability=halt_probability)
        self.seconds.append(time.perf_counter() - start)
        assert result is not None
        self.metrics = result.overall

    def puzzles_per_second(self, puzzles: int) -> float:
        """Median of the rounds but the first."""
        return puzzles / statistics.median(self.seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint", type=Path, help="a step_<n>, or a run's folder")
    parser.add_argument("--data-path", type=Path, help="else the training run's")
    parser.add_argument("--halt-probability", type=float, help="else the training run's")
    parser.add_argument("--puzzles", type=int, default=2000, help="rounded up to whole batches")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=get_args(DeviceName), default="auto")
    parser.add_argument("--compile", choices=("auto", "true", "false"), default="false")
    arguments = parser.parse_args()

    checkpoint = load_checkpoint(arguments.checkpoint, data_path=arguments.data_path)
    data_path = arguments.data_path or checkpoint.config.data_path
    dataset = FirstBatches(data_path, arguments.puzzles, arguments.batch_size)
    puzzles = len(dataset)
    if puzzles < arguments.puzzles:
        print(f"{data_path}: the test split has {puzzles} puzzles, not {arguments.puzzles}")
    device = pick_device(arguments.device)
    model = checkpoint.model.to(device).eval()
    compiled = compile_model(model, arguments.compile, device)

    probability = arguments.halt_probability
    if probability is None:
        probability = checkpoint.config.eval_halt_probability
    measured: dict[Halting, Measured] = {"max_steps": Measured(), "learned": Measured()}
    product = rate_of_product(getattr(torch, checkpoint.config.arch.forward_dtype), device)
    rates = []
    for _ in range(1 + arguments.rounds):
        for halting, record in measured.items():
            record.run(model, dataset, device, halting, probability)
            rates.append(product())

    arch = checkpoint.config.arch
    print(
        f"{puzzles} puzzles, batch size {arguments.batch_size}, {arch.forward_dtype}, "
        f"{'compiled' if compiled else 'not compiled'}, {device.type}, "
        f"{torch.get_num_threads()} threads, median of {arguments.rounds} rounds"
    )
    columns = "mean ACT steps", "exact accuracy", "puzzles/s", "TFLOP/s", "MFU"
    print(f"{'halting':>10}" + "".join(f"{column:>16}" for column in columns))
    flops = act_step_flops(model.model.inner.config)
    for halting, record in measured.items():
        steps, exact = record.metrics["steps"], record.metrics["exact_accuracy"]
        speed = record.puzzles_per_second(puzzles)
        rate = speed * steps * flops
        of_product = rate / statistics.median(rates)
        line = f"{halting:>10}{steps:16.2f}{exact:16.1%}{speed:16.1f}"
        print(f"{line}{rate / 1e12:16.3f}{of_product:16.2f}")

    full, learned = measured["max_steps"], measured["learned"]
    gain = learned.puzzles_per_second(puzzles) / full.puzzles_per_second(puzzles)
    possible = full.metrics["steps"] / learned.metrics["steps"]
    lost = full.metrics["exact_accuracy"] - learned.metrics["exact_accuracy"]
    print(
        f"{gain:.2f} times as fast, {gain / possible:.2f} of max steps / mean steps = "
        f"{possible:.2f} (target {SPEED_TARGET}); accuracy {-100 * lost:+.1f} points (target: at "
        f"most {100 * ACCURACY_TARGET:.1f} lost)"
    )


if __name__ == "__main__":
    run_command(main)
