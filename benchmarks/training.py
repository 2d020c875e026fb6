"""How fast training steps are, against what the machine can do.

    python benchmarks/training.py [--cases published small …] [--rounds 7]

Every case runs in a process of its own, which takes steps as training does, steps without a CUDA
graph, uncompiled steps, a large matrix product and a large copy in turn. MFU is model FLOP/s over
the rate of the product, in the dtype of the activations. Model FLOPs are the products of the exact
step, the second forward pass included. Peak memory is that of another process, which takes a few
steps only; on a CPU it is resident memory. `launches` are the operations of an uncompiled step that
a device would start a kernel for, `moved GB` what they read and write (`counting.py`): they need no
device, and the host waits for none of them.
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
from counting import META, counted
from torch import Tensor

from hrm.data.format import DatasetMetadata
from hrm.device import free_memory, keep_memory, pick_device
from hrm.models.flops import training_flops
from hrm.models.recurrence import RecurrentConfig
from hrm.ranks import ALONE
from hrm.training.config import PretrainConfig, load_pretrain_config
from hrm.training.graph import WARM_UP_STEPS, stepper
from hrm.training.sizing import for_device
from hrm.training.state import TrainState

LONG_RUN = 10**6  # puzzles of an epoch, so that compiling pays
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}  # a GPU is not filled by less
COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}
BYTES_PER_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
SMALL = "arch.hidden_size=128 arch.num_heads=4 arch.H_layers=2 arch.L_layers=2".split()
TINY = "arch.L_cycles=3 arch.backprop=last_cycle arch.q_continue=false".split()
CASES: dict[str, tuple[str, int, list[str]]] = {  # recipe, side of the grid, overrides
    "published": ("cfg_pretrain", 9, ["global_batch_size=32"]),
    "published-384": ("cfg_pretrain", 9, ["global_batch_size=384"]),
    "trm": ("trm_sudoku", 9, ["global_batch_size=32"]),
    "trm-384": ("trm_sudoku", 9, ["global_batch_size=384"]),
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
    "× launched",
    "× uncompiled",
    "launches",
    "moved GB",
    "peak MB",
    "copy GB/s",
)


def prepare(
    case: str, device: torch.device, *more: str
) -> tuple[Callable[[], Any], RecurrentConfig, PretrainConfig]:
    """A function that takes one training step, and what it trains; `more` are further overrides."""
    state, batch, config = begin(*CASES[case], device, *more)
    step = stepper(state, config, ALONE, device)
    return lambda: step(batch), state.model.model.inner.config, config


def begin(
    recipe: str, side: int, overrides: list[str], device: torch.device, *more: str
) -> tuple[TrainState, dict[str, Tensor], PretrainConfig]:
    """A run before its first step, a batch of made-up puzzles, and how the run is configured."""
    config = load_pretrain_config(["arch.forward_dtype=auto", *overrides, *more], recipe)
    metadata = DatasetMetadata(
        vocab_size=side + 1,
        seq_len=side * side,
        num_puzzle_identifiers=1000,
        pad_id=0,
        ignore_label_id=None,
        blank_identifier_id=-1,
        total_groups=LONG_RUN,
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
    return state, batch, config


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
    launched = [("cuda_graph=false",)] if device.type == "cuda" else []
    ways = [(), *launched, ("cuda_graph=false", "compile=false")]
    steps, models, configs = zip(*(prepare(case, device, *way) for way in ways), strict=True)
    model, config = models[0], configs[0]
    dtype = getattr(torch, model.forward_dtype)
    product, copy = rate_of_product(dtype, device), rate_of_copy(device)
    warm_up = 1 if config.global_batch_size > 100 and device.type == "cpu" else WARM_UP_STEPS + 1
    for step in steps:
        for _ in range(warm_up):
            step()
    measured = [
        (product(), copy(), *(seconds(step, device) for step in steps)) for _ in range(rounds)
    ]
    rate, bandwidth, step, *others = (statistics.median(x) for x in zip(*measured, strict=True))
    flops = config.global_batch_size * training_flops(model) / step
    return {
        "examples/s": config.global_batch_size / step,
        "TFLOP/s": flops / 1e12,
        "product": rate / 1e12,
        "MFU": flops / rate,
        "× launched": others[0] / step if len(others) > 1 else 1.0,
        "× uncompiled": others[-1] / step,
        "copy GB/s": bandwidth / 1e9,
        **work_of(case, config),
    }


def work_of(case: str, config: PretrainConfig) -> dict[str, float]:
    """What an uncompiled step asks of a device."""
    micro = f"micro_batch_size={config.micro_batch_size or 'null'}"
    dtype = f"arch.forward_dtype={config.arch.forward_dtype}"
    step, _, _ = prepare(case, META, "compile=false", micro, dtype)
    work = counted(step)
    return {"launches": work.launches, "moved GB": work.bytes / 1e9}


def peak_memory(case: str, device: torch.device) -> float:
    """MB that a few steps need, and all that is imported for them."""
    step, _, _ = prepare(case, device)
    for _ in range(2 if device.type == "cpu" else WARM_UP_STEPS + 2):
        step()
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e6
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
        rounds = min(2, arguments.rounds) if case.endswith("-384") else arguments.rounds
        shared = ("--cases", case, "--device", arguments.device)
        row = in_a_process_of_its_own("--only", "time", "--rounds", str(rounds), *shared)
        row["peak MB"] = in_a_process_of_its_own("--only", "memory", *shared)
        numbers = [row[name] for name in COLUMNS[1:]]
        shown = " ".join(f"{number:>14,.{0 if number >= 1000 else 3}f}" for number in numbers)
        print(f"{case:>14} {shown}", flush=True)


if __name__ == "__main__":
    main()
