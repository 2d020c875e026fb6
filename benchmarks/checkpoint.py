"""How long a checkpoint keeps training waiting: the published model, batch 384, with EMA.

    python benchmarks/checkpoint.py

The stall is the copy of the state. The write goes on beside a fixed amount of work (products that
stand for training), of which the first is timed without a write. Copying as many bytes, in the same
run, is the roofline.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from hrm.data.format import DatasetMetadata
from hrm.ranks import ALONE
from hrm.training.config import load_pretrain_config
from hrm.training.loggers import TIMINGS_FILE, JsonLinesLogger, Loggers
from hrm.training.saving import Checkpoints
from hrm.training.state import TrainState

METADATA = DatasetMetadata(
    vocab_size=10,
    seq_len=81,
    num_puzzle_identifiers=1000,
    pad_id=0,
    ignore_label_id=None,
    blank_identifier_id=-1,
    total_groups=1000,
    mean_puzzle_examples=1.0,
    sets=("train",),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="hrm_v1")
    parser.add_argument("--batch", type=int, default=384)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        config = load_pretrain_config(
            [
                f"arch={arguments.arch}",
                f"global_batch_size={arguments.batch}",
                f"micro_batch_size={arguments.micro_batch}",
                f"checkpoint_path={folder}",
                "run_name=benchmark",
                "ema=true",
                "keep_checkpoints=1",
                "compile=false",
            ]
        )
        timings = JsonLinesLogger(Path(folder) / TIMINGS_FILE)
        state = TrainState.create(config, METADATA, torch.device("cpu"), ALONE)
        checkpoints = Checkpoints(config, METADATA, ALONE, Loggers(timings=timings), print, {})
        batch = {
            "inputs": torch.randint(0, 10, (arguments.batch, 81), dtype=torch.int32),
            "labels": torch.randint(1, 10, (arguments.batch, 81), dtype=torch.int32),
            "puzzle_identifiers": torch.randint(0, 1000, (arguments.batch,), dtype=torch.int32),
        }
        fill(state, batch, arguments.micro_batch)
        checkpoints.reserve(state)
        time.sleep(5)  # a first step of this model takes longer
        steps = []
        for _ in range(arguments.rounds):
            steps.append(seconds_of_work())
            state.step += 1
            checkpoints.save(state)
        checkpoints.finish()
        measured = [json.loads(line) for line in timings.path.read_text().splitlines()]
        last = Path(folder) / f"step_{state.step}"
        size = sum(path.stat().st_size for path in last.rglob("*") if path.is_file())

    stalls = [line["checkpoint_stall"] for line in measured]
    writes = [line["checkpoint_write"] for line in measured]
    print(f"{arguments.arch}, batch {arguments.batch}, EMA: {size / 1e6:.0f} MB a checkpoint")
    print(f"{'':>36} {'first':>7} {'median of the rest':>19} {'largest':>8}")
    for name, seconds in (
        ("training waits for the copy, s", stalls),
        ("write beside training, s", writes),
        ("a fixed amount of work, s", steps),
    ):
        rest = statistics.median(seconds[1:])
        print(f"{name:>36} {seconds[0]:7.3f} {rest:19.3f} {max(seconds):8.3f}")
    rate = copy_rate(size)
    print(f"copying as many bytes at {rate / 1e9:.1f} GB/s takes {size / rate:.3f} s")


def fill(state: TrainState, batch: dict[str, Tensor], micro_batch: int) -> None:
    """The state as it is after a step of the whole batch, without the minutes that it takes."""
    for parameter in state.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.optimizers[0].step()
    for start in range(0, len(batch["inputs"]), micro_batch):
        rows = {name: tensor[start : start + micro_batch] for name, tensor in batch.items()}
        state.carries.append(state.model.initial_carry(rows, start))


def seconds_of_work() -> float:
    a = torch.ones(1024, 1024)
    start = time.perf_counter()
    for _ in range(200):
        a @ a
    return time.perf_counter() - start


def copy_rate(size: int) -> float:
    """Bytes per second of a copy between two buffers that are in use already."""
    source, target = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return size / statistics.median(seconds)


if __name__ == "__main__":
    main()
