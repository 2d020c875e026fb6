"""The Hierarchical Reasoning Model, as a core under `hrm.models.act`; arXiv 2506.21734.

Two modules of their own, `H_level` and `L_level`. Shapes: B batch, T tokens, D hidden size.
"""

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from hrm.config import PositiveInt
from hrm.models.recurrence import ReasoningModule
from hrm.models.transformer import TransformerArch, TransformerConfig, TransformerCore


class HRMArch(TransformerArch):
    """Architecture, free of the data it is applied to."""

    H_layers: PositiveInt = Field(description="blocks of the H module")
    puzzle_emb_mode: Literal["prefix", "add"] = Field(
        "prefix", description="extra positions before the tokens, or added to every token"
    )

    @model_validator(mode="after")
    def _check_mode(self) -> "HRMArch":
        if self.puzzle_emb_mode == "add" and self.puzzle_emb_ndim > self.hidden_size:
            raise ValueError(
                f"puzzle_emb_mode add needs puzzle_emb_ndim <= hidden_size {self.hidden_size}"
            )
        return self

    @property
    def prefix_len(self) -> int:
        if self.puzzle_emb_mode == "add":
            return 0
        return -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def num_layers(self) -> int:
        return self.H_layers + self.L_layers

    @property
    def answering_layers(self) -> int:
        return self.H_layers


class HRMConfig(HRMArch, TransformerConfig):
    """Architecture plus what it takes from the data set."""


class HRM(TransformerCore):
    """z_L is updated by the L module, z_H by the H module."""

    config: HRMConfig

    def _make_modules(self) -> None:
        self.H_level = ReasoningModule(self.config.H_layers, self.attention_block())
        self.L_level = ReasoningModule(self.config.L_layers, self.attention_block())

    @property
    def answering(self) -> ReasoningModule:
        return self.H_level

    def attach_puzzle(self, e: Tensor, puzzle: Tensor) -> Tensor:
        if self.config.puzzle_emb_mode == "prefix":
            return super().attach_puzzle(e, puzzle)
        return e + nn.functional.pad(puzzle, (0, e.shape[-1] - puzzle.shape[-1])).unsqueeze(1)
