"""How fast the loader yields training batches, on one thread.

    python benchmarks/loader.py [data_path] [--batch-size 384] [--seconds 5]

Without a data path it writes a temporary data set of the size that `--subsample-size 1000
--num-aug 1000` makes: 1,001,000 rows of 81 tokens in 1,000 groups.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from hrm.data.format import DatasetMetadata, PuzzleArrays, write_arrays, write_metadata
from hrm.data.puzzle_dataset import PuzzleDataset, PuzzleDatasetConfig
from hrm.errors import run_command

GROUPS, VERSIONS, SEQ_LEN, VOCAB_SIZE = 1000, 1001, 81, 10
COPY_BYTES = 1 << 29


def write_sudoku_like(dataset_path: Path) -> None:
    split_dir = dataset_path / "train"
    split_dir.mkdir(parents=True)
    rng = np.random.default_rng(0)
    examples = GROUPS * VERSIONS
    tokens = rng.integers(1, VOCAB_SIZE, (examples, SEQ_LEN), dtype=np.uint8)
    arrays = PuzzleArrays(
        inputs=tokens,
        labels=tokens,
        puzzle_identifiers=np.repeat(np.arange(GROUPS, dtype=np.int32), VERSIONS),
        puzzle_indices=np.arange(examples + 1, dtype=np.int32),
        group_indices=np.arange(GROUPS + 1, dtype=np.int32) * VERSIONS,
    )
    write_arrays(split_dir, "train", arrays)
    write_metadata(
        split_dir,
        DatasetMetadata(
            pad_id=0,
            ignore_label_id=0,
            blank_identifier_id=-1,
            vocab_size=VOCAB_SIZE,
            seq_len=SEQ_LEN,
            num_puzzle_identifiers=GROUPS,
            total_groups=GROUPS,
            mean_puzzle_examples=1.0,
            sets=("train",),
        ),
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

    bandwidth = copy_bandwidth()
    rows = [
        ("examples/s", f"{examples / elapsed:,.0f}"),
        ("batches/s", f"{examples / batch_size / elapsed:,.0f}"),
        ("MB/s delivered (int32)", f"{read / elapsed / 1e6:,.0f}"),
        ("MB/s of a large numpy copy", f"{bandwidth / 1e6:,.0f}"),
        ("delivered / copied", f"{read / elapsed / bandwidth:.2f}"),
        ("open and check the files, ms", f"{opened * 1e3:,.0f}"),
        (f"reach batch {last} of iteration 1 directly, ms", f"{reached * 1e3:,.2f}"),
    ]
    print(f"{dataset_path}: batches of {batch_size}, {dataset.metadata.seq_len} tokens, one thread")
    for name, value in rows:
        print(f"  {name:<46}{value:>14}")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the loader yields training batches.")
    parser.add_argument("data_path", nargs="?", type=Path)
    parser.add_argument("--batch-size", type=int, default=384)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.data_path is not None:
        measure(args.data_path, args.batch_size, args.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        dataset_path = Path(folder) / "sudoku-like"
        write_sudoku_like(dataset_path)
        measure(dataset_path, args.batch_size, args.seconds)


if __name__ == "__main__":
    run_command(main)
