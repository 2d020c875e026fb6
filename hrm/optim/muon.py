"""Muon: momentum made orthogonal, for matrices (https://kellerjordan.github.io/posts/muon/).

The formula, the coefficients and the factor of the rate are those of `torch.optim.Muon`, whose
products are in bfloat16; here their dtype is chosen, and a weight may be several matrices.

Shapes: K matrices one below the other in a weight [K·M, N].
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hrm.optim.conditional import is_refused, loss_of, put_if, rate_if

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalized(matrices: Tensor) -> Tensor:
    """About U·Vᵀ of each matrix U·S·Vᵀ, whatever its scale; 0 for 0.

    Five Newton–Schulz iterations s ← a·s + b·s³ + c·s⁵ of the singular values, from S/|S|: those
    from 0.003 of the norm on come out between 0.68 and 1.21, smaller ones up to a⁵ = 485 times as
    large as they were.

    Args:
        matrices: [K, M, N].
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    # Scaled by the largest entry first: squares of small ones would be 0, or inf.
    x = x / x.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


class Muon(Optimizer):
    """m ← μm + (1 - μ)g; p ← p(1 - lr·wd); p ← p - lr·√max(1, M/N) · orthogonalized((1 - μ)g + μm).

    Args:
        params: weights [K·M, N], or groups of them; K is a group's `pieces`, 1 by default. Each
            piece is orthogonalized by itself.
        lr: learning rate; changed between steps through `param_groups`.
        weight_decay: decoupled, times lr.
        momentum: μ, in [0, 1).
        dtype: of the products that make a matrix orthogonal; None: the parameters'. Everything else
            is in the parameters' dtype.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype | None = None,
    ):
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1:
            raise ValueError(
                f"lr {lr}, weight_decay {weight_decay} or momentum {momentum} out of range"
            )
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "pieces": 1}
        super().__init__(params, defaults)
        self.dtype = dtype
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2 or len(p) % group["pieces"]:
                    raise ValueError(f"{list(p.shape)} is not {group['pieces']} matrices")

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, only_if: Tensor | None = None
    ) -> Any:
        """One update.

        Args:
            closure: reevaluates the model and returns the loss.
            only_if: bool scalar on the parameters' device. False leaves parameters and momentum as
                they are, whatever the gradients hold. The host does not wait for it, unless it is
                on the CPU.
        """
        loss = loss_of(closure)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not self.state[p]:
                    self.state[p] = self.blank_state(p)
            if not is_refused(only_if):
                for alike in _by_shape(params):
                    self._move(alike, group, only_if)
        return loss

    def blank_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What is kept of a parameter, before its first step."""
        return {"momentum_buffer": torch.zeros_like(parameter)}

    def gradients(self) -> list[Tensor]:
        """None but the parameters' own."""
        return []

    def _move(self, params: list[Tensor], group: dict[str, Any], only_if: Tensor | None) -> None:
        """Move weights of one shape, whose matrices are multiplied side by side."""
        mu, lr = group["momentum"], rate_if(only_if, group["lr"])
        grads = [p.grad for p in params if p.grad is not None]
        momenta = [self.state[p]["momentum_buffer"] for p in params]
        put_if(only_if, momenta, torch._foreach_lerp(momenta, grads, 1 - mu))
        ahead = torch.stack(torch._foreach_lerp(grads, momenta, mu))
        if only_if is not None:
            ahead = torch.where(only_if, ahead, 0)
        rows, N = params[0].shape
        M = rows // group["pieces"]
        matrices = ahead.view(-1, M, N).to(self.dtype or ahead.dtype)
        directions = orthogonalized(matrices).reshape(ahead.shape)
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        step = lr * max(1, M / N) ** 0.5
        for p, direction in zip(params, directions, strict=True):
            p.sub_(direction * step)


def _by_shape(params: list[Tensor]) -> list[list[Tensor]]:
    alike: dict[torch.Size, list[Tensor]] = {}
    for p in params:
        alike.setdefault(p.shape, []).append(p)
    return list(alike.values())
