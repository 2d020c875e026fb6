"""A core that treats all symbols alike: what it answers does not depend on what they are called.

Each cell has a state for each of its symbols, all with the same weights, as in the Symbol-
Equivariant Recurrent Reasoning Model (arXiv 2603.02193). Instead of attention, a symbol hears the
means of its units (`UnitBlock`), as in Deep Sets (arXiv 1703.06114), so that the model is also
equivariant under the symmetries of rows, columns and boxes, and its weights fit grids of any size.
One module updates both states, as in TRM (arXiv 2510.04871).

Shapes: B batch, T tokens, C symbols, D hidden size, V vocabulary.
"""

import math
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hrm.config import Count, PositiveInt
from hrm.data.grid import first_digit, infer_grid_shape, infer_symbols
from hrm.models.layers import (
    UNIT_MLP_WIDTH_MULTIPLE,
    UNITS,
    CastedEmbedding,
    CastedLinear,
    UnitBlock,
    mlp_width,
)
from hrm.models.recurrence import (
    OneModuleArch,
    ReasoningModule,
    RecurrentConfig,
    RecurrentCore,
)


class SymbolEquivariantArch(OneModuleArch):
    """Architecture, free of the data it is applied to."""

    hidden_size: PositiveInt = Field(description="width of the states, of each symbol in each cell")
    expansion: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        description="inner width of SwiGLU: expansion · hidden_size · 2/3, up to a multiple of 16"
    )
    message_size: PositiveInt = Field(
        description="numbers that a symbol in a cell tells each of its units"
    )
    first_symbol: Count | None = Field(
        None,
        description="token from which on all are alike; null: the first digit of a grid of digits",
    )

    def state_numbers(self, seq_len: int, vocab_size: int) -> int:
        return seq_len * vocab_size * self.hidden_size

    def most_numbers(self, seq_len: int, vocab_size: int, identifiers: int) -> float:
        D = self.hidden_size
        mlp = 3 * D * (self.expansion * D + UNIT_MLP_WIDTH_MULTIPLE)
        block = 2 * UNITS * self.message_size * D + mlp
        return self.num_layers * block + (2 * vocab_size + 10) * D


class SymbolEquivariantConfig(SymbolEquivariantArch, RecurrentConfig):
    """Architecture plus what it takes from the data set."""

    grid_keys: ClassVar[str] = "arch.name symbol_equivariant"

    @model_validator(mode="after")
    def _check_symbols(self) -> "SymbolEquivariantConfig":
        if self._first is None:
            raise ValueError(
                "arch.name symbol_equivariant is for grids of digits, which the data set is not; "
                "choose another, or say by arch.first_symbol from which token on all are alike"
            )
        self.check_units()
        if self.others >= self.vocab_size:
            raise ValueError(
                f"first_symbol {self.others} leaves no symbols of {self.vocab_size} tokens"
            )
        return self

    @property
    def _first(self) -> int | None:
        """Where neither a symbol nor a grid is stated, it is inferred, as `units` are."""
        if self.first_symbol is not None:
            return self.first_symbol
        if self.first_digit is None and self.grid_shape is None:
            return first_digit(infer_symbols(infer_grid_shape(self.seq_len), self.vocab_size))
        return self.first_digit

    @property
    def others(self) -> int:
        """Tokens before the symbols: padding, blank and others; all that follow are alike."""
        assert self._first is not None
        return self._first

    @property
    def symbols(self) -> int:
        """Tokens that are alike."""
        return self.vocab_size - self.others

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.seq_len, self.symbols, self.hidden_size

    @property
    def block_flops(self) -> int:
        D, vectors = self.hidden_size, self.seq_len * self.symbols
        (rows, columns), box = self.units()
        boxes = 1 if box is None else self.seq_len // (box[0] * box[1])
        units = (rows + columns + boxes) * self.symbols + self.seq_len
        messages = 2 * D * self.message_size * (UNITS * vectors + units)
        width = mlp_width(D, self.expansion, UNIT_MLP_WIDTH_MULTIPLE)
        return messages + 2 * vectors * 3 * D * width

    @property
    def head_flops(self) -> int:
        return 2 * self.hidden_size * self.seq_len * (self.symbols + self.others)


class SymbolEquivariant(RecurrentCore):
    """States are [B, T, C, D]."""

    config: SymbolEquivariantConfig

    def _make_embedding(self) -> None:
        c = self.config
        # Rows: a cell that holds another symbol, one that holds this symbol, tokens before symbols.
        std = 1.0 / math.sqrt(c.hidden_size)
        self.embed_cell = CastedEmbedding(2 + c.others, c.hidden_size, std, self.dtype)

    def _make_modules(self) -> None:
        c = self.config
        grid, box = c.units()
        block = partial(UnitBlock, grid, box or grid, c.hidden_size, c.message_size, c.expansion)
        self.L_level = ReasoningModule(c.L_layers, block)

    def _make_heads(self) -> None:
        c = self.config
        self.lm_head = CastedLinear(c.hidden_size, 1)
        self.token_head = CastedLinear(c.hidden_size, c.others)
        self.q_head = self.new_q_head(2 * c.hidden_size)

    def embed(self, inputs: Tensor, puzzle: Tensor | None) -> Tensor:
        """Tokens [B, T] int32 -> √D · e, [B, T, C, D]."""
        c = self.config
        tokens = inputs.long().unsqueeze(-1)
        symbols = torch.arange(c.others, c.vocab_size, device=inputs.device)
        kind = torch.where(tokens < c.others, tokens + 2, (tokens == symbols).long())
        e: Tensor = self.embed_cell(kind)
        return math.sqrt(c.hidden_size) * e

    def logits(self, z_H: Tensor) -> Tensor:
        """A symbol's logit from its own state, another token's from the mean over the symbols."""
        others: Tensor = self.token_head(z_H.mean(-2))
        return torch.cat([others, self.lm_head(z_H).squeeze(-1)], dim=-1)

    def q_values(self, z_H: Tensor) -> tuple[Tensor, Tensor]:
        """From mean and maximum over cells and symbols: one wrong cell moves the maximum."""
        flat = z_H.flatten(1, 2)
        read = self.q_head(torch.cat([flat.mean(1), flat.amax(1)], dim=-1))
        q_halt, q_continue = read.float().unbind(-1)
        return q_halt, q_continue
