"""Cores whose states are one vector for each position: a token's cell, and a puzzle's prefix.

Here is what the Hierarchical Reasoning Model (`hrm.models.hrm`) and the Tiny Recursive Model
(`hrm.models.trm`) have in common beside the cycles: embedding, attention, heads.

Shapes: B batch, T tokens, P prefix positions of the puzzle embedding, S = P + T, D hidden size,
V vocabulary.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from hrm.config import Count, PositiveInt
from hrm.models.layers import (
    MLP_WIDTH_MULTIPLE,
    RELATION_KINDS,
    Block,
    CastedBlock,
    CastedEmbedding,
    CastedLinear,
    RotaryEmbedding,
    mlp_width,
)
from hrm.models.positions import GridEmbedding, LearnedPositions, grid_relations
from hrm.models.recurrence import RecurrentArch, RecurrentConfig, RecurrentCore
from hrm.models.sparse_embedding import CastedSparseEmbedding


class TransformerArch(RecurrentArch):
    """Architecture, free of the data it is applied to."""

    num_heads: PositiveInt = Field(description="attention heads, which divide the width")
    pos_encodings: Literal["rope", "learned", "grid", "none"] = Field(
        description="rotary; one vector per position; tables of rows, columns, any boxes; or none"
    )
    puzzle_emb_ndim: Count = Field(description="numbers in a puzzle's embedding; 0: none")
    qk_norm: bool = Field(False, description="RMSNorm on queries and keys of each head")
    attention_bias: Literal["none", "grid"] = Field(
        "none",
        description="grid: learned bias between cells of one row, column or box; without boxes, "
        "between neighbours",
    )

    @model_validator(mode="after")
    def _check_heads(self) -> "TransformerArch":
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

    def state_numbers(self, seq_len: int, vocab_size: int) -> int:
        return (self.prefix_len + seq_len) * self.hidden_size

    def most_numbers(self, seq_len: int, vocab_size: int, identifiers: int) -> float:
        D, S = self.hidden_size, self.prefix_len + seq_len
        block = 4 * D**2 + 3 * (D + S) * (self.expansion * (D + S) + MLP_WIDTH_MULTIPLE)
        embedded = (2 * vocab_size + S) * D
        rows = identifiers * self.puzzle_emb_ndim
        return self.num_layers * (block + RELATION_KINDS * S**2) + embedded + rows


class TransformerConfig(TransformerArch, RecurrentConfig):
    """Architecture plus what it takes from the data set."""

    grid_keys: ClassVar[str] = "pos_encodings or attention_bias grid"

    @model_validator(mode="after")
    def _check_grid(self) -> "TransformerConfig":
        if "grid" in (self.pos_encodings, self.attention_bias):
            self.check_units()
        return self

    @property
    def positions(self) -> int:
        """Of the states: prefix and tokens."""
        return self.prefix_len + self.seq_len

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.positions, self.hidden_size

    @property
    def mixing_flops(self) -> int:
        """Of `block_flops` those in which positions hear of each other."""
        S, D = self.positions, self.hidden_size
        return 2 * S * 4 * D * D + 4 * S * S * D

    @property
    def block_flops(self) -> int:
        D = self.hidden_size
        return self.mixing_flops + 2 * self.positions * 3 * D * mlp_width(D, self.expansion)

    @property
    def head_flops(self) -> int:
        return 2 * self.hidden_size * self.positions * self.vocab_size


class TransformerCore(RecurrentCore):
    """Positions attend to each other."""

    config: TransformerConfig

    def _make_embedding(self) -> None:
        c, D = self.config, self.config.hidden_size
        std = 1.0 / math.sqrt(D)
        self.embed_tokens = CastedEmbedding(c.vocab_size, D, std, self.dtype)
        self.embed_pos: nn.Module = nn.Identity()
        if c.pos_encodings == "learned":
            self.embed_pos = LearnedPositions(c.positions, D, std, self.dtype)
        elif c.pos_encodings == "grid":
            self.embed_pos = GridEmbedding(*c.units(), c.prefix_len, D, self.dtype)
        if c.pos_encodings == "rope":
            self.rotate = RotaryEmbedding(c.positions, D // c.num_heads)
        self.puzzle_emb = None
        if c.puzzle_emb_ndim > 0:
            self.puzzle_emb = CastedSparseEmbedding(
                c.num_puzzle_identifiers, c.puzzle_emb_ndim, self.dtype
            )

    def _make_heads(self) -> None:
        D = self.config.hidden_size
        self.lm_head = CastedLinear(D, self.config.vocab_size)
        self.q_head = self.new_q_head(D)

    def attention_block(self) -> Callable[[], CastedBlock]:
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

    def look_up(self, identifiers: Tensor) -> Tensor | None:
        return None if self.puzzle_emb is None else self.puzzle_emb(identifiers)

    def logits(self, z_H: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(z_H)
        return logits[:, self.config.prefix_len :]

    def q_values(self, z_H: Tensor) -> tuple[Tensor, Tensor]:
        q_halt, q_continue = self.q_head(z_H[:, 0]).float().unbind(-1)
        return q_halt, q_continue
