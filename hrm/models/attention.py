"""Scaled dot-product attention over all positions, with a learned bias.

Shapes: B batch, N heads, S positions, H head size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Longest sequence for which two plain products beat the fused kernel on a CPU in bfloat16.
CPU_PLAIN_ATTENTION_MAX_LEN = 256
# Longest sequence whose scores of all rows may be kept for the gradient of the bias.
KEPT_SCORES_MAX_LEN = 512
# Scores at a time, where they are not kept: what caches hold, and what keeps a device busy.
CPU_CHUNK, CHUNK = 2**21, 2**25


def scaled_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None
) -> Tensor:
    """softmax(q kᵀ · scale + bias) v over all positions.

    q, k, v and result: [B, N, S, H]; bias: [N, S, S] float32.
    """
    low_precision_cpu = q.device.type == "cpu" and q.dtype != torch.float32
    if low_precision_cpu and q.shape[-2] <= CPU_PLAIN_ATTENTION_MAX_LEN:
        scores = torch.matmul(q * scale, k.transpose(-2, -1)).float()
        if bias is not None:
            scores = scores + bias
        return torch.matmul(torch.softmax(scores, dim=-1).to(v.dtype), v)
    needs_scores = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    if needs_scores and q.shape[-2] > KEPT_SCORES_MAX_LEN:
        y: Tensor = _LongBiasedAttention.apply(q, k, v, bias, scale)
        return y
    mask = None if bias is None else bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


class _LongBiasedAttention(torch.autograd.Function):
    """Attention whose backward pass makes scores anew, a few positions at a time.

    Kernels that give a gradient to the bias keep it, or the scores, as [B, N, S, S]: 1.3 GB in
    bfloat16 for 96 mazes of 30 by 30 and 8 heads, in each block. The formulas are those of
    FlashAttention's backward pass (arXiv 2205.14135, algorithm 4).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=scale)
        ctx.save_for_backward(q, k, v, bias, y)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        (dy,), (q, k, v, bias, y) = gradients, ctx.saved_tensors
        rows, heads, positions, _ = q.shape
        chunk = CPU_CHUNK if q.device.type == "cpu" else CHUNK
        size = max(1, chunk // (rows * heads * positions))
        weighted = (dy.to(bias.dtype) * y).sum(-1, keepdim=True)
        dq, dbias = torch.empty_like(q), torch.empty_like(bias)
        dk, dv = torch.zeros_like(k, dtype=bias.dtype), torch.zeros_like(v, dtype=bias.dtype)
        for start in range(0, positions, size):
            part = slice(start, start + size)
            scores = torch.matmul(q[:, :, part], k.transpose(-2, -1)).to(bias.dtype) * ctx.scale
            p = torch.softmax(scores + bias[:, part], dim=-1)
            dp = torch.matmul(dy[:, :, part], v.transpose(-2, -1)).to(bias.dtype)
            dscores = p * (dp - weighted[:, :, part])
            dbias[:, part] = dscores.sum(0)
            dproducts = (dscores * ctx.scale).to(q.dtype)
            dq[:, :, part] = torch.matmul(dproducts, k)
            dk += torch.matmul(dproducts.transpose(-2, -1), q[:, :, part])
            dv += torch.matmul(p.to(v.dtype).transpose(-2, -1), dy[:, :, part])
        return dq, dk.to(k.dtype), dv.to(v.dtype), dbias, None
