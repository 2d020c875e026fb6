"""What single techniques of the training step bring on this machine, each against its alternative.

    python benchmarks/techniques.py [--rounds 9]

Alternatives take turns; milliseconds are medians. `used` is what the project does. Widths: 512, 8
heads, 82 positions, batch 32 (the published model) and 128, 4 heads, 81 positions, batch 64.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrm.device import has_fast_bfloat16, keep_memory
from hrm.models.attention import scaled_attention
from hrm.models.layers import Block, CastedLinear, RotaryEmbedding
from hrm.optim import AdamATan2, Muon

Work = Callable[[], object]
WIDTHS = ((512, 8, 82, 32), (128, 4, 81, 64))  # hidden size, heads, positions, batch
PUBLISHED_PARAMETERS = [p for _ in range(8) for p in (786432, 262144, 1572864, 786432)]
SMALL_PARAMETERS = [p for _ in range(4) for p in (49152, 16384, 65536, 32768)] + [1024] * 11
DTYPE = torch.bfloat16 if has_fast_bfloat16(torch.device("cpu")) else torch.float32
BETAS = (0.9, 0.95)


class RotateWhole(RotaryEmbedding):
    """x · cos + rotated · sin, where the rotated copy is made first."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        first, second = y.chunk(2, dim=-1)
        rotated = torch.cat([-second, first], dim=-1)
        cos, sin = (torch.cat([table, table], dim=-1) for table in (self.cos, self.sin))
        return (y * cos + rotated * sin).to(x.dtype)


def attend(qkv: Tensor, rotate: nn.Module, fused: bool) -> Tensor:
    """From projections [B, S, 3, N, H] to what `o_proj` is given."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    q, k, scale = rotate(q), rotate(k), 1 / math.sqrt(qkv.shape[-1])
    if fused:
        y = F.scaled_dot_product_attention(q, k, v, scale=scale)
    else:
        y = scaled_attention(q, k, v, scale)
    return y.transpose(1, 2).flatten(2)


def with_backward(function: Callable[[Tensor], Tensor], x: Tensor) -> Work:
    def work() -> None:
        leaf = x.detach().requires_grad_()
        y = function(leaf)
        y.backward(torch.ones_like(y))

    return work


def attention(D: int, N: int, S: int, B: int) -> dict[str, Work]:
    qkv = torch.randn(B, S, 3, N, D // N).to(DTYPE)
    halves, whole = RotaryEmbedding(S, D // N), RotateWhole(S, D // N)
    ways = {
        "used": partial(attend, rotate=halves, fused=False),
        "rotated copy": partial(attend, rotate=whole, fused=False),
        "fused attention": partial(attend, rotate=halves, fused=True),
    }
    compiled = {name: torch.compile(way, dynamic=False) for name, way in ways.items()}
    return {name: with_backward(way, qkv) for name, way in compiled.items()}


def casting(D: int, N: int, S: int, B: int) -> dict[str, Work]:
    block, rotate = Block(D, N, 4.0, qk_norm=False), RotaryEmbedding(S, D // N)
    x = torch.randn(B, S, D).to(DTYPE)
    compiled = torch.compile(block, dynamic=False)
    weights = block.cast(DTYPE)

    def once() -> Tensor:
        with torch.no_grad():
            return compiled(x, rotate, weights)

    def each_call() -> Tensor:
        with torch.no_grad():
            return compiled(x, rotate, block.cast(DTYPE))

    return {"used": once, "cast at each call": each_call}


def onednn(D: int, N: int, S: int, B: int) -> dict[str, Work]:
    """The MLP without gradient; oneDNN packs the weights and applies silu and product itself."""
    mlp = Block(D, N, 4.0, qk_norm=False).mlp
    x = torch.randn(B, S, D).to(DTYPE)
    gate, up = (w.contiguous() for w in mlp.gate_up_proj.weight.detach().to(DTYPE).chunk(2))
    gate_up, down = torch.cat([gate, up]), mlp.down_proj.weight.detach().to(DTYPE)
    pack = torch.ops.mkldnn._reorder_linear_weight
    packed_gate, packed_up, packed_down = (pack(w, B * S) for w in (gate, up, down))
    linear = torch.ops.mkldnn._linear_pointwise

    def fused() -> Tensor:
        with torch.no_grad():
            g = linear(x, packed_gate, None, "swish", [], "")
            y = linear.binary(x, g, packed_up, None, "mul")
            return linear(y, packed_down, None, "none", [], "")

    def plain(x: Tensor) -> Tensor:
        g, u = F.linear(x, gate_up).chunk(2, dim=-1)
        return F.linear(F.silu(g) * u, down)

    compiled = torch.compile(plain, dynamic=False)

    def used() -> Tensor:
        with torch.no_grad():
            return compiled(x)

    return {"used": used, "packed and fused by oneDNN": fused}


def optimizer(sizes: list[int]) -> dict[str, Work]:
    params = [torch.randn(n).requires_grad_() for n in sizes]
    grads = [torch.randn_like(p) for p in params]
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    ours = AdamATan2(params, lr=1e-4, weight_decay=0.1)
    p, m, v = (torch.randn(sum(sizes)) for _ in range(3))

    def joined() -> None:
        """All parameters as one vector, which is what joining them could bring at the most."""
        g = torch.cat(grads)
        m.lerp_(g, 1 - BETAS[0])
        v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        move = v.abs().sqrt_().div_(0.9)
        torch.atan2(m, move, out=move)
        p.mul_(1 - 1e-5).add_(move, alpha=-1e-4)

    return {"used": ours.step, "all in one vector": joined}


def muon() -> dict[str, Work]:
    """An update of the matrices of the quickstart's blocks."""
    blocks = [Block(128, 8, 2.0, qk_norm=True) for _ in range(4)]
    layers = [m for block in blocks for m in block.modules() if isinstance(m, CastedLinear)]
    for layer in layers:
        layer.weight.grad = torch.randn_like(layer.weight)
    groups = [{"params": [layer.weight], "pieces": layer.fused} for layer in layers]
    ways: dict[str, Work] = {
        "used": Muon([dict(group) for group in groups], lr=1e-4).step,
        "used beside bfloat16": Muon(groups, lr=1e-4, dtype=torch.bfloat16).step,
    }
    if hasattr(torch.optim, "Muon"):
        ways["torch's, in bfloat16"] = torch.optim.Muon([x.weight for x in layers], lr=1e-4).step
    return ways


def allocator(rounds: int) -> dict[str, float]:
    """Milliseconds of a published step, with and without `keep_memory`, processes in turn."""
    seconds: dict[str, list[float]] = {"used": [], "given back": []}
    for _ in range(max(1, rounds // 3)):
        for name, measured in seconds.items():
            command = [sys.executable, __file__, "--step", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            measured.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: 1e3 * statistics.median(measured) for name, measured in seconds.items()}


def published_step() -> float:
    """Seconds of a training step; median of 4 after 2."""
    from training import prepare  # beside this script

    step, _, _ = prepare("published", torch.device("cpu"))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def in_turns(ways: dict[str, Work], rounds: int) -> dict[str, float]:
    """Median milliseconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(2 + rounds):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if number >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(taken) for name, taken in seconds.items()}


def cases() -> Iterator[tuple[str, dict[str, Work]]]:
    for width in WIDTHS:
        name = f"hidden {width[0]}"
        yield f"{name}: attention, forward + backward", attention(*width)
        yield f"{name}: block, forward", casting(*width)
        yield f"{name}: MLP, forward", onednn(*width)
    yield "AdamATan2, 27M parameters", optimizer(PUBLISHED_PARAMETERS)
    yield "AdamATan2, 0.7M parameters", optimizer(SMALL_PARAMETERS)
    yield "Muon, 4 blocks of the quickstart", muon()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--step", choices=("used", "given back"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step != "given back":
        keep_memory()
    if arguments.step:
        print(json.dumps(published_step()))
        return

    print(f"{'what':>44} {'ms':>9} {'/ used':>7}  way")
    for what, ways in cases():
        torch.compiler.reset()
        show(what, in_turns(ways, arguments.rounds))
    show("published model, batch 32: step", allocator(arguments.rounds))


def show(what: str, measured: dict[str, float]) -> None:
    for way, ms in measured.items():
        print(f"{what:>44} {ms:9.2f} {ms / measured['used']:7.2f}  {way}", flush=True)


if __name__ == "__main__":
    main()
