"""How fast the loader yields training batches, on one thread, and how much memory it holds.

    python benchmarks/loader.py [data_path] [--batch-size 384] [--seconds 5]
    python benchmarks/loader.py --groups 900 --seq-len 900 --batch-size 768

Without a data path it writes a temporary data set of the size that `--subsample-size 1000
--num-aug 1000` makes: 1,001,000 rows of 81 tokens in 1,000 groups. The second command's is as large
as ARC-AGI-1 with 1,000 versions of each task: 6.5 GB, four examples a puzzle.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
import torch

from hrm.data.puzzle_dataset import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.writer import SplitWriter
from hrm.errors import run_command

VERSIONS, VOCAB_SIZE = 1001, 12
SUDOKU_LEN = 81  # above it puzzles have four examples each, as in ARC
COPY_BYTES = 1 << 29
BYTES_PER_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def write_data(dataset_path: Path, groups: int, seq_len: int) -> None:
    dataset_path.mkdir()
    rng = np.random.default_rng(0)
    counts = np.full(VERSIONS, 1 if seq_len <= SUDOKU_LEN else 4)
    with SplitWriter(dataset_path / "train", "train", seq_len) as split:
        for group in range(groups):
            tokens = rng.integers(1, VOCAB_SIZE, (counts.sum(), seq_len), dtype=np.uint8)
            split.add_puzzles(np.full(VERSIONS, group), tokens, tokens, counts)
            split.end_group()
        split.finish(
            pad_id=0,
            ignore_label_id=0,
            blank_identifier_id=-1,
            vocab_size=VOCAB_SIZE,
            num_puzzle_identifiers=groups,
        )


def copy_bandwidth() -> float:
    """Bytes per second that a numpy copy of half a gigabyte writes (best of three)."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.ones_like(source)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - begin)
    return COPY_BYTES / min(seconds)


def measure(dataset_path: Path, batch_size: int, seconds: float) -> None:
    begin = time.perf_counter()
    dataset = PuzzleDataset(
        PuzzleDatasetConfig(
            seed=0,
            dataset_path=dataset_path,
            global_batch_size=batch_size,
            test_set_mode=False,
            epochs_per_iter=2000,
            rank=0,
            num_replicas=1,
            puzzle_emb_dropout=0.1,
        )
    )
    opened = time.perf_counter() - begin

    last = dataset.batches_per_iteration(1) - 1
    begin = time.perf_counter()
    dataset.batch(1, last)
    reached = time.perf_counter() - begin

    examples = read = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for _, batch, size in dataset:
            examples += size
            read += sum(tensor.nbytes for tensor in batch.values())
            if time.perf_counter() - begin >= seconds:
                break
    elapsed = time.perf_counter() - begin

    resident = getrusage(RUSAGE_SELF).ru_maxrss * BYTES_PER_RSS_UNIT
    bandwidth = copy_bandwidth()
    rows = [
        ("examples/s", f"{examples / elapsed:,.0f}"),
        ("batches/s", f"{examples / batch_size / elapsed:,.0f}"),
        ("MB/s delivered (int32)", f"{read / elapsed / 1e6:,.0f}"),
        ("MB/s of a large numpy copy", f"{bandwidth / 1e6:,.0f}"),
        ("delivered / copied", f"{read / elapsed / bandwidth:.2f}"),
        ("open and check the files, ms", f"{opened * 1e3:,.0f}"),
        ("most resident memory, MB", f"{resident / 1e6:,.0f}"),
        (f"reach batch {last} of iteration 1 directly, ms", f"{reached * 1e3:,.2f}"),
    ]
    print(f"{dataset_path}: batches of {batch_size}, {dataset.metadata.seq_len} tokens, one thread")
    for name, value in rows:
        print(f"  {name:<46}{value:>14}")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the loader yields training batches.")
    parser.add_argument("data_path", nargs="?", type=Path)
    parser.add_argument("--groups", type=int, default=1000, help="of the temporary data set")
    parser.add_argument("--seq-len", type=int, default=SUDOKU_LEN, help="of the temporary data set")
    parser.add_argument("--batch-size", type=int, default=384)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.data_path is not None:
        measure(args.data_path, args.batch_size, args.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        dataset_path = Path(folder) / "data"
        write_data(dataset_path, args.groups, args.seq_len)
        measure(dataset_path, args.batch_size, args.seconds)


if __name__ == "__main__":
    run_command(main)
