"""Ranks: who am I, and what travels between processes."""

import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar, cast
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from hrm.errors import RankLost, UserError

T = TypeVar("T")
# The option that keeps buffers from travelling at every step, by torch's old or its new name.
_DDP_OPTIONS = signature(DistributedDataParallel.__init__).parameters
_SYNC_BUFFERS = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in _DDP_OPTIONS)
MISSING_SECONDS = 30  # how long the ranks that are left wait for the others to say that they live


@dataclass(frozen=True)
class Ranks:
    """This process among those that torchrun started; alone without torchrun."""

    rank: int
    size: int
    local_rank: int
    group: dist.ProcessGroup | None = None  # all ranks; None is the default group
    roll_call: dist.ProcessGroup | None = None  # all ranks; unused until something goes wrong

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
        store = _store_of_this_start(self.rank, self.size)
        dist.init_process_group(_backend(), store=store, rank=self.rank, world_size=self.size)
        try:
            yield
            dist.barrier()
        finally:
            dist.destroy_process_group()
            gc.collect()

    @contextmanager
    def answering_within(self, seconds: int) -> Iterator["Ranks"]:
        """These ranks, where one that does not answer for `seconds` is named and given up.

        Raises:
            RankLost: a rank is gone or hangs; the message says which.
        """
        if self.size == 1:
            yield self
            return
        limit = timedelta(seconds=seconds)
        group = dist.new_group(backend=_backend(), timeout=limit)
        roll_call = dist.new_group(backend="gloo", timeout=limit)
        ranks = replace(self, group=group, roll_call=roll_call)
        try:
            yield ranks
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise RankLost(ranks._who_is_missing()) from None

    def _who_is_missing(self) -> str:
        """Ask every rank to answer; says which did not."""
        here = f"rank {self.rank} on {socket.gethostname()}"
        try:
            limit = timedelta(seconds=MISSING_SECONDS)
            dist.monitored_barrier(self.roll_call, limit, wait_all_ranks=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split("\n")[0].split())
            return f"{here}: another rank does not answer ({reason})"
        return f"{here}: the connection between the ranks broke, though all of them answer"

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
        dist.broadcast_object_list(outcome, 0, self.group, device=torch.device("cpu"))
        self._fail_together(outcome)
        return outcome[0]

    def together(self, make: Callable[[], T]) -> T:
        """`make()` on every rank, each with its own result.

        A `UserError` of any rank ends all of them, told once, by rank 0.
        """
        if self.size == 1:
            return make()
        result, error = None, None
        try:
            result = make()
        except UserError as mine:
            error = mine
        errors: list[Any] = [None] * self.size
        dist.all_gather_object(errors, error, self.group)
        self._fail_together(errors)
        return cast(T, result)

    def _fail_together(self, outcomes: list[Any]) -> None:
        for error in outcomes:
            if isinstance(error, UserError):
                if self.is_first:
                    raise error
                sys.exit(error.exit_code)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model, with rank 0's weights, whose backward pass sums gradients over the ranks.

        Sums, not means: every rank divides its loss by the global batch size. Buffers, such as
        the puzzle table, travel once, here.
        """
        if self.size == 1:
            return model
        options: dict[str, Any] = {_SYNC_BUFFERS: False, "gradient_as_bucket_view": True}
        wrapped = DistributedDataParallel(model, process_group=self.group, **options)
        wrapped.register_comm_hook(self.group, _sum_bucket)
        return wrapped

    def sum(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Add up named scalars over the ranks; every rank has the same names."""
        names = sorted(sums)
        if not names:
            return {}
        values = torch.stack([sums[name].float() for name in names])
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return dict(zip(names, values.tolist(), strict=True))

    def any(self, flags: Tensor) -> Tensor:
        """Which of the flags (bool, on the training device) is set on some rank."""
        if self.size == 1:
            return flags
        numbers = flags.float()
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.group)
        return numbers > 0

    def maximum(self, *numbers: int) -> list[int]:
        """The largest of the ranks' numbers, one by one; a message between hosts."""
        if self.size == 1:
            return list(numbers)
        values = torch.tensor(numbers)
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self.group)
        return values.tolist()

    def gather_rows(self, local: Tensor) -> Tensor:
        """Concatenate equal shares of a global batch, in the order of the ranks."""
        if self.size == 1:
            return local
        parts = [torch.empty_like(local) for _ in range(self.size)]
        dist.all_gather(parts, local.contiguous(), group=self.group)
        return torch.cat(parts)

    def collect(self, tensors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Every rank's tensors on rank 0: name -> one for each rank, on the CPU; {} elsewhere.

        Names, shapes and dtypes are the same on all ranks. A single rank's stay where they are.
        """
        if self.size == 1:
            return {name: [tensor] for name, tensor in tensors.items()}
        result = {}
        for name in sorted(tensors):
            tensor = tensors[name].detach().cpu().contiguous()
            parts = [torch.empty_like(tensor) for _ in range(self.size)] if self.is_first else []
            views = [_bytes(part) for part in parts] or None
            dist.gather(_bytes(tensor), views, dst=0, group=self.group)
            if self.is_first:
                result[name] = parts
        return result


def _store_of_this_start(rank: int, size: int) -> dist.Store:
    """Where the ranks find each other, free of what they wrote before torchrun started them anew.

    torchrun's store outlives the processes, and they would connect to addresses of dead ones
    (pytorch/pytorch#135712). So rank 0 draws a name for this start and tells it to every rank that
    asks with a number of its own, until all have taken it up.

    Raises:
        RankLost: a rank does not come.
    """
    store, _, _ = next(rendezvous("env://"))
    mine = uuid4().hex
    if rank > 0:
        store.set(f"hrm/asks/{rank}", mine)
        try:
            name = store.get(f"hrm/told/{mine}").decode()  # waits
        except dist.DistError:
            raise RankLost(f"rank {rank} on {socket.gethostname()}: rank 0 is not there") from None
        store.set(f"hrm/{name}/came/{rank}", "")
        return dist.PrefixStore(f"hrm/{name}", store)
    missing, deadline = set(range(1, size)), time.monotonic() + store.timeout.total_seconds()
    while missing:
        if time.monotonic() > deadline:
            raise RankLost(f"rank {min(missing)} is not there")
        for other in list(missing):
            if store.check([f"hrm/{mine}/came/{other}"]):
                missing.remove(other)
            elif store.check([f"hrm/asks/{other}"]):
                store.set(f"hrm/told/{store.get(f'hrm/asks/{other}').decode()}", mine)
        time.sleep(0.02)
    return dist.PrefixStore(f"hrm/{mine}", store)


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def _bytes(tensor: Tensor) -> Tensor:
    """The same memory as uint8: gloo does not know every dtype."""
    return tensor.view(-1).view(torch.uint8)


def _sum_bucket(
    group: dist.ProcessGroup | None, bucket: dist.GradBucket
) -> torch.futures.Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])
