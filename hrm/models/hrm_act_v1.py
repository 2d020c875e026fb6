"""Hierarchical Reasoning Model with adaptive computation time (ACT); arXiv 2506.21734.

Shapes: B batch, T tokens, P prefix positions of the puzzle embedding, S = P + T, D hidden size,
V vocabulary.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from hrm.data.format import Shape, infer_box_shape, infer_grid_shape
from hrm.models.layers import (
    Block,
    BlockWeights,
    CastedEmbedding,
    CastedLinear,
    RotaryEmbedding,
    truncated_normal,
)
from hrm.models.positions import GridEmbedding, LearnedPositions, grid_relations
from hrm.models.sparse_embedding import CastedSparseEmbedding

Q_HEAD_BIAS = -5.0
ForwardDtype = Literal["bfloat16", "float16", "float32"]
PositiveInt = Annotated[int, Field(gt=0)]


class HRMArch(BaseModel):
    """Architecture, free of the data it is applied to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: PositiveInt
    num_heads: PositiveInt
    H_layers: PositiveInt
    L_layers: PositiveInt
    expansion: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    H_cycles: PositiveInt
    L_cycles: PositiveInt
    halt_max_steps: PositiveInt
    halt_exploration_prob: Annotated[float, Field(ge=0, le=1)]
    pos_encodings: Literal["rope", "learned", "grid"]
    puzzle_emb_ndim: Annotated[int, Field(ge=0)]
    forward_dtype: ForwardDtype = "bfloat16"

    backprop: Literal["one_step", "last_cycle"] = "one_step"
    q_continue: bool = True
    qk_norm: bool = False
    attention_bias: Literal["none", "grid"] = "none"
    puzzle_emb_mode: Literal["prefix", "add"] = "prefix"

    @model_validator(mode="after")
    def _check(self) -> "HRMArch":
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}"
            )
        if self.pos_encodings == "rope" and (self.hidden_size // self.num_heads) % 2:
            raise ValueError("pos_encodings rope needs an even hidden_size / num_heads")
        if self.puzzle_emb_mode == "add" and self.puzzle_emb_ndim > self.hidden_size:
            raise ValueError(
                f"puzzle_emb_mode add needs puzzle_emb_ndim <= hidden_size {self.hidden_size}"
            )
        return self

    @property
    def prefix_len(self) -> int:
        """Positions that the puzzle embedding takes before the tokens."""
        if self.puzzle_emb_mode == "add":
            return 0
        return -(-self.puzzle_emb_ndim // self.hidden_size)


class HRMConfig(HRMArch):
    """Architecture plus what it takes from the data set (`seed` drives halting exploration)."""

    seq_len: PositiveInt
    vocab_size: PositiveInt
    num_puzzle_identifiers: Annotated[int, Field(ge=0)]
    grid_shape: Shape | None = None
    box_shape: Shape | None = None
    batch_size: int | None = None  # accepted for the original's configurations; any batch runs
    seed: int = 0

    @model_validator(mode="after")
    def _check_grid(self) -> "HRMConfig":
        if "grid" in (self.pos_encodings, self.attention_bias):
            grid, box = self.units()
            if grid[0] * grid[1] != self.seq_len or grid[0] % box[0] or grid[1] % box[1]:
                raise ValueError(
                    f"grid_shape {grid} and box_shape {box} do not fit seq_len {self.seq_len}"
                )
        return self

    def units(self) -> tuple[Shape, Shape]:
        """Shapes of the grid and of its boxes, as stated or inferred where there is one answer."""
        grid = self.grid_shape or infer_grid_shape(self.seq_len)
        box = self.box_shape or infer_box_shape(grid)
        if grid is None or box is None:
            raise ValueError(
                "pos_encodings or attention_bias grid needs grid_shape and box_shape in the "
                "data set's dataset.json; add them there or choose others"
            )
        return grid, box


@dataclass
class Carry:
    """What each sequence keeps from one ACT step to the next; every tensor has B rows."""

    z_H: Tensor  # B S D, forward dtype
    z_L: Tensor  # B S D, forward dtype
    steps: Tensor  # B, int32: ACT steps taken on the current data
    halted: Tensor  # B, bool: takes new data at the next step
    row: Tensor  # B, int64: row in the global batch
    tick: Tensor  # B, int64: ACT steps since the carry was made
    current_data: dict[str, Tensor]

    def select(self, index: Tensor | slice) -> "Carry":
        """The carry of some rows."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "current_data"}
        return Carry(
            **{name: tensor[index] for name, tensor in tensors.items()},
            current_data={name: tensor[index] for name, tensor in self.current_data.items()},
        )

    def join(self, other: "Carry") -> "Carry":
        """The rows of both."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "current_data"}
        joined = {n: torch.cat([mine, getattr(other, n)]) for n, mine in tensors.items()}
        data = {
            n: torch.cat([mine, other.current_data[n]]) for n, mine in self.current_data.items()
        }
        return Carry(**joined, current_data=data)


def uniform_hash(seed: int, tick: Tensor, row: Tensor, stream: int) -> Tensor:
    """Counter-based uniform numbers in [0, 1): float32 [B], a pure function of the arguments.

    Mixes 32-bit words held in int64, so that the result is the same on every device.
    """
    mask = 0xFFFFFFFF
    x = torch.full_like(tick, seed & mask)
    for word in (tick, row, torch.full_like(tick, stream)):
        x = (x + (word & mask) * 0x3C6EF35F + 0x1B873593) & mask
        x = ((x ^ (x >> 16)) * 0x21F0AAAD) & mask
        x = ((x ^ (x >> 15)) * 0x735A2D97) & mask
        x = x ^ (x >> 15)
    return (x >> 8).float() / (1 << 24)


def _expand(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.ndim - 1))


class ReasoningModule(nn.Module):
    """L or H module: h ← h + injection, then its layers."""

    def __init__(self, config: HRMConfig, num_layers: int):
        super().__init__()
        c, relations = config, None
        if c.attention_bias == "grid":
            relations = grid_relations(*c.units(), c.prefix_len)
        self.layers = nn.ModuleList(
            Block(c.hidden_size, c.num_heads, c.expansion, c.qk_norm, relations)
            for _ in range(num_layers)
        )

    def cast(self, dtype: torch.dtype) -> list[BlockWeights]:
        """The layers' weights in `dtype`."""
        return [layer.cast(dtype) for layer in self.layers if isinstance(layer, Block)]

    def forward(
        self, h: Tensor, injection: Tensor, rotate: nn.Module, weights: list[BlockWeights]
    ) -> Tensor:
        h = h + injection
        for layer, layer_weights in zip(self.layers, weights, strict=True):
            h = layer(h, rotate, layer_weights)
        return h


class CastWeights(NamedTuple):
    """Weights of both modules in the forward dtype, cast once for all calls of an ACT step."""

    H: list[BlockWeights]
    L: list[BlockWeights]


class HRMInner(nn.Module):
    """One ACT step: H_cycles × L_cycles recurrences, then an answer and two halting values."""

    def __init__(self, config: HRMConfig):
        super().__init__()
        self.config = config
        self.dtype = getattr(torch, config.forward_dtype)
        D = config.hidden_size
        std = 1.0 / math.sqrt(D)

        self.embed_tokens = CastedEmbedding(config.vocab_size, D, std, self.dtype)
        self.embed_pos: nn.Module = nn.Identity()
        if config.pos_encodings == "learned":
            length = config.prefix_len + config.seq_len
            self.embed_pos = LearnedPositions(length, D, std, self.dtype)
        elif config.pos_encodings == "grid":
            self.embed_pos = GridEmbedding(*config.units(), config.prefix_len, D, self.dtype)
        self.rotate: nn.Module = nn.Identity()
        if config.pos_encodings == "rope":
            length = config.prefix_len + config.seq_len
            self.rotate = RotaryEmbedding(length, D // config.num_heads)
        self.puzzle_emb = None
        if config.puzzle_emb_ndim > 0:
            self.puzzle_emb = CastedSparseEmbedding(
                config.num_puzzle_identifiers, config.puzzle_emb_ndim, self.dtype
            )
        prefix = config.puzzle_emb_mode == "prefix"
        self.attach_puzzle = self._prepend_puzzle if prefix else self._add_puzzle

        self.H_level = ReasoningModule(config, config.H_layers)
        self.L_level = ReasoningModule(config, config.L_layers)
        self.graded_L_calls = config.L_cycles if config.backprop == "last_cycle" else 1
        self.H_init = nn.Buffer(truncated_normal(D, std=1.0))
        self.L_init = nn.Buffer(truncated_normal(D, std=1.0))

        self.lm_head = CastedLinear(D, config.vocab_size)
        self.q_head = CastedLinear(D, 2, bias=True)
        nn.init.zeros_(self.q_head.weight)
        assert self.q_head.bias is not None
        nn.init.constant_(self.q_head.bias, Q_HEAD_BIAS)

    def _prepend_puzzle(self, e: Tensor, puzzle: Tensor) -> Tensor:
        B, T, D = e.shape
        P = self.config.prefix_len
        puzzle = nn.functional.pad(puzzle, (0, P * D - puzzle.shape[-1]))
        return torch.cat([puzzle.view(B, P, D), e], dim=1)

    def _add_puzzle(self, e: Tensor, puzzle: Tensor) -> Tensor:
        return e + nn.functional.pad(puzzle, (0, e.shape[-1] - puzzle.shape[-1])).unsqueeze(1)

    def embed(self, inputs: Tensor, puzzle: Tensor | None) -> Tensor:
        """Tokens [B, T] int32 and puzzle rows [B, puzzle_emb_ndim], if any -> √D · e, [B, S, D]."""
        e = self.embed_tokens(inputs)
        if puzzle is not None:
            e = self.attach_puzzle(e, puzzle)
        return math.sqrt(self.config.hidden_size) * self.embed_pos(e)

    def cast_weights(self) -> CastWeights:
        """What `forward` and `next_q` take, with gradient."""
        return CastWeights(self.H_level.cast(self.dtype), self.L_level.cast(self.dtype))

    def _call_L(self, z_H: Tensor, z_L: Tensor, e: Tensor, weights: CastWeights) -> Tensor:
        return self.L_level(z_L, z_H + e, self.rotate, weights.L)

    def _call_H(self, z_H: Tensor, z_L: Tensor, weights: CastWeights) -> Tensor:
        return self.H_level(z_H, z_L, self.rotate, weights.H)

    @torch.no_grad()
    def _run_up(
        self, z_H: Tensor, z_L: Tensor, e: Tensor, weights: CastWeights, left_out: int
    ) -> tuple[Tensor, Tensor]:
        """All recurrences but the last H call and the `left_out` L calls before it."""
        c = self.config
        for h in range(c.H_cycles):
            last = h == c.H_cycles - 1
            for _ in range(c.L_cycles - left_out * last):
                z_L = self._call_L(z_H, z_L, e, weights)
            if not last:
                z_H = self._call_H(z_H, z_L, weights)
        return z_H, z_L

    def forward(
        self, z_H: Tensor, z_L: Tensor, e: Tensor, weights: CastWeights
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One ACT step.

        Args:
            z_H, z_L: [B, S, D] states in the forward dtype.
            e: [B, S, D] as `embed` returns it.
            weights: as `cast_weights` returns them.

        Returns:
            z_H, z_L (detached), logits [B, T, V] in the forward dtype, q_halt and q_continue
            logits [B] float32.
        """
        z_H, z_L = self._run_up(z_H, z_L, e, weights, left_out=self.graded_L_calls)
        for _ in range(self.graded_L_calls):
            z_L = self._call_L(z_H, z_L, e, weights)
        z_H = self._call_H(z_H, z_L, weights)
        logits = self.lm_head(z_H)[:, self.config.prefix_len :]
        return z_H.detach(), z_L.detach(), logits, *self._q_values(z_H)

    @torch.no_grad()
    def next_q(
        self, z_H: Tensor, z_L: Tensor, e: Tensor, weights: CastWeights
    ) -> tuple[Tensor, Tensor]:
        """q_halt and q_continue [B] float32 of one more ACT step; arguments as of `forward`."""
        z_H, z_L = self._run_up(z_H, z_L, e, weights, left_out=0)
        return self._q_values(self._call_H(z_H, z_L, weights))

    def _q_values(self, z_H: Tensor) -> tuple[Tensor, Tensor]:
        q_halt, q_continue = self.q_head(z_H[:, 0]).float().unbind(-1)
        return q_halt, q_continue


class HRMACTV1(nn.Module):
    """ACT wrapper: replaces halted sequences, runs one step, decides which sequences halt."""

    def __init__(self, config: HRMConfig):
        super().__init__()
        self.config = config
        self.inner = HRMInner(config)
        self.wants_to_halt = self._halt_over_continue if config.q_continue else self._halt_positive
        self.has_continue_target = config.q_continue and config.halt_max_steps > 1

    @staticmethod
    def _halt_over_continue(q_halt: Tensor, q_continue: Tensor) -> Tensor:
        return q_halt > q_continue

    @staticmethod
    def _halt_positive(q_halt: Tensor, q_continue: Tensor) -> Tensor:
        return q_halt > 0

    def initial_carry(self, batch: dict[str, Tensor], first_row: int = 0) -> Carry:
        """A carry in which every sequence is halted and so takes the batch at the first step.

        Args:
            batch: as the loader yields it.
            first_row: row of the batch's first sequence in the global batch.
        """
        c, inputs = self.config, batch["inputs"]
        B, device = inputs.shape[0], inputs.device
        shape = (B, c.prefix_len + c.seq_len, c.hidden_size)
        return Carry(
            z_H=torch.zeros(shape, dtype=self.inner.dtype, device=device),
            z_L=torch.zeros(shape, dtype=self.inner.dtype, device=device),
            steps=torch.zeros(B, dtype=torch.int32, device=device),
            halted=torch.ones(B, dtype=torch.bool, device=device),
            row=torch.arange(first_row, first_row + B, device=device),
            tick=torch.zeros(B, dtype=torch.int64, device=device),
            current_data={name: torch.zeros_like(value) for name, value in batch.items()},
        )

    def forward(self, carry: Carry, batch: dict[str, Tensor]) -> tuple[Carry, dict[str, Tensor]]:
        """One ACT step of every sequence.

        Returns:
            The new carry, and outputs: `logits` [B, T, V], `q_halt_logits` and
            `q_continue_logits` [B] float32, in training also `target_q_continue` [B].
        """
        carry = self._take_new_data(carry, batch)
        data, puzzle_emb = carry.current_data, self.inner.puzzle_emb
        puzzle = None if puzzle_emb is None else puzzle_emb(data["puzzle_identifiers"])
        e, weights = self.inner.embed(data["inputs"], puzzle), self.inner.cast_weights()
        z_H, z_L, logits, q_halt, q_continue = self.inner(carry.z_H, carry.z_L, e, weights)
        outputs = {
            "logits": logits,
            "q_halt_logits": q_halt,
            "q_continue_logits": q_continue,
        }
        with torch.no_grad():
            steps = carry.steps + 1
            last_step = steps >= self.config.halt_max_steps
            halted = last_step
            if self.training and self.config.halt_max_steps > 1:
                halted = halted | self.wants_to_halt(q_halt, q_continue)
                halted = halted & (steps >= self._minimum_steps(carry))
            if self.training and self.has_continue_target:
                next_halt, next_continue = self.inner.next_q(z_H, z_L, e, weights)
                best = torch.where(last_step, next_halt, torch.maximum(next_halt, next_continue))
                outputs["target_q_continue"] = torch.sigmoid(best)
        carry = replace(carry, z_H=z_H, z_L=z_L, steps=steps, halted=halted, tick=carry.tick + 1)
        return carry, outputs

    def _take_new_data(self, carry: Carry, batch: dict[str, Tensor]) -> Carry:
        inner, halted = self.inner, carry.halted
        z_mask = _expand(halted, carry.z_H)
        return replace(
            carry,
            z_H=torch.where(z_mask, inner.H_init.to(inner.dtype), carry.z_H),
            z_L=torch.where(z_mask, inner.L_init.to(inner.dtype), carry.z_L),
            steps=torch.where(halted, 0, carry.steps),
            current_data={
                name: torch.where(_expand(halted, new), new, carry.current_data[name])
                for name, new in batch.items()
            },
        )

    def _minimum_steps(self, carry: Carry) -> Tensor:
        """Exploration: with some probability, a minimum drawn uniformly from 2…halt_max_steps."""
        c = self.config
        explore = uniform_hash(c.seed, carry.tick, carry.row, 0) < c.halt_exploration_prob
        drawn = uniform_hash(c.seed, carry.tick, carry.row, 1) * (c.halt_max_steps - 1)
        # Cut before adding 2: the float32 sum could round up to halt_max_steps + 1.
        return torch.where(explore, 2 + drawn.to(torch.int32), 0)
