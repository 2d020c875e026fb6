"""What the steps of all optimizers share; one may have to be none, which only the device knows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Rate = float | Tensor  # a learning rate; a tensor where a captured step must see it change


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """What torch's optimizers do with a closure, which reevaluates the model."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def is_on_host(only_if: Tensor) -> bool:
    """Whether reading it is free."""
    return only_if.device.type == "cpu"


def is_refused(only_if: Tensor | None) -> bool:
    """Whether there is to be no update, where the host can know."""
    return only_if is not None and is_on_host(only_if) and not only_if


def rate_if(only_if: Tensor | None, rate: Rate) -> Rate:
    """The rate, or 0: whatever is finite stays as it is then."""
    if only_if is None or is_on_host(only_if):
        return rate
    return torch.where(only_if, rate, 0.0)


def put_if(only_if: Tensor | None, held: Sequence[Tensor], new: Sequence[Tensor]) -> None:
    """Put new values where others are held; where there is to be no update, these stay."""
    if only_if is None or is_on_host(only_if):
        torch._foreach_copy_(list(held), list(new))
        return
    for old, taken in zip(held, new, strict=True):
        torch.where(only_if, taken, old, out=old)
