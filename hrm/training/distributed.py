"""Ranks: who am I, and what travels between processes."""

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hrm.errors import EXIT_USER_ERROR, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that torchrun started; alone without torchrun."""

    rank: int
    size: int
    local_rank: int

    @staticmethod
    def from_environment() -> "Ranks":
        """Read what torchrun sets."""
        get = os.environ.get
        return Ranks(
            int(get("RANK", "0")), int(get("WORLD_SIZE", "1")), int(get("LOCAL_RANK", "0"))
        )

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Join the process group while inside: gloo for CPU tensors, NCCL for CUDA's."""
        if self.size == 1:
            yield
            return
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        try:
            yield
            dist.barrier()
        finally:
            dist.destroy_process_group()
            gc.collect()

    def agree(self, make: Callable[[], T]) -> T:
        """`make()` on rank 0, its result on every rank.

        A `UserError` of rank 0 ends the other ranks too, silently, with the same exit code.
        """
        if self.size == 1:
            return make()
        outcome: list[Any] = [None]
        if self.is_first:
            try:
                outcome = [make()]
            except UserError as error:
                outcome = [error]
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
        if isinstance(outcome[0], UserError):
            if self.is_first:
                raise outcome[0]
            sys.exit(EXIT_USER_ERROR)
        return outcome[0]

    def broadcast_model(self, model: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in [*model.parameters(), *model.buffers()]:
                    dist.broadcast(tensor, src=0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the ranks, in one message."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        for grad, summed in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(summed.view_as(grad))

    def sum(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Add up named scalars over the ranks; every rank has the same names."""
        names = sorted(sums)
        if not names:
            return {}
        values = torch.stack([sums[name].float() for name in names])
        if self.size > 1:
            dist.all_reduce(values)
        return dict(zip(names, values.tolist(), strict=True))

    def maximum(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        if self.size == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return int(value)

    def gather_rows(self, local: Tensor) -> Tensor:
        """Concatenate equal shares of a global batch, in the order of the ranks."""
        if self.size == 1:
            return local
        parts = [torch.empty_like(local) for _ in range(self.size)]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)
