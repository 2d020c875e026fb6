"""What the steps of all optimizers share; one may have to be none, which only the device knows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """What torch's optimizers do with a closure, which reevaluates the model."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def is_on_host(only_if: Tensor) -> bool:
    """Whether reading it is free."""
    return only_if.device.type == "cpu"


def apply_if(only_if: Tensor | None, changed: Sequence[Tensor], update: Callable[[], None]) -> None:
    """Call `update`, which changes tensors in place; where `only_if` is False they stay as before.

    Args:
        only_if: bool scalar; on a device that the host would have to wait for, the update is made,
            and taken back there. None: True.
        changed: all that `update` changes.
    """
    if only_if is None:
        update()
    elif is_on_host(only_if):
        if only_if:
            update()
    else:
        before = [tensor.clone() for tensor in changed]
        update()
        for tensor, old in zip(changed, before, strict=True):
            torch.where(only_if, tensor, old, out=tensor)
