"""The Tiny Recursive Model, as a core under `hrm.models.act`; arXiv 2510.04871.

One module, `L_level`, updates both states. Shapes: S positions, D hidden size.
"""

from functools import partial

from pydantic import Field, model_validator
from torch import nn

from hrm.config import Count
from hrm.models.layers import TokenMLPBlock, mlp_width
from hrm.models.recurrence import OneModuleArch, ReasoningModule
from hrm.models.transformer import TransformerArch, TransformerConfig, TransformerCore


class TRMArch(OneModuleArch, TransformerArch):
    """Architecture, free of the data it is applied to."""

    mlp_t: bool = Field(
        False, description="an MLP over positions instead of attention; fixes the sequence length"
    )
    puzzle_emb_len: Count = Field(
        16, description="positions of the puzzle embedding; 0: as many as it fills"
    )

    @model_validator(mode="after")
    def _check_prefix_and_mixing(self) -> "TRMArch":
        held = self.puzzle_emb_len * self.hidden_size
        if 0 < held < self.puzzle_emb_ndim:
            raise ValueError(
                f"puzzle_emb_len {self.puzzle_emb_len} holds {held} numbers at hidden_size "
                f"{self.hidden_size}, fewer than puzzle_emb_ndim {self.puzzle_emb_ndim}; "
                "use 0 for as many positions as it fills"
            )
        for key, off in (("qk_norm", False), ("attention_bias", "none")):
            if self.mlp_t and getattr(self, key) != off:
                raise ValueError(f"{key} is of attention, which mlp_t replaces; choose one")
        return self

    @property
    def remark(self) -> str | None:
        if not (self.mlp_t and self.pos_encodings == "rope"):
            return None
        return "arch.pos_encodings=rope: ignored with arch.mlp_t, as in the original"

    @property
    def prefix_len(self) -> int:
        if self.puzzle_emb_ndim == 0:
            return 0
        return self.puzzle_emb_len or -(-self.puzzle_emb_ndim // self.hidden_size)


class TRMConfig(TRMArch, TransformerConfig):
    """Architecture plus what it takes from the data set."""

    @property
    def mixing_flops(self) -> int:
        if not self.mlp_t:
            return super().mixing_flops
        S = self.positions
        return 2 * self.hidden_size * 3 * S * mlp_width(S, self.expansion)


class TRM(TransformerCore):
    """z_L and z_H are updated by the same module."""

    config: TRMConfig

    def _make_modules(self) -> None:
        c, block = self.config, self.attention_block()
        if c.mlp_t:
            block = partial(TokenMLPBlock, c.positions, c.hidden_size, c.expansion)
            self.rotate = nn.Identity()
        self.L_level = ReasoningModule(c.L_layers, block)
