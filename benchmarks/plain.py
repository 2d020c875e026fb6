"""Training steps against the shortest straightforward ones in eager PyTorch.

    python benchmarks/plain.py [--sides 4 6 9] [--threads 1] [--rounds 15]

The published HRM narrowed to hidden size 128, batch 64, float32: `Plain` below is written as its
description reads, with library operations, and takes the same weights; its first loss must be ours.
Ours runs as `hrm train` would, with `compile=false` and `true` (`--ways step`: minutes to compile).
Everything takes its turn in one process; medians. The ratio: how many of our steps fit into a plain
one.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training import ALONE, SMALL, begin, seconds

from hrm.device import keep_memory
from hrm.models.losses import ACTLossHead
from hrm.training.config import PretrainConfig
from hrm.training.graph import stepper
from hrm.training.state import TrainState

WAYS = ("false", "true", "step")  # of `compile`
RECIPE = "cfg_pretrain"
NARROW = [*SMALL, "global_batch_size=64", "arch.forward_dtype=float32"]
TOLERANCE = 1e-4


def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-5)


def rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, width: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.gate_up = nn.Linear(dim, 2 * width, bias=False)
        self.down = nn.Linear(width, dim, bias=False)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, positions, dim = h.shape
        qkv = self.qkv(h).view(rows, positions, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = (x * cos + rotated(x) * sin for x in (q, k))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, positions, dim)
        h = rms_norm(h + self.out(y))
        gate, up = self.gate_up(h).chunk(2, -1)
        return rms_norm(h + self.down(F.silu(gate) * up))


class Plain(nn.Module):
    """The published model, its losses and its optimizers; takes a training step when called."""

    def __init__(self, ours: ACTLossHead, run: PretrainConfig):
        super().__init__()
        config: Any = ours.model.inner.config
        state = {n.removeprefix("model.inner."): t.clone() for n, t in ours.state_dict().items()}
        dim, heads = config.hidden_size, config.num_heads
        self.config, self.run_config = config, run
        self.tokens = nn.Embedding.from_pretrained(state["embed_tokens.embedding_weight"], False)
        self.table = nn.Parameter(state["puzzle_emb.weights"])
        self.lm_head = nn.Parameter(state["lm_head.weight"])
        self.q_weight = nn.Parameter(state["q_head.weight"])
        self.q_bias = nn.Parameter(state["q_head.bias"])
        self.start = {"H": state["H_init"], "L": state["L_init"]}
        self.levels = nn.ModuleDict()
        for level, layers in (("H", config.H_layers), ("L", config.L_layers)):
            blocks = nn.ModuleList()
            for number in range(layers):
                name = f"{level}_level.layers.{number}"
                down = state[f"{name}.mlp.down_proj.weight"]
                block = Block(dim, heads, down.shape[1])
                block.qkv.weight.data = state[f"{name}.self_attn.qkv_proj.weight"]
                block.out.weight.data = state[f"{name}.self_attn.o_proj.weight"]
                block.gate_up.weight.data = state[f"{name}.mlp.gate_up_proj.weight"]
                block.down.weight.data = down
                blocks.append(block)
            self.levels[level] = blocks
        head_dim = dim // heads
        frequencies = 1 / 10000 ** (torch.arange(0, head_dim, 2) / head_dim)
        angles = torch.outer(torch.arange(config.seq_len + 1), frequencies).repeat(1, 2)
        self.cos, self.sin = angles.cos(), angles.sin()
        self.dense = [p for p in self.parameters() if p is not self.table]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.dense]
        self.taken = 0
        self.carry: dict[str, Tensor] = {}

    def run(self, level: str, h: Tensor, injection: Tensor) -> Tensor:
        h = h + injection
        for block in self.levels[level]:  # type: ignore[attr-defined]
            h = block(h, self.cos, self.sin)
        return h

    def inner(self, h: Tensor, low: Tensor, e: Tensor) -> tuple[Tensor, ...]:
        cycles, inner_cycles = self.config.H_cycles, self.config.L_cycles
        with torch.no_grad():
            for cycle in range(cycles):
                for inner in range(inner_cycles):
                    if cycle < cycles - 1 or inner < inner_cycles - 1:
                        low = self.run("L", low, h + e)
                if cycle < cycles - 1:
                    h = self.run("H", h, low)
        low = self.run("L", low, h + e)
        h = self.run("H", h, low)
        q = F.linear(h[:, 0], self.q_weight, self.q_bias)
        return h, low, F.linear(h, self.lm_head)[:, 1:], q[:, 0], q[:, 1]

    def forward(self, batch: dict[str, Tensor]) -> None:
        """A training step."""
        loss, self.carry = self.loss_of(batch)
        loss.backward()
        self.update(self.carry["puzzle_identifiers"].long())

    def loss_of(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A puzzle's mean loss, and the carry after the step."""
        config, rows = self.config, len(batch["inputs"])
        old = self.carry or self.blank_carry(batch)
        new = old["halted"]
        data = {n: x.where(new.view(-1, *[1] * (x.ndim - 1)), old[n]) for n, x in batch.items()}
        h, low = (self.start[n].where(new.view(-1, 1, 1), old[n]) for n in ("H", "L"))
        steps = torch.where(new, 0, old["steps"]) + 1
        identifiers = data["puzzle_identifiers"].long()
        prefix = F.embedding(identifiers, self.table).unsqueeze(1)
        e = config.hidden_size**0.5 * torch.cat([prefix, self.tokens(data["inputs"].long())], 1)
        h, low, logits, q_halt, q_continue = self.inner(h, low, e)
        last = steps >= config.halt_max_steps
        with torch.no_grad():
            *_, next_halt, next_continue = self.inner(h.detach(), low.detach(), e)
            best = torch.where(last, next_halt, torch.maximum(next_halt, next_continue))
            explores = torch.rand(rows) < config.halt_exploration_prob
            least = torch.where(explores, torch.randint(2, config.halt_max_steps + 1, (rows,)), 0)
            halted = (last | (q_halt > q_continue)) & (steps >= least)
        s = logits.double()
        s = torch.where(s < 0, 1 / (1 - s.clamp(max=0)), s + 1)
        log_p = torch.log(s / s.sum(-1, keepdim=True))
        labels = data["labels"].long()
        token_loss = -log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1).mean(-1).sum()
        exact = (logits.argmax(-1) == labels).all(-1).float()
        bce = F.binary_cross_entropy_with_logits
        halting = bce(q_halt, exact, reduction="sum") + bce(
            q_continue, best.sigmoid(), reduction="sum"
        )
        carry = {"H": h.detach(), "L": low.detach(), "steps": steps, "halted": halted, **data}
        return (token_loss + 0.5 * halting) / rows, carry

    def blank_carry(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = len(batch["inputs"])
        blank = torch.zeros(rows, self.config.seq_len + 1, self.config.hidden_size)
        steps, halted = torch.zeros(rows, dtype=torch.long), torch.ones(rows, dtype=torch.bool)
        return {"H": blank, "L": blank, "steps": steps, "halted": halted, **batch}

    @torch.no_grad()
    def update(self, identifiers: Tensor) -> None:
        """AdamATan2, and sign SGD of the rows that were used."""
        self.taken += 1
        run, t = self.run_config, self.taken
        beta1, beta2, lr = run.beta1, run.beta2, run.lr
        for p, (m, v) in zip(self.dense, self.moments, strict=True):
            assert p.grad is not None
            m.lerp_(p.grad, 1 - beta1)
            v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            p.mul_(1 - lr * run.weight_decay)
            p.sub_(torch.atan2(m, (v / (1 - beta2**t)).sqrt()), alpha=lr / (1 - beta1**t))
        rows = identifiers.unique()
        assert self.table.grad is not None
        kept = self.table[rows] * (1 - run.puzzle_emb_lr * run.puzzle_emb_weight_decay)
        self.table[rows] = kept - run.puzzle_emb_lr * self.table.grad[rows].sign()
        self.zero_grad()


def measure(side: int, rounds: int, ways: Sequence[str]) -> dict[str, float]:
    """Median seconds of a step: plain, and ours in each way."""
    device = torch.device("cpu")
    steps: dict[str, Callable[[], Any]] = {}
    for way in ways:
        state, batch, config = begin(RECIPE, side, NARROW, device, f"compile={way}")
        plain = Plain(state.model, config)
        ours, theirs = first_loss(state, batch), float(plain.loss_of(batch)[0].detach())
        if abs(ours - theirs) > TOLERANCE * abs(ours):
            raise SystemExit(f"plain: the first loss is {theirs}, not {ours}")
        steps[way] = partial(stepper(state, config, ALONE, device), batch)
        steps["plain"] = partial(plain, batch)
    for step in steps.values():
        for _ in range(3):
            step()
    taken = [{name: seconds(step, device) for name, step in steps.items()} for _ in range(rounds)]
    return {name: statistics.median(one[name] for one in taken) for name in steps}


def first_loss(state: TrainState, batch: dict[str, Tensor]) -> float:
    """A puzzle's mean loss of our model."""
    carry = state.model.initial_carry(batch)
    _, loss, *_ = state.model(carry=carry, batch=batch)
    return float(loss.detach()) / len(batch["inputs"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sides", nargs="+", type=int, choices=(4, 6, 9), default=[4, 6, 9])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    keep_memory()
    torch.set_num_threads(arguments.threads)
    ways = ("plain", *arguments.ways)
    print(f"{'ms a step':>12}" + "".join(f"{way:>16}" for way in ways))
    for side in arguments.sides:
        found = measure(side, arguments.rounds, arguments.ways)
        cells = [f"{1e3 * found[w]:.1f} ({found['plain'] / found[w]:.2f} ×)" for w in ways]
        print(f"{f'{side}x{side}':>12}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
