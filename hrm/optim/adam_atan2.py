"""AdamATan2: Adam whose quotient is an arctangent, so that it needs no ε (arXiv 2407.05872)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

CPU_SLICE = 2**18  # numbers updated at once, so that a CPU's cache holds them


class AdamATan2(Optimizer):
    """p ← p(1 - lr·wd); p ← p - lr/(1 - β1ᵗ) · atan2(m, √v / √(1 - β2ᵗ)).

    m and v are the usual averages; the first bias correction stands outside the arctangent. Those
    of all parameters lie one after the other, so that a few operations update them all.

    Args:
        params: parameters, any float dtype; all are decayed alike.
        lr: learning rate; changed between steps through `param_groups`.
        betas: decay of m and of v, each in [0, 1).
        weight_decay: decoupled, times lr.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ):
        if lr < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"lr {lr}, weight_decay {weight_decay} or betas {betas} out of range")
        self._vectors: dict[tuple[str, Tensor], Tensor] = {}  # as `_joined` made them last
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, only_if: Tensor | None = None
    ) -> Any:
        """One update.

        Args:
            closure: reevaluates the model and returns the loss.
            only_if: bool scalar on the parameters' device. False leaves parameters, m and v as
                they are, whatever the gradients hold; t counts the step all the same. The host
                does not wait for it, unless it is on the CPU.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group, only_if)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any], only_if: Tensor | None) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        torch._foreach_add_([self.state[p]["step"] for p in params], 1)
        if only_if is not None and self._is_on_host(only_if):
            if not only_if:
                return
            only_if = None
        alike: dict[Any, list[Tensor]] = {}
        for p in params:
            key = p.dtype, p.device, self.state[p]["step"].item()
            alike.setdefault(key, []).append(p)
        for (_, _, t), members in alike.items():
            self._move(members, t, group, only_if)

    @staticmethod
    def _is_on_host(only_if: Tensor) -> bool:
        return only_if.device.type == "cpu"

    def _move(
        self, params: list[Tensor], t: float, group: dict[str, Any], only_if: Tensor | None
    ) -> None:
        """Update parameters of one dtype, device and count of steps."""
        beta1, beta2 = group["betas"]
        decay, rate = 1 - group["lr"] * group["weight_decay"], group["lr"] / (1 - beta1**t)
        m, v = self._joined(params, "exp_avg"), self._joined(params, "exp_avg_sq")
        g = torch.cat([p.grad.reshape(-1) for p in params if p.grad is not None])
        before = None if only_if is None else (m.clone(), v.clone())
        moves = torch.empty_like(g)
        on_cpu = g.device.type == "cpu"
        for m_, v_, g_, move in zip(
            *(x.split(CPU_SLICE if on_cpu else len(x)) for x in (m, v, g, moves)), strict=True
        ):
            m_.lerp_(g_, 1 - beta1)
            v_.mul_(beta2).addcmul_(g_, g_, value=1 - beta2)
            torch.sqrt(v_, out=move).div_((1 - beta2**t) ** 0.5)
            torch.atan2(m_, move, out=move)
        if only_if is not None and before is not None:
            for x, old in zip((m, v), before, strict=True):
                torch.where(only_if, x, old, out=x)
            moves = torch.where(only_if, moves, 0)
            decay = torch.where(only_if, decay, 1.0)
        parts = [x.view_as(p) for x, p in zip(moves.split(_sizes(params)), params, strict=True)]
        torch._foreach_mul_(params, decay)
        torch._foreach_add_(params, parts, alpha=-rate)

    def _joined(self, params: list[Tensor], name: str) -> Tensor:
        """All the states of that name in one vector, of which each of them is a part."""
        states = [self.state[p][name] for p in params]
        joined = self._vectors.get((name, params[0]))
        if joined is None or not _are_parts(states, joined):
            joined = torch.cat([state.reshape(-1) for state in states])
            for p, part in zip(params, joined.split(_sizes(params)), strict=True):
                self.state[p][name] = part.view_as(p)
            self._vectors[name, params[0]] = joined
        return joined


def _sizes(tensors: list[Tensor]) -> list[int]:
    return [tensor.numel() for tensor in tensors]


def _are_parts(tensors: list[Tensor], vector: Tensor) -> bool:
    """Whether these tensors, one after the other, are the vector's memory."""
    address = vector.data_ptr()
    for tensor in tensors:
        if tensor.data_ptr() != address:
            return False
        address += tensor.nbytes
    return address == vector.data_ptr() + vector.nbytes
