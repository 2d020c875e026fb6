"""What a step would ask of a device, counted where there is none.

On the meta device tensors have a shape and no memory: whatever makes the host wait for a value
raises there, and every operation that would start a kernel is seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations that allocate or look, and start nothing.
FREE = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach"}


@dataclass
class Work:
    """Operations of a step, and the bytes that they read and write, each once per operation."""

    launches: int = 0
    bytes: int = 0


class Counted(TorchDispatchMode):
    """While inside, counts operations; a view is none, one for a list of tensors is one."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        known = {t.untyped_storage()._cdata for t in read}
        writes = func._schema.is_mutable or any(
            t.untyped_storage()._cdata not in known for t in made
        )
        if writes and func._schema.name.split("::")[-1] not in FREE:
            self.work.launches += 1
            self.work.bytes += sum(t.nbytes for t in (*read, *made))
        return result


def counted(step: Callable[[], Any]) -> Work:
    """The work of a step, after one that makes what is kept.

    Raises:
        Exception: the host would wait for the device.
    """
    step()
    with Counted() as counter:
        step()
    return counter.work


META = torch.device("meta")
