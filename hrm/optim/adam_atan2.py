"""AdamATan2: Adam whose quotient is an arctangent, so that it needs no ε (arXiv 2407.05872)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hrm.optim.conditional import apply_if, loss_of


class AdamATan2(Optimizer):
    """p ← p(1 - lr·wd); p ← p - lr/(1 - β1ᵗ) · atan2(m, √v / √(1 - β2ᵗ)).

    m and v are the usual averages; the first bias correction stands outside the arctangent.

    Args:
        params: parameters, any float dtype, or groups of them; all are decayed alike.
        lr: learning rate; changed between steps through `param_groups`.
        betas: decay of m and of v, each in [0, 1).
        weight_decay: decoupled, times lr.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ):
        if lr < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"lr {lr}, weight_decay {weight_decay} or betas {betas} out of range")
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
        loss = loss_of(closure)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group, only_if)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any], only_if: Tensor | None) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = self.blank_state(p)
        states = [self.state[p] for p in params]
        torch._foreach_add_([state["step"] for state in states], 1)
        changed = [*params]
        changed += [state[key] for state in states for key in ("exp_avg", "exp_avg_sq")]
        apply_if(only_if, changed, lambda: self._move(params, states, group))

    def blank_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What is kept of a parameter, before its first step: t on the host, m and v beside it."""
        return {
            "step": torch.zeros((), dtype=torch.float32),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }

    def gradients(self) -> list[Tensor]:
        """None but the parameters' own."""
        return []

    @staticmethod
    def _move(params: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        beta1, beta2 = group["betas"]
        m = [state["exp_avg"] for state in states]
        v = [state["exp_avg_sq"] for state in states]
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        denominators = torch._foreach_sqrt(v)
        for p, state, first, denominator in zip(params, states, m, denominators, strict=True):
            t = state["step"].item()
            denominator /= (1 - beta2**t) ** 0.5
            p.add_(torch.atan2(first, denominator), alpha=-group["lr"] / (1 - beta1**t))
