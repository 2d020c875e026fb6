"""AdamATan2: Adam whose quotient is an arctangent, so that it needs no ε (arXiv 2407.05872)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hrm.optim.conditional import is_refused, loss_of, put_if, rate_if


class AdamATan2(Optimizer):
    """p ← p(1 - lr·wd); p ← p - lr/(1 - β1ᵗ) · atan2(m, √v / √(1 - β2ᵗ)).

    m and v are the usual averages; the first bias correction stands outside the arctangent.

    Args:
        params: parameters, any float dtype, or groups of them; all are decayed alike.
        lr: learning rate; changed between steps through `param_groups`. A tensor (0-dim, on the
            parameters' device) can also change inside of a captured step.
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
        if not is_refused(only_if):
            self._move(params, states, group, only_if)

    def blank_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What is kept of a parameter, before its first step: t, m and v, all beside it."""
        return {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }

    def gradients(self) -> list[Tensor]:
        """None but the parameters' own."""
        return []

    @staticmethod
    def _move(
        params: list[Tensor],
        states: list[dict[str, Tensor]],
        group: dict[str, Any],
        only_if: Tensor | None,
    ) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        beta1, beta2 = group["betas"]
        lr = rate_if(only_if, group["lr"])
        m = [state["exp_avg"] for state in states]
        v = [state["exp_avg_sq"] for state in states]
        put_if(only_if, m, torch._foreach_lerp(m, grads, 1 - beta1))
        squares = torch._foreach_mul(v, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        put_if(only_if, v, squares)
        del squares
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        t = torch.stack([state["step"] for state in states])
        t = t if t.device.type == "mps" else t.double()
        rates = (lr / (1 - beta1**t)).unbind()
        corrections = (1 - beta2**t).sqrt().unbind()
        denominators = torch._foreach_sqrt(v)
        torch._foreach_div_(denominators, corrections)
        for p, first, denominator, rate in zip(params, m, denominators, rates, strict=True):
            p.addcmul_(torch.atan2(first, denominator), rate, value=-1)
