"""How fast training steps are, against what the machine can do.

    python benchmarks/training.py [--cases published small …] [--rounds 7]

Every case runs in a process of its own, which takes compiled and uncompiled steps, a large matrix
product and a large copy in turn. MFU is model FLOP/s over the rate of the product, in the dtype of
the activations. Model FLOPs are the products of the exact step, the second forward pass included.
Peak memory is the resident memory of another process, which takes two compiled steps only.
`published` (HRM), `trm` and `trm-mlp` are the published models side by side, at the same batch.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage
from typing import Any

import torch
from torch import Tensor

from hrm.data.format import DatasetMetadata
from hrm.device import free_memory, keep_memory, pick_device
from hrm.models.flops import training_flops
from hrm.models.recurrence import RecurrentConfig
from hrm.ranks import Ranks
from hrm.training.config import PretrainConfig, load_pretrain_config
from hrm.training.sizing import for_device
from hrm.training.state import TrainState, train_step

ALONE = Ranks(0, 1, 0)
WARM_UP_STEPS = 3
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}  # a GPU is not filled by less
COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}
BYTES_PER_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
SMALL = "arch.hidden_size=128 arch.num_heads=4 arch.H_layers=2 arch.L_layers=2".split()
TINY = "arch.L_cycles=3 arch.backprop=last_cycle arch.q_continue=false".split()
CASES: dict[str, tuple[str, int, list[str]]] = {  # recipe, side of the grid, overrides
    "published": ("cfg_pretrain", 9, ["global_batch_size=32"]),
    "published-384": ("cfg_pretrain", 9, ["global_batch_size=384"]),
    "trm": ("trm_sudoku", 9, ["global_batch_size=32"]),
    "trm-mlp": ("trm_sudoku_mlp", 9, ["global_batch_size=32"]),
    "small": ("cfg_pretrain", 9, [*SMALL, "global_batch_size=64"]),
    "small-float32": (
        "cfg_pretrain",
        9,
        [*SMALL, "global_batch_size=64", "arch.forward_dtype=float32"],
    ),
    "tiny": ("cfg_pretrain", 4, [*SMALL, *TINY, "global_batch_size=64"]),
    "quickstart-4x4": ("quickstart_4x4", 4, []),
    "quickstart-6x6": ("quickstart_6x6", 6, []),
    "quickstart-9x9": ("quickstart_9x9", 9, []),
}
BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
COLUMNS = (
    "case",
    "examples/s",
    "TFLOP/s",
    "product",
    "MFU",
    "× uncompiled",
    "peak MB",
    "copy GB/s",
)


def prepare(
    case: str, compile_mode: str, device: torch.device
) -> tuple[Callable[[], Any], RecurrentConfig, PretrainConfig]:
    """A function that takes one training step, and what it trains."""
    recipe, side, overrides = CASES[case]
    defaults = ["arch.forward_dtype=auto", f"compile={compile_mode}"]
    config = load_pretrain_config([*defaults, *overrides], recipe)
    metadata = DatasetMetadata(
        vocab_size=side + 1,
        seq_len=side * side,
        num_puzzle_identifiers=1000,
        pad_id=0,
        ignore_label_id=None,
        blank_identifier_id=-1,
        total_groups=1000,
        mean_puzzle_examples=1.0,
        sets=("train",),
        grid_shape=(side, side),
        box_shape=BOXES[side],
    )
    config = for_device(config, device, metadata, ALONE.size, free_memory(device))
    state = TrainState.create(config, metadata, device, ALONE)
    shape = config.global_batch_size, metadata.seq_len
    batch: dict[str, Tensor] = {
        "inputs": torch.randint(0, side + 1, shape, dtype=torch.int32, device=device),
        "labels": torch.randint(1, side + 1, shape, dtype=torch.int32, device=device),
        "puzzle_identifiers": torch.arange(shape[0], dtype=torch.int32, device=device),
    }
    return lambda: train_step(state, batch, config, ALONE), state.model.model.inner.config, config


def rate_of_product(dtype: torch.dtype, device: torch.device) -> Callable[[], float]:
    """A function that measures FLOP/s of a product whose operands stay allocated."""
    size = PRODUCT_SIZE[device.type]
    a = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(a)
    return lambda: 2 * size**3 / seconds(lambda: torch.mm(a, a, out=out), device)


def rate_of_copy(device: torch.device) -> Callable[[], float]:
    """A function that measures bytes/s, read and written, of a copy between two buffers."""
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return lambda: 2 * source.nbytes / seconds(lambda: target.copy_(source), device)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(case: str, rounds: int, device: torch.device) -> dict[str, float]:
    """Medians over rounds in which everything takes its turn."""
    compiled, model, config = prepare(case, "auto", device)
    uncompiled, _, _ = prepare(case, "false", device)
    dtype = getattr(torch, model.forward_dtype)
    product, copy = rate_of_product(dtype, device), rate_of_copy(device)
    for step in (compiled, uncompiled):
        for _ in range(1 if config.global_batch_size > 100 else WARM_UP_STEPS):
            step()
    measured = [
        (seconds(compiled, device), product(), seconds(uncompiled, device), product(), copy())
        for _ in range(rounds)
    ]
    step, rate, plain, rate_2, bandwidth = (
        statistics.median(x) for x in zip(*measured, strict=True)
    )
    rate = (rate + rate_2) / 2
    flops = config.global_batch_size * training_flops(model) / step
    return {
        "examples/s": config.global_batch_size / step,
        "TFLOP/s": flops / 1e12,
        "product": rate / 1e12,
        "MFU": flops / rate,
        "× uncompiled": plain / step,
        "copy GB/s": bandwidth / 1e9,
    }


def peak_memory(case: str, device: torch.device) -> float:
    """MB that two compiled steps need, and all that is imported for them."""
    step, _, _ = prepare(case, "auto", device)
    for _ in range(2):
        step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return getrusage(RUSAGE_SELF).ru_maxrss * BYTES_PER_RSS_UNIT / 1e6


def in_a_process_of_its_own(*arguments: str) -> Any:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--rounds", type=int, default=7, help="of batch 384 at most 2")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--only", choices=("time", "memory"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    keep_memory()
    device = pick_device(arguments.device)
    if arguments.only == "time":
        print(json.dumps(measure(arguments.cases[0], arguments.rounds, device)))
        return
    if arguments.only == "memory":
        print(json.dumps(peak_memory(arguments.cases[0], device)))
        return
    print(" ".join(f"{name:>{max(14, len(name))}}" for name in COLUMNS), flush=True)
    for case in arguments.cases:
        rounds = min(2, arguments.rounds) if case == "published-384" else arguments.rounds
        shared = ("--cases", case, "--device", arguments.device)
        row = in_a_process_of_its_own("--only", "time", "--rounds", str(rounds), *shared)
        row["peak MB"] = in_a_process_of_its_own("--only", "memory", *shared)
        numbers = [row[name] for name in COLUMNS[1:]]
        shown = " ".join(f"{number:>14,.{0 if number >= 1000 else 3}f}" for number in numbers)
        print(f"{case:>14} {shown}", flush=True)


if __name__ == "__main__":
    main()
