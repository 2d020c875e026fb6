"""What ranks cost: bytes on the wire, throughput on one machine, and a model of larger ones.

    python benchmarks/scaling.py            # measures on gloo; needs a quiet machine with 2 cores
    python benchmarks/scaling.py --arch published --batch 8 --steps 4
    python benchmarks/scaling.py --model    # step times on GPUs by formula; nothing is measured

Bytes are counted at the loopback interface, in a network namespace of the job's own where `unshare`
makes one; they include TCP/IP headers and acknowledgements. Timings are interleaved, with medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path

import torch

from hrm.checkpoint import build_for
from hrm.data.format import DatasetMetadata
from hrm.errors import run_command
from hrm.models.recurrence import RecurrentCore
from hrm.models.transformer import TransformerArch
from hrm.ranks import Ranks
from hrm.training.config import PretrainConfig, load_pretrain_config
from hrm.training.state import TrainState, train_step

METADATA = DatasetMetadata(
    pad_id=0,
    ignore_label_id=0,
    blank_identifier_id=-1,
    vocab_size=10,
    seq_len=81,
    num_puzzle_identifiers=1000,
    total_groups=1000,
    mean_puzzle_examples=1.0,
    sets=("all",),
)
SMALL = ("arch.hidden_size=128", "arch.num_heads=4", "arch.H_layers=2", "arch.L_layers=2")
WARM_UP, MATRIX, MATRIX_SECONDS = 2, 768, 0.3
LOGGED_SCALARS = 13  # metrics that are summed where a step is logged


def configuration(arch: str, batch: int) -> PretrainConfig:
    more = SMALL if arch == "small" else ()
    values = ("run_name=scaling", "arch.forward_dtype=float32", "device=cpu", "compile=false")
    return load_pretrain_config((*values, f"global_batch_size={batch}", *more))


# Measured: one process of a job


def matrix_rate() -> float:
    """FLOP per second of a matrix product on this process's threads."""
    a = torch.rand(MATRIX, MATRIX)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < MATRIX_SECONDS:
        a @ a
        count += 1
    return count * 2 * MATRIX**3 / (time.perf_counter() - start)


def loopback_bytes() -> int:
    """Sent over the loopback interface so far, by all processes of this network namespace."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    raise SystemExit("no loopback interface")


def worker(arch: str, batch: int, steps: int, threads: int) -> None:
    """Train on random tokens; rank 0 prints what it measured as JSON."""
    torch.set_num_threads(threads)
    config, ranks = configuration(arch, batch), Ranks.from_environment()
    with ranks.connected(), ranks.answering_within(config.rank_timeout) as group:
        state = TrainState.create(config, METADATA, torch.device("cpu"), group)
        rows = config.global_batch_size // group.size
        tokens = torch.randint(1, 10, (rows, METADATA.seq_len), dtype=torch.int32)
        identifiers = torch.arange(rows, dtype=torch.int32)
        data = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": identifiers}
        rate = group.sum({"rate": torch.tensor(matrix_rate())})["rate"]
        seconds = []
        before = 0
        for step in range(WARM_UP + steps):
            group.maximum(0)
            if step == WARM_UP:
                before = loopback_bytes()
            start = time.perf_counter()
            state.sums.add(train_step(state, data, config, group))
            state.sums.reduce(group)
            group.maximum(0, 0)
            seconds.append(time.perf_counter() - start)
        sent = loopback_bytes() - before
        if group.is_first:
            result = {
                "seconds": statistics.median(seconds[WARM_UP:]),
                "sent": sent / steps / group.size,
                "matrix_rate": rate,
                "parameters": sum(p.numel() for p in state.model.parameters()),
                "ndim": getattr(config.arch, "puzzle_emb_ndim", 0),
            }
            print(json.dumps(result), flush=True)


# Measured: jobs


def own_network() -> list[str]:
    """A command's beginning that gives it a loopback interface of its own; empty without rights."""
    for unshare in (["unshare", "-n"], ["unshare", "-rn"]):
        command = [*unshare, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        if all(map(shutil.which, ("unshare", "ip"))):
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
    return []


def job(network: list[str], arch: str, batch: int, steps: int, ranks: int, threads: int) -> dict:
    command = [*network, sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += [__file__, "--worker", f"--threads={threads}", f"--arch={arch}"]
    command += [f"--batch={batch}", f"--steps={steps}"]
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"}
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def ring(ranks: int, size: float) -> float:
    """Bytes that a rank sends in an all-reduce of `size` bytes."""
    return 2 * (ranks - 1) / ranks * size


def puzzle_rows(ranks: int, rows: int, ndim: int) -> int:
    """Bytes that a rank sends of its puzzle gradients and identifiers, `rows` of them."""
    return (ranks - 1) * rows * (4 * ndim + 4)


def measure_bytes(network: list[str], arch: str, batch: int, steps: int) -> None:
    where = "own network namespace" if network else "the machine's loopback: others count too"
    print(f"bytes that a rank sends in a step, batch {batch} ({where})")
    print(f"{'ranks':>5} {'gradients':>12} {'puzzle rows':>12} {'scalars':>8}", end="")
    print(f" {'formula':>12} {'measured':>12} {'ratio':>6}")
    for ranks in (2, 3):
        rows = batch // ranks
        result = job(network, arch, rows * ranks, steps, ranks, 1)
        dense = ring(ranks, 4 * result["parameters"])
        sparse = puzzle_rows(ranks, rows, result["ndim"])
        scalars = ring(ranks, 4 * (5 + LOGGED_SCALARS) + 8 * 3)
        formula, sent = dense + sparse + scalars, result["sent"]
        print(f"{ranks:>5} {dense:>12,.0f} {sparse:>12,.0f} {scalars:>8,.0f}", end="")
        print(f" {formula:>12,.0f} {sent:>12,.0f} {sent / formula:>6.3f}")


def measure_time(network: list[str], arch: str, batch: int, steps: int, rounds: int) -> None:
    """Two cores, three ways: interleaved, so that all see the same machine."""
    half = batch // 2
    ways = {"1 rank x 2 threads": (batch, 1, 2), "2 ranks x 1 thread": (half * 2, 2, 1)}
    ways["1 rank x 1 thread"] = (half, 1, 1)
    results: dict[str, list[dict]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (size, ranks, threads) in ways.items():
            results[name].append(job(network, arch, size, steps, ranks, threads))
    print(f"medians of {rounds} interleaved runs of {steps} steps")
    print(f"{'':<20} {'batch':>5} {'ms/step':>8} {'examples/s':>11} {'GFLOP/s of products':>20}")
    speed = {}
    for name, (size, _, _) in ways.items():
        seconds = statistics.median(r["seconds"] for r in results[name])
        rate = statistics.median(r["matrix_rate"] for r in results[name])
        speed[name] = size / seconds
        print(f"{name:<20} {size:>5} {seconds * 1e3:>8.1f} {speed[name]:>11.1f}", end="")
        print(f" {rate / 1e9:>20.1f}")
    threads, ranks, one = speed.values()
    print(f"same batch: 2 ranks reach {ranks / threads:.2f} of 2 threads' speed")
    print(f"same batch per rank: 2 ranks reach {ranks / one / 2:.2f} of twice 1 rank's speed")


# By formula


@dataclass(frozen=True)
class Cluster:
    """Nodes of 8 H100- or H200-class GPUs. One GPU was measured, all that connects them was not."""

    peak: float = 989e12  # FLOP/s, bfloat16, dense
    # On one H200, compiled blocks, with the update: 1,501 kernels a step; 41.8 ms at batch 384;
    # at batch 32 7.1 ms captured as a CUDA graph, 36.9 ms launched one by one.
    utilization: float = 0.345  # of the peak, at a batch that fills the GPU
    kernels: int = 1501
    kernel_seconds: float = 6.7e-3 / 1501  # at least, however small the batch
    launch_seconds: float = 36.9e-3 / 1501  # of the host, where steps are not captured
    memory: float = 0.7 * 3.35e12  # bytes/s
    optimizer_passes: int = 9  # over 4 bytes per parameter: norms, moments, weights, averages
    gpus_per_node: int = 8
    nvlink: float = 0.8 * 450e9  # bytes/s that a GPU sends within the node
    network: float = 0.8 * 50e9  # bytes/s that a GPU sends to other nodes: one 400 Gb/s card each
    nvlink_latency: float = 3e-6  # of a message
    network_latency: float = 10e-6
    bucket: float = 25 * 2**20  # bytes of gradients that travel together
    small_collectives: int = 2  # flags of each step, sums of a logged one

    def latency(self, gpus: int) -> float:
        """Of a collective, by a tree there and back."""
        inside, nodes = min(gpus, self.gpus_per_node), max(1, gpus / self.gpus_per_node)
        return 2 * (log2(inside) * self.nvlink_latency + log2(nodes) * self.network_latency)

    def all_reduce(self, gpus: int, size: float) -> float:
        """Seconds: within nodes, then every GPU its share with its peers in other nodes."""
        inside, nodes = min(gpus, self.gpus_per_node), max(1, gpus / self.gpus_per_node)
        return ring(inside, size) / self.nvlink + 2 * (nodes - 1) / nodes * size / inside / (
            self.network
        )

    def gather(self, gpus: int, size: float) -> float:
        """Seconds until every GPU has `size` bytes of each; the slower of the two ways counts."""
        inside = min(gpus, self.gpus_per_node)
        away = (gpus - inside) * size / inside / self.network
        return max((gpus - 1) * size / self.nvlink, away) + self.latency(gpus)


@dataclass(frozen=True)
class Work:
    """What one training step of a model takes."""

    parameters: int
    ndim: int
    block_passes: int  # forward passes of a block for one example, a backward pass being two
    backward_passes: int  # of these
    flops: float  # for one example

    @staticmethod
    def of(config: PretrainConfig) -> "Work":
        """Products only: 2 FLOP for each weight and position, 4·S·D of attention per position."""
        a = config.arch
        assert isinstance(a, TransformerArch)
        with torch.device("meta"):
            model = build_for(config, METADATA)
            parameters = sum(p.numel() for p in model.parameters())
        inner = model.model.inner
        assert isinstance(inner, RecurrentCore)
        block = sum(p.numel() for p in inner.L_level.layers[0].parameters())
        positions = METADATA.seq_len + a.prefix_len
        backward = 2 * a.graded_block_calls
        passes = a.block_calls * (2 if model.model.has_continue_target else 1) + backward
        per_block = positions * (2 * block + 4 * positions * a.hidden_size)
        return Work(parameters, a.puzzle_emb_ndim, passes, backward, passes * per_block)


def step_seconds(
    work: Work, cluster: Cluster, gpus: int, rows: int, captured: bool
) -> dict[str, float]:
    """Parts of a step; `exposed` is what the backward pass does not hide of the all-reduce."""
    each = cluster.kernel_seconds if captured else cluster.launch_seconds
    compute = max(cluster.kernels * each, rows * work.flops / cluster.utilization / cluster.peak)
    optimizer = cluster.optimizer_passes * 4 * work.parameters / cluster.memory
    parts = {"compute": compute, "optimizer": optimizer, "reduce": 0.0, "exposed": 0.0}
    parts |= {"rows": 0.0, "scalars": 0.0}
    if gpus > 1:
        size = 4 * work.parameters
        buckets = ceil(size / cluster.bucket)
        parts["reduce"] = cluster.all_reduce(gpus, size) + buckets * cluster.latency(gpus)
        last = parts["reduce"] / buckets
        hidden = compute * work.backward_passes / work.block_passes
        parts["exposed"] = max(last, parts["reduce"] - hidden)
        parts["rows"] = cluster.gather(gpus, rows * (4 * work.ndim + 4))
        parts["scalars"] = cluster.small_collectives * cluster.latency(gpus)
    parts["step"] = sum(parts.values()) - parts["reduce"]
    return parts


def print_model() -> None:
    cluster = Cluster()
    work = Work.of(load_pretrain_config(("run_name=scaling",)))
    print(f"{work.parameters:,} parameters, {work.flops / 1e9:.1f} GFLOP per example and step")
    size = 4 * work.parameters
    print(f"gradients {size / 1e6:.1f} MB, {ceil(size / cluster.bucket)} buckets")
    for title, batches in (
        ("global batch 384", {n: 384 // n for n in (1, 8, 64, 384)}),
        ("48 per GPU", {n: 48 for n in (1, 8, 64, 512)}),
    ):
        for captured in (False, True):
            how = "if ranks were captured" if captured else "as it is: one GPU is captured"
            print(f"\n{title}, {how}; milliseconds")
            print_steps(work, cluster, batches, captured)
    print("\nGB of weights, gradients, moments and averages, for each of 8 GPUs")
    print_memory(work, cluster)


def print_steps(work: Work, cluster: Cluster, batches: dict[int, int], captured: bool) -> None:
    """A line per number of GPUs."""
    names = ("compute", "optimizer", "reduce", "exposed", "rows", "scalars", "step")
    print("| GPUs | per GPU | MB sent per GPU |", *(f"{n} |" for n in names), end=" ")
    print("examples/s | efficiency |")
    print("| ---: " * (5 + len(names)) + "|")
    base = 0.0
    for gpus, rows in batches.items():
        parts = step_seconds(work, cluster, gpus, rows, captured or gpus == 1)
        speed = gpus * rows / parts["step"]
        base = base or speed
        sent = ring(gpus, 4 * work.parameters) + puzzle_rows(gpus, rows, work.ndim)
        print(f"| {gpus} | {rows} | {sent / 1e6:.1f} |", end=" ")
        print(*(f"{parts[n] * 1e3:.2f} |" for n in names), end=" ")
        print(f"{speed:,.0f} | {speed / gpus / base:.0%} |")


def print_memory(work: Work, cluster: Cluster) -> None:
    """Bytes of a parameter: weight, gradient, two moments, average; the copy in bfloat16."""
    whole, sharded_by_zero, copy, gpus = 20, 12, 2, cluster.gpus_per_node
    print("| parameters | replicated | ZeRO-1 | FSDP | update, ms | with ZeRO-1 | step at 48, ms |")
    print("| ---: " * 7 + "|")
    for parameters in (work.parameters, 10**8, 10**9, 3 * 10**9, 10**10):
        update = cluster.optimizer_passes * 4 * parameters / cluster.memory
        flops = 48 * work.flops * parameters / work.parameters
        compute = flops / cluster.utilization / cluster.peak
        sizes = (
            whole + copy,
            whole + copy - sharded_by_zero * (1 - 1 / gpus),
            (whole + copy) / gpus,
        )
        print(f"| {parameters:,} |", *(f"{n * parameters / 1e9:.1f} |" for n in sizes), end=" ")
        print(f"{update * 1e3:.1f} | {update * 1e3 / gpus:.1f} | {compute * 1e3:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", action="store_true", help="by formula, for GPUs")
    parser.add_argument("--arch", choices=("small", "published"), default="small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.arch, args.batch, args.steps, args.threads)
    elif args.model:
        print_model()
    else:
        network = own_network()
        measure_bytes(network, args.arch, args.batch, args.steps)
        measure_time(network, args.arch, args.batch, args.steps, args.rounds)


if __name__ == "__main__":
    run_command(main)
