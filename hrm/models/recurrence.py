"""Cores with two states: z_L is updated from (z_L, z_H + e), the answer z_H from (z_H, z_L).

Here are the cycles and the fields that configure them. What the states are, how they begin and how
they become an answer is a subclass's to say: `hrm.models.transformer`,
`hrm.models.symbol_equivariant`.

Shapes: B batch, T tokens, D hidden size, V vocabulary.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hrm.config import Count, Fraction, PositiveInt
from hrm.data.grid import Shape, infer_box_shape, infer_grid_shape
from hrm.models.act import Core, CoreStep, States
from hrm.models.layers import CastedBlock, CastedLinear, truncated_normal

Q_HEAD_BIAS = -5.0
Weights = tuple[Tensor | None, ...]  # of a block, as `CastedBlock.cast` returns them
ForwardDtype = Literal["bfloat16", "float16", "float32"]


class RecurrentArch(BaseModel):
    """Architecture, free of the data it is applied to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: PositiveInt = Field(description="width of the states")
    L_layers: PositiveInt = Field(description="blocks of the L module")
    expansion: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        description="inner width of SwiGLU: expansion · hidden_size · 2/3, up to a multiple of 256"
    )
    H_cycles: PositiveInt = Field(description="H calls in an ACT step")
    L_cycles: PositiveInt = Field(description="L calls before each H call")
    halt_max_steps: PositiveInt = Field(description="ACT steps at most")
    halt_exploration_prob: Fraction = Field(
        description="share of steps that draw a minimum of ACT steps, in training"
    )
    forward_dtype: ForwardDtype = Field("bfloat16", description="dtype of the activations")
    backprop: Literal["one_step", "last_cycle"] = Field(
        "one_step", description="gradient through the last L and H call, or the whole last cycle"
    )
    q_continue: bool = Field(
        True, description="false: halt when q_halt > 0; no second forward pass, no q_continue loss"
    )

    @property
    def num_layers(self) -> int:
        """Blocks in all, each with weights of its own; here, of one module for both states."""
        return self.L_layers

    @property
    def answering_layers(self) -> int:
        """Blocks of an H call."""
        return self.L_layers

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

    @property
    def remark(self) -> str | None:
        """What a user should know of this combination of keys."""
        return None

    def most_numbers(self, seq_len: int, vocab_size: int, identifiers: int) -> float:
        """At least as many as the model's parameters and tables hold, without building it."""
        raise NotImplementedError

    def state_numbers(self, seq_len: int, vocab_size: int) -> int:
        """Numbers in one of a sequence's states, at most."""
        raise NotImplementedError


class OneModuleArch(RecurrentArch):
    """Of a core whose one module updates both states, by TRM's defaults."""

    backprop: Literal["one_step", "last_cycle"] = Field(
        "last_cycle", description="gradient through the last L and H call, or the whole last cycle"
    )
    q_continue: bool = Field(
        False, description="false: halt when q_halt > 0; no second forward pass, no q_continue loss"
    )


class RecurrentConfig(RecurrentArch):
    """Architecture plus what it takes from the data set (`seed` drives halting exploration)."""

    seq_len: PositiveInt
    vocab_size: PositiveInt
    num_puzzle_identifiers: Count
    grid_shape: Shape | None = None
    box_shape: Shape | None = None
    first_digit: int | None = None  # token, of a grid of digits
    batch_size: int | None = None  # accepted for the originals' configurations; any batch runs
    seed: int = 0

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Of a sequence's state, the hidden size last."""
        raise NotImplementedError

    @property
    def block_flops(self) -> int:
        """Of the matrix products in one call of a block, for one sequence."""
        raise NotImplementedError

    @property
    def head_flops(self) -> int:
        """Of those that make the logits, likewise."""
        raise NotImplementedError

    grid_keys: ClassVar[str] = ""  # what of the configuration needs a grid

    def check_units(self) -> None:
        """
        Raises:
            ValueError: the data set has no grid, or one that is not of its sequence length.
        """
        grid, box = self.units()
        uneven = box is not None and (grid[0] % box[0] or grid[1] % box[1])
        if grid[0] * grid[1] != self.seq_len or uneven:
            raise ValueError(
                f"grid_shape {grid} and box_shape {box} do not fit seq_len {self.seq_len}"
            )

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
                f"{self.grid_keys} needs grid_shape, and box_shape if it has boxes, in the data "
                "set's dataset.json; add them there or choose others"
            )
        return grid, box


class ReasoningModule(nn.Module):
    """L or H module: h ← h + injection, then its layers."""

    def __init__(self, num_layers: int, block: Callable[[], CastedBlock]):
        super().__init__()
        self.layers = nn.ModuleList(block() for _ in range(num_layers))

    def cast(self, dtype: torch.dtype) -> list[Weights]:
        """The layers' weights in `dtype`."""
        return [layer.cast(dtype) for layer in cast(Iterable[CastedBlock], self.layers)]

    def forward(
        self, h: Tensor, injection: Tensor, rotate: nn.Module, weights: list[Weights]
    ) -> Tensor:
        h = h + injection
        for layer, layer_weights in zip(self.layers, weights, strict=True):
            h = layer(h, rotate, layer_weights)
        return h


class CastWeights(NamedTuple):
    """Weights of both modules in the forward dtype, cast once for all calls of an ACT step."""

    H: list[Weights]
    L: list[Weights]


class Prepared(NamedTuple):
    """What all calls of an ACT step share."""

    e: Tensor  # as `RecurrentCore.embed` returns it
    weights: CastWeights


class RecurrentCore(Core):
    """One ACT step: H_cycles × L_cycles recurrences, then an answer and two halting values."""

    config: RecurrentConfig
    L_level: ReasoningModule
    rotate: nn.Module  # of positions, in every block

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        self.config = config
        self.dtype = getattr(torch, config.forward_dtype)
        self.rotate = nn.Identity()
        self._make_embedding()
        self._make_modules()
        self.H_init = nn.Buffer(truncated_normal(config.hidden_size, std=1.0))
        self.L_init = nn.Buffer(truncated_normal(config.hidden_size, std=1.0))
        self._make_heads()

    @abstractmethod
    def _make_embedding(self) -> None:
        """Set what `embed` needs; `config`, `dtype` and `rotate` are there."""

    @abstractmethod
    def _make_modules(self) -> None:
        """Set `L_level`, and whatever else `answering` needs; `config` is there."""

    @abstractmethod
    def _make_heads(self) -> None:
        """Set what `read` needs."""

    def new_q_head(self, size: int) -> CastedLinear:
        """`size` numbers of the answer -> q_halt and q_continue: at first certain not to halt."""
        head = CastedLinear(size, 2, bias=True)
        nn.init.zeros_(head.weight)
        assert head.bias is not None
        nn.init.constant_(head.bias, Q_HEAD_BIAS)
        return head

    @property
    def answering(self) -> ReasoningModule:
        """The module that updates z_H; here the one that updates z_L."""
        return self.L_level

    @abstractmethod
    def embed(self, inputs: Tensor, puzzle: Tensor | None) -> Tensor:
        """Tokens [B, T] int32 and puzzle rows [B, …], if any -> e, in the shape of a state."""

    @abstractmethod
    def logits(self, z_H: Tensor) -> Tensor:
        """Of the tokens, [B, T, V] in the forward dtype."""

    @abstractmethod
    def q_values(self, z_H: Tensor) -> tuple[Tensor, Tensor]:
        """q_halt and q_continue, [B] float32 each."""

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
        shape = (rows, *self.config.state_shape)
        return {n: torch.zeros(shape, dtype=self.dtype, device=device) for n in ("z_H", "z_L")}

    def modules_in_use(self) -> list[ReasoningModule]:
        """Each module once."""
        return [self.L_level] if self.answering is self.L_level else [self.answering, self.L_level]

    def blocks(self) -> Iterator[nn.Module]:
        for module in self.modules_in_use():
            yield from module.layers

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
        """One ACT step; `z_H` and `z_L` are [B, …, D] in the forward dtype."""
        z_H, z_L = self._run_up(
            states["z_H"], states["z_L"], prepared, left_out=self.config.graded_L_calls
        )
        for _ in range(self.config.graded_L_calls):
            z_L = self._call_L(z_H, z_L, prepared)
        z_H = self._call_H(z_H, z_L, prepared)
        new = {"z_H": z_H.detach(), "z_L": z_L.detach()}
        return CoreStep(new, self.logits(z_H), *self.q_values(z_H))

    @torch.no_grad()
    def next_q(self, states: States, prepared: Prepared) -> tuple[Tensor, Tensor]:
        z_H, z_L = self._run_up(states["z_H"], states["z_L"], prepared, left_out=0)
        return self.q_values(self._call_H(z_H, z_L, prepared))
