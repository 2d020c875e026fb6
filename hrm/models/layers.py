"""Building blocks of the model. Weights are float32; the arithmetic runs in the input's dtype.

A block's weights are cast once per ACT step and handed to each of its calls (`CastedBlock`).

Shapes: B batch, S positions (puzzle prefix + tokens), D hidden size, N heads, H head size,
W inner width of the MLP over channels, U of the MLP over positions, C symbols, M message size.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrm.data.grid import Shape
from hrm.models.attention import scaled_attention

NORM_EPS = 1e-5
ROPE_THETA = 10000.0
QK_NORM_SCALE = 4.0
RELATION_KINDS = 8
RELATION_BIAS_STD = 0.1
MLP_WIDTH_MULTIPLE = 256
UNIT_MLP_WIDTH_MULTIPLE = 16
UNITS = 4
# Of states [B, R/r, r, C/c, c, symbols, D]: row, column, box, symbols of a cell.
OVER = ((3, 4), (1, 2), (2, 4), (5,))


def truncated_normal(*shape: int, std: float) -> Tensor:
    """Normal cut at ±2σ and rescaled so that the result's standard deviation is `std`.

    As JAX's `variance_scaling` does; `torch.nn.init.trunc_normal_` leaves it 12% too small.
    """
    if std == 0:
        return torch.zeros(shape)
    density = math.exp(-2.0) / math.sqrt(2 * math.pi)
    mass = math.erf(math.sqrt(2.0))
    sigma = std / math.sqrt(1 - 4 * density / mass)
    return nn.init.trunc_normal_(torch.empty(shape), std=sigma, a=-2 * sigma, b=2 * sigma)


def rms_norm(x: Tensor, eps: float = NORM_EPS) -> Tensor:
    """x / sqrt(mean(x²) + ε) over the last dimension, in float32, without a weight."""
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class RMSNorm(nn.Module):
    """`rms_norm` where a module is wanted."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x)


class RotaryEmbedding(nn.Module):
    """Rotary positions, rotate-half, frequencies laid out [f, f] (RoFormer, arXiv 2104.09864)."""

    cos: Tensor  # S H/2, float32
    sin: Tensor

    def __init__(self, length: int, head_dim: int):
        super().__init__()
        frequencies = ROPE_THETA ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # B N S H
        first, second = x.float().chunk(2, dim=-1)
        halves = first * self.cos - second * self.sin, second * self.cos + first * self.sin
        return torch.cat([half.to(x.dtype) for half in halves], dim=-1)


class RelationBias(nn.Module):
    """Learned attention bias of each head for each kind of relation between two positions.

    Relations [S, S] hold integers in 0…7: the sum of 1, 2 and 4 for the units that two cells of a
    grid share (row, column, box).
    """

    one_hot: Tensor  # RELATION_KINDS S·S, float32

    def __init__(self, num_heads: int, head_dim: int, relations: Tensor):
        super().__init__()
        self.shape = (num_heads, *relations.shape)
        self.scale = QK_NORM_SCALE * math.sqrt(head_dim)
        weight = truncated_normal(num_heads, RELATION_KINDS, std=RELATION_BIAS_STD)
        self.weight = nn.Parameter(weight)
        one_hot = relations.flatten() == torch.arange(RELATION_KINDS).unsqueeze(1)
        self.register_buffer("one_hot", one_hot.float(), persistent=False)

    def forward(self) -> Tensor:
        """The bias, [N, S, S] float32."""
        return (self.scale * self.weight @ self.one_hot).view(self.shape)


class CastedLinear(nn.Module):
    """Linear layer whose float32 weight is cast to the input's dtype at each call.

    Args:
        fused: so many layers of equal size in one, their outputs one after the other.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, fused: int = 1):
        super().__init__()
        self.fused = fused
        std = 1.0 / math.sqrt(in_features)
        self.weight = nn.Parameter(truncated_normal(out_features, in_features, std=std))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class CastedEmbedding(nn.Module):
    """Embedding table, float32, whose rows are cast to `cast_to`.

    Not the table: the gradients of all places with one token would be added up in `cast_to` then,
    and in bfloat16 on CPUs additions to more than some 256 of them are lost.
    """

    def __init__(self, num_embeddings: int, dim: int, std: float, cast_to: torch.dtype):
        super().__init__()
        self.cast_to = cast_to
        self.embedding_weight = nn.Parameter(truncated_normal(num_embeddings, dim, std=std))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.embedding_weight).to(self.cast_to)


class CastedBlock(nn.Module, ABC):
    """A layer of a reasoning module: (h, rotate, weights) -> h, with the weights of `cast`."""

    @abstractmethod
    def cast(self, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        """The weights in `dtype`; gradients of all calls that use them add up in it."""


class BlockWeights(NamedTuple):
    """A block's weights in the dtype of its input, and the bias of its attention."""

    qkv: Tensor  # 3D D
    o: Tensor  # D D
    gate_up: Tensor  # 2W D
    down: Tensor  # D W
    bias: Tensor | None  # N S S, float32


class Attention(nn.Module):
    """Full multi-head self-attention without bias; q, k and v heads fused in that order."""

    def __init__(
        self, hidden_size: int, num_heads: int, qk_norm: bool, relations: Tensor | None = None
    ):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.normalise = RMSNorm() if qk_norm else nn.Identity()
        self.scale = (QK_NORM_SCALE if qk_norm else 1.0) / math.sqrt(self.head_dim)
        self.bias = None
        if relations is not None:
            self.bias = RelationBias(num_heads, self.head_dim, relations)
        self.qkv_proj = CastedLinear(hidden_size, 3 * hidden_size, fused=3)
        self.o_proj = CastedLinear(hidden_size, hidden_size)

    def forward(self, x: Tensor, rotate: nn.Module, weights: BlockWeights) -> Tensor:
        B, S, D = x.shape
        q, k, v = self._heads(x, rotate, weights)
        y = scaled_attention(q, k, v, self.scale, weights.bias)
        return F.linear(y.transpose(1, 2).reshape(B, S, D), weights.o)

    def shares(self, x: Tensor, rotate: nn.Module, weights: BlockWeights) -> Tensor:
        """How much each position attends to each other one, [B, N, S, S] float32; rows sum to 1."""
        q, k, _ = self._heads(x, rotate, weights)
        scores = torch.matmul(q.float(), k.float().transpose(-2, -1)) * self.scale
        return torch.softmax(scores if weights.bias is None else scores + weights.bias, dim=-1)

    def _heads(self, x: Tensor, rotate: nn.Module, weights: BlockWeights) -> tuple[Tensor, ...]:
        """Queries, keys and values, [B, N, S, H] each."""
        B, S, _ = x.shape
        qkv = F.linear(x, weights.qkv).view(B, S, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return rotate(self.normalise(q)), rotate(self.normalise(k)), v


def mlp_width(size: int, expansion: float, multiple: int = MLP_WIDTH_MULTIPLE) -> int:
    """Inner width of a `SwiGLU`: expansion·size·2/3, up to a multiple."""
    return -(-round(expansion * size * 2 / 3) // multiple) * multiple


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)) on the last dimension."""

    def __init__(self, size: int, expansion: float, multiple: int = MLP_WIDTH_MULTIPLE):
        super().__init__()
        width = mlp_width(size, expansion, multiple)
        self.gate_up_proj = CastedLinear(size, 2 * width, fused=2)
        self.down_proj = CastedLinear(width, size)

    def forward(self, x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, down)


class Block(CastedBlock):
    """Post-norm transformer block: h ← norm(h + attn(h)); h ← norm(h + mlp(h))."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        expansion: float,
        qk_norm: bool,
        relations: Tensor | None = None,
    ):
        super().__init__()
        self.self_attn = Attention(hidden_size, num_heads, qk_norm, relations)
        self.mlp = SwiGLU(hidden_size, expansion)

    def cast(self, dtype: torch.dtype) -> BlockWeights:
        attn, mlp = self.self_attn, self.mlp
        return BlockWeights(
            qkv=attn.qkv_proj.weight.to(dtype),
            o=attn.o_proj.weight.to(dtype),
            gate_up=mlp.gate_up_proj.weight.to(dtype),
            down=mlp.down_proj.weight.to(dtype),
            bias=None if attn.bias is None else attn.bias(),
        )

    def forward(self, h: Tensor, rotate: nn.Module, weights: BlockWeights) -> Tensor:
        h = rms_norm(h + self.self_attn(h, rotate, weights))
        return rms_norm(h + self.mlp(h, weights.gate_up, weights.down))


class TokenMLPWeights(NamedTuple):
    """A `TokenMLPBlock`'s weights in the dtype of its input."""

    gate_up_t: Tensor  # 2U S
    down_t: Tensor  # S U
    gate_up: Tensor  # 2W D
    down: Tensor  # D W


class TokenMLPBlock(CastedBlock):
    """Post-norm block that mixes positions by an MLP (arXiv 2105.01601), for one sequence length.

    hᵀ ← norm(hᵀ + mlp_t(hᵀ)), where MLP and norm run along the positions of each channel;
    h ← norm(h + mlp(h)).
    """

    def __init__(self, positions: int, hidden_size: int, expansion: float):
        super().__init__()
        self.mlp_t = SwiGLU(positions, expansion)
        self.mlp = SwiGLU(hidden_size, expansion)

    def cast(self, dtype: torch.dtype) -> TokenMLPWeights:
        return TokenMLPWeights(
            gate_up_t=self.mlp_t.gate_up_proj.weight.to(dtype),
            down_t=self.mlp_t.down_proj.weight.to(dtype),
            gate_up=self.mlp.gate_up_proj.weight.to(dtype),
            down=self.mlp.down_proj.weight.to(dtype),
        )

    def forward(self, h: Tensor, rotate: nn.Module, weights: TokenMLPWeights) -> Tensor:
        """As `Block.forward`; nothing is rotated."""
        t = h.transpose(1, 2)  # B D S
        t = rms_norm(t + self.mlp_t(t, weights.gate_up_t, weights.down_t))
        h = t.transpose(1, 2)
        return rms_norm(h + self.mlp(h, weights.gate_up, weights.down))


class UnitBlockWeights(NamedTuple):
    """A `UnitBlock`'s weights in the dtype of its input."""

    message: Tensor  # 4M D
    o: Tensor  # D 4M
    gate_up: Tensor  # 2W D
    down: Tensor  # D W


class UnitBlock(CastedBlock):
    """Post-norm block in which each symbol of each cell hears the means of its four units.

    h ← norm(h + o(means of silu(message(h)))); h ← norm(h + mlp(h)).

    A symbol's units in a cell: the same symbol in the cell's row, in its column, in its box (the
    whole grid where there are no boxes), and all symbols of the cell; each has M channels of the
    message. What is computed is equivariant under whatever maps units to units (Deep Sets, arXiv
    1703.06114; Hartford et al., arXiv 1803.02879), and no weight depends on the size of the grid.
    """

    def __init__(
        self, grid: Shape, box: Shape, hidden_size: int, message_size: int, expansion: float
    ):
        super().__init__()
        (R, C), (r, c) = grid, box
        self.cells = (R // r, r, C // c, c)
        self.message_proj = CastedLinear(hidden_size, UNITS * message_size)
        self.o_proj = CastedLinear(UNITS * message_size, hidden_size)
        self.mlp = SwiGLU(hidden_size, expansion, UNIT_MLP_WIDTH_MULTIPLE)

    def cast(self, dtype: torch.dtype) -> UnitBlockWeights:
        return UnitBlockWeights(
            message=self.message_proj.weight.to(dtype),
            o=self.o_proj.weight.to(dtype),
            gate_up=self.mlp.gate_up_proj.weight.to(dtype),
            down=self.mlp.down_proj.weight.to(dtype),
        )

    def forward(self, h: Tensor, rotate: nn.Module, weights: UnitBlockWeights) -> Tensor:
        """States [B, S, C, D] -> [B, S, C, D]; nothing is rotated."""
        message = F.silu(F.linear(h, weights.message))
        message = message.view(h.shape[0], *self.cells, *message.shape[2:])
        heard = h.view(h.shape[0], *self.cells, *h.shape[2:])
        parts = zip(message.chunk(UNITS, dim=-1), weights.o.chunk(UNITS, dim=-1), OVER, strict=True)
        for part, o, dims in parts:
            heard = heard + F.linear(part.mean(dims, keepdim=True), o)
        h = rms_norm(heard.view(h.shape))
        return rms_norm(h + self.mlp(h, weights.gate_up, weights.down))
