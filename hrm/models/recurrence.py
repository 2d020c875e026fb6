"""Cores with two states: z_L is updated from (z_L, z_H + e), the answer z_H from (z_H, z_L).

Here is all that the Hierarchical Reasoning Model (`hrm.models.hrm`) and the Tiny Recursive Model
(`hrm.models.trm`) have in common: embedding, modules, cycles, heads, and the fields that configure
them.

Shapes: B batch, T tokens, P prefix positions of the puzzle embedding, S = P + T, D hidden size,
V vocabulary.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from hrm.data.grid import Shape, infer_box_shape, infer_grid_shape
from hrm.models.act import Core, CoreStep, States
from hrm.models.layers import (
    AnyBlock,
    AnyBlockWeights,
    Block,
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


class RecurrentArch(BaseModel):
    """Architecture, free of the data it is applied to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: PositiveInt = Field(description="width of the states")
    num_heads: PositiveInt = Field(description="attention heads, which divide the width")
    L_layers: PositiveInt = Field(description="blocks of the L module")
    expansion: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        description="inner width of the SwiGLU: expansion · hidden_size · 2/3, rounded up to 256"
    )
    H_cycles: PositiveInt = Field(description="H calls in an ACT step")
    L_cycles: PositiveInt = Field(description="L calls before each H call")
    halt_max_steps: PositiveInt = Field(description="ACT steps at most")
    halt_exploration_prob: Annotated[float, Field(ge=0, le=1)] = Field(
        description="share of steps that draw a minimum of ACT steps, in training"
    )
    pos_encodings: Literal["rope", "learned", "grid", "none"] = Field(
        description="rotary; one vector per position; tables of rows, columns, any boxes; or none"
    )
    puzzle_emb_ndim: Annotated[int, Field(ge=0)] = Field(
        description="numbers in a puzzle's embedding; 0: none"
    )
    forward_dtype: ForwardDtype = Field("bfloat16", description="dtype of the activations")
    backprop: Literal["one_step", "last_cycle"] = Field(
        "one_step", description="gradient through the last L and H call, or the whole last cycle"
    )
    q_continue: bool = Field(
        True, description="false: halt when q_halt > 0; no second forward pass, no q_continue loss"
    )
    qk_norm: bool = Field(False, description="RMSNorm on queries and keys of each head")
    attention_bias: Literal["none", "grid"] = Field(
        "none",
        description="grid: learned bias between cells of one row, column or box; without boxes, "
        "between neighbours",
    )

    @model_validator(mode="after")
    def _check_heads(self) -> "RecurrentArch":
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}"
            )
        if self.pos_encodings == "rope" and (self.hidden_size // self.num_heads) % 2:
            raise ValueError("pos_encodings rope needs an even hidden_size / num_heads")
        return self

    @property
    def prefix_len(self) -> int:
        """Positions that the puzzle embedding takes before the tokens."""
        raise NotImplementedError

    @property
    def num_layers(self) -> int:
        """Blocks in all, each with weights of its own."""
        raise NotImplementedError

    @property
    def answering_layers(self) -> int:
        """Blocks of an H call."""
        raise NotImplementedError

    @property
    def block_calls(self) -> int:
        """In one ACT step."""
        return self.H_cycles * (self.L_cycles * self.L_layers + self.answering_layers)

    @property
    def graded_L_calls(self) -> int:
        """L calls with gradient, the last ones; the last H call, which follows, has one, too."""
        return self.L_cycles if self.backprop == "last_cycle" else 1

    @property
    def graded_block_calls(self) -> int:
        """Those of `block_calls` that have a gradient."""
        return self.graded_L_calls * self.L_layers + self.answering_layers

    def state_numbers(self, seq_len: int) -> int:
        """Numbers in one of a sequence's states."""
        return (self.prefix_len + seq_len) * self.hidden_size


class RecurrentConfig(RecurrentArch):
    """Architecture plus what it takes from the data set (`seed` drives halting exploration)."""

    seq_len: PositiveInt
    vocab_size: PositiveInt
    num_puzzle_identifiers: Annotated[int, Field(ge=0)]
    grid_shape: Shape | None = None
    box_shape: Shape | None = None
    batch_size: int | None = None  # accepted for the originals' configurations; any batch runs
    seed: int = 0

    @model_validator(mode="after")
    def _check_grid(self) -> "RecurrentConfig":
        if "grid" in (self.pos_encodings, self.attention_bias):
            grid, box = self.units()
            uneven = box is not None and (grid[0] % box[0] or grid[1] % box[1])
            if grid[0] * grid[1] != self.seq_len or uneven:
                raise ValueError(
                    f"grid_shape {grid} and box_shape {box} do not fit seq_len {self.seq_len}"
                )
        return self

    @property
    def positions(self) -> int:
        """Of the states: prefix and tokens."""
        return self.prefix_len + self.seq_len

    def units(self) -> tuple[Shape, Shape | None]:
        """Shapes of the grid and of its boxes; None: it is stated, and has none.

        Where nothing is stated, they are inferred if there is one answer.
        """
        if self.grid_shape is not None:
            return self.grid_shape, self.box_shape
        grid = infer_grid_shape(self.seq_len)
        box = self.box_shape or infer_box_shape(grid)
        if grid is None or box is None:
            raise ValueError(
                "pos_encodings or attention_bias grid needs grid_shape, and box_shape if it has "
                "boxes, in the data set's dataset.json; add them there or choose others"
            )
        return grid, box


class ReasoningModule(nn.Module):
    """L or H module: h ← h + injection, then its layers."""

    def __init__(self, num_layers: int, block: Callable[[], AnyBlock]):
        super().__init__()
        self.layers = nn.ModuleList(block() for _ in range(num_layers))

    def cast(self, dtype: torch.dtype) -> list[AnyBlockWeights]:
        """The layers' weights in `dtype`."""
        return [layer.cast(dtype) for layer in self.layers if isinstance(layer, AnyBlock)]

    def forward(
        self, h: Tensor, injection: Tensor, rotate: nn.Module, weights: list[AnyBlockWeights]
    ) -> Tensor:
        h = h + injection
        for layer, layer_weights in zip(self.layers, weights, strict=True):
            h = layer(h, rotate, layer_weights)
        return h


class CastWeights(NamedTuple):
    """Weights of both modules in the forward dtype, cast once for all calls of an ACT step."""

    H: list[AnyBlockWeights]
    L: list[AnyBlockWeights]


class Prepared(NamedTuple):
    """What all calls of an ACT step share."""

    e: Tensor  # B S D, as `RecurrentCore.embed` returns it
    weights: CastWeights


class RecurrentCore(Core):
    """One ACT step: H_cycles × L_cycles recurrences, then an answer and two halting values."""

    config: RecurrentConfig
    L_level: ReasoningModule

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        self.config = config
        self.dtype = getattr(torch, config.forward_dtype)
        D = config.hidden_size
        std = 1.0 / math.sqrt(D)

        self.embed_tokens = CastedEmbedding(config.vocab_size, D, std, self.dtype)
        self.embed_pos: nn.Module = nn.Identity()
        if config.pos_encodings == "learned":
            self.embed_pos = LearnedPositions(config.positions, D, std, self.dtype)
        elif config.pos_encodings == "grid":
            self.embed_pos = GridEmbedding(*config.units(), config.prefix_len, D, self.dtype)
        self.rotate: nn.Module = nn.Identity()
        if config.pos_encodings == "rope":
            self.rotate = RotaryEmbedding(config.positions, D // config.num_heads)
        self.puzzle_emb = None
        if config.puzzle_emb_ndim > 0:
            self.puzzle_emb = CastedSparseEmbedding(
                config.num_puzzle_identifiers, config.puzzle_emb_ndim, self.dtype
            )

        self._make_modules()
        self.H_init = nn.Buffer(truncated_normal(D, std=1.0))
        self.L_init = nn.Buffer(truncated_normal(D, std=1.0))

        self.lm_head = CastedLinear(D, config.vocab_size)
        self.q_head = CastedLinear(D, 2, bias=True)
        nn.init.zeros_(self.q_head.weight)
        assert self.q_head.bias is not None
        nn.init.constant_(self.q_head.bias, Q_HEAD_BIAS)

    @abstractmethod
    def _make_modules(self) -> None:
        """Set `L_level`, and whatever else `answering` needs; `config` is there."""

    @property
    @abstractmethod
    def answering(self) -> ReasoningModule:
        """The module that updates z_H."""

    def attention_block(self) -> Callable[[], AnyBlock]:
        """Makes a block whose positions attend to each other, as configured."""
        c, relations = self.config, None
        if c.attention_bias == "grid":
            relations = grid_relations(*c.units(), c.prefix_len)
        return partial(Block, c.hidden_size, c.num_heads, c.expansion, c.qk_norm, relations)

    def attach_puzzle(self, e: Tensor, puzzle: Tensor) -> Tensor:
        """Puzzle rows [B, puzzle_emb_ndim] as positions before the tokens, zeros behind them."""
        B, T, D = e.shape
        P = self.config.prefix_len
        puzzle = nn.functional.pad(puzzle, (0, P * D - puzzle.shape[-1]))
        return torch.cat([puzzle.view(B, P, D), e], dim=1)

    def embed(self, inputs: Tensor, puzzle: Tensor | None) -> Tensor:
        """Tokens [B, T] int32 and puzzle rows [B, puzzle_emb_ndim], if any -> √D · e, [B, S, D]."""
        e = self.embed_tokens(inputs)
        if puzzle is not None:
            e = self.attach_puzzle(e, puzzle)
        return math.sqrt(self.config.hidden_size) * self.embed_pos(e)

    def initial_states(self, seed: int | None = None) -> States:
        """`H_init` and `L_init`, [D], or others drawn alike."""
        inits: States = {"z_H": self.H_init, "z_L": self.L_init}
        if seed is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                inits = {
                    name: truncated_normal(len(init), std=1.0).to(init.device)
                    for name, init in inits.items()
                }
        return {name: init.to(self.dtype) for name, init in inits.items()}

    def blank_states(self, rows: int, device: torch.device) -> States:
        shape = (rows, self.config.positions, self.config.hidden_size)
        return {n: torch.zeros(shape, dtype=self.dtype, device=device) for n in ("z_H", "z_L")}

    def modules_in_use(self) -> list[ReasoningModule]:
        """Each module once."""
        return [self.L_level] if self.answering is self.L_level else [self.answering, self.L_level]

    def blocks(self) -> Iterator[nn.Module]:
        for module in self.modules_in_use():
            yield from module.layers

    def look_up(self, identifiers: Tensor) -> Tensor | None:
        return None if self.puzzle_emb is None else self.puzzle_emb(identifiers)

    def prepare(self, inputs: Tensor, puzzle: Tensor | None) -> Prepared:
        """Embedded inputs, and weights in the forward dtype, cast once for all calls."""
        cast = [module.cast(self.dtype) for module in self.modules_in_use()]
        return Prepared(self.embed(inputs, puzzle), CastWeights(H=cast[0], L=cast[-1]))

    def _call_L(self, z_H: Tensor, z_L: Tensor, prepared: Prepared) -> Tensor:
        return self.L_level(z_L, z_H + prepared.e, self.rotate, prepared.weights.L)

    def _call_H(self, z_H: Tensor, z_L: Tensor, prepared: Prepared) -> Tensor:
        return self.answering(z_H, z_L, self.rotate, prepared.weights.H)

    @torch.no_grad()
    def _run_up(
        self, z_H: Tensor, z_L: Tensor, prepared: Prepared, left_out: int
    ) -> tuple[Tensor, Tensor]:
        """All recurrences but the last H call and the `left_out` L calls before it."""
        c = self.config
        for h in range(c.H_cycles):
            last = h == c.H_cycles - 1
            for _ in range(c.L_cycles - left_out * last):
                z_L = self._call_L(z_H, z_L, prepared)
            if not last:
                z_H = self._call_H(z_H, z_L, prepared)
        return z_H, z_L

    def step(self, states: States, prepared: Prepared) -> CoreStep:
        """One ACT step; `z_H` and `z_L` are [B, S, D] in the forward dtype."""
        z_H, z_L = self._run_up(
            states["z_H"], states["z_L"], prepared, left_out=self.config.graded_L_calls
        )
        for _ in range(self.config.graded_L_calls):
            z_L = self._call_L(z_H, z_L, prepared)
        z_H = self._call_H(z_H, z_L, prepared)
        logits = self.lm_head(z_H)[:, self.config.prefix_len :]
        return CoreStep({"z_H": z_H.detach(), "z_L": z_L.detach()}, logits, *self._q_values(z_H))

    @torch.no_grad()
    def next_q(self, states: States, prepared: Prepared) -> tuple[Tensor, Tensor]:
        z_H, z_L = self._run_up(states["z_H"], states["z_L"], prepared, left_out=0)
        return self._q_values(self._call_H(z_H, z_L, prepared))

    def _q_values(self, z_H: Tensor) -> tuple[Tensor, Tensor]:
        q_halt, q_continue = self.q_head(z_H[:, 0]).float().unbind(-1)
        return q_halt, q_continue
