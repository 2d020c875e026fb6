"""Ranks: which process this is, and what travels between processes."""

import gc
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from inspect import signature
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hrm.errors import RankLost, UserError, one_line, report_and_exit

T = TypeVar("T")
# The option that keeps buffers from travelling at every step, by torch's old or its new name.
_DDP_OPTIONS = signature(DistributedDataParallel.__init__).parameters
_SYNC_BUFFERS = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in _DDP_OPTIONS)
ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
START_SECONDS = 600  # within which all ranks begin
ROLL_CALL_SECONDS = 30  # at most; how long the ranks that are left wait for the others


@dataclass(frozen=True)
class Ranks:
    """This process among those that torchrun started; alone without torchrun."""

    rank: int
    size: int
    local_rank: int
    group: dist.ProcessGroup | None = None  # all ranks; None is the default group
    messages: dist.ProcessGroup | None = None  # the same, for what travels between hosts, by gloo
    beside: dist.ProcessGroup | None = None  # likewise, for a thread of each rank
    roll: str = ""  # under which the ranks answer when something went wrong
    hosts: tuple[str, ...] = ()  # of each rank

    @staticmethod
    def from_environment() -> "Ranks":
        """Read what torchrun sets.

        Raises:
            UserError: only some of it is set, or it makes no sense.
        """
        given = [name for name in ("RANK", "LOCAL_RANK") if name in os.environ]
        if given and "WORLD_SIZE" not in os.environ:
            _refuse_environment(f"{given[0]} is set and WORLD_SIZE is not")
        size = _number("WORLD_SIZE", 1, least=1)
        rank, local_rank = (_number(name, 0, most=size - 1) for name in ("RANK", "LOCAL_RANK"))
        if size > 1:
            for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
                if not os.environ.get(name):
                    _refuse_environment(f"WORLD_SIZE is {size} and {name} is not set")
            _number("MASTER_PORT", 0, least=1, most=65535)
        return Ranks(rank, size, local_rank)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Join the process group while inside: gloo for CPU tensors, NCCL for CUDA's.

        Leaving a group with NCCL waits for all ranks. So where one fails on CUDA it reports why
        and ends at once, and torchrun ends the others.

        Raises:
            RankLost: another rank did not start.
        """
        if self.size == 1:
            yield
            return
        store = _meet(self.rank, self.size)
        dist.init_process_group(_backend(), store=store, rank=self.rank, world_size=self.size)
        try:
            yield
            self.maximum(0)  # all have come to the end
        except BaseException as error:
            if _has_nccl():
                report_and_exit(error)
            raise
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
        messages, beside = (
            dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds)) for _ in range(2)
        )
        group = messages
        if _has_nccl():  # its watchdog would end the process before the roll is called
            longer = timedelta(seconds=2 * seconds + 2 * ROLL_CALL_SECONDS)
            group = dist.new_group(backend=_backend(), timeout=longer)
        mine = (uuid.uuid4().hex, socket.gethostname())
        entries: list[Any] = [mine] * self.size
        dist.all_gather_object(entries, mine, messages)
        hosts = tuple(host for _, host in entries)
        roll = entries[0][0]
        ranks = replace(self, group=group, messages=messages, beside=beside, roll=roll, hosts=hosts)
        try:
            yield ranks
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            reason = " ".join(str(error).split("\n")[0].split())
            raise RankLost(ranks._call_roll(min(seconds, ROLL_CALL_SECONDS), reason)) from None

    def _call_roll(self, seconds: int, reason: str) -> str:
        """Which ranks do not answer, after `reason`.

        They meet at torchrun's store. In a group, whoever waits for a rank that waits for another
        one in turn would name the wrong one.
        """
        here = self._name(self.rank)
        keys = {rank: f"roll/{self.roll}/{rank}" for rank in range(self.size)}
        deadline = time.monotonic() + seconds
        try:
            store = _store(seconds, is_master=False)
            store.set(keys[self.rank], "here")
            missing = list(keys)
            while missing and time.monotonic() < deadline:
                time.sleep(0.1)
                missing = [rank for rank in missing if not store.check([keys[rank]])]
        except RuntimeError:
            keeper = self._name(0) if _rank_0_keeps_store() else "torchrun on the first node"
            return f"{here}: no answer from {keeper}, which keeps the store"
        if not missing:
            return (
                f"{here}: the connection between the ranks broke ({reason}), though all of them "
                "answer; raise rank_timeout if one was only slow"
            )
        return f"{here}: no answer from {', '.join(map(self._name, missing))}"

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts[rank]}" if self.hosts else f"rank {rank}"

    def gather_beside(self, mine: T) -> list[T]:
        """Every rank's value on rank 0, in their order; [] elsewhere.

        For one thread of each rank, beside what the ranks send each other meanwhile.

        Raises:
            RuntimeError: a rank is gone, or did not come in time.
        """
        if self.size == 1:
            return [mine]
        values: list[Any] = [None] * self.size if self.is_first else []
        dist.gather_object(mine, values or None, dst=0, group=self.beside)
        return values

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
        dist.broadcast_object_list(outcome, 0, self.messages, device=torch.device("cpu"))
        self._fail_together(outcome)
        return outcome[0]

    def together(self, make: Callable[[], T]) -> T:
        """`make()` on every rank, each with its own result.

        A `UserError` of any rank ends all of them, reported once, by rank 0, which names the rank
        where it is not everyone's.
        """
        if self.size == 1:
            return make()
        result, error = None, None
        try:
            result = make()
        except UserError as mine:
            error = mine
        errors: list[Any] = [None] * self.size
        dist.all_gather_object(errors, error, self.messages)
        failed = [rank for rank, theirs in enumerate(errors) if theirs is not None]
        if failed and len(failed) < self.size:
            first = errors[failed[0]]
            first.args = (f"{self._name(failed[0])}: {first}",)
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
        self.meet()
        options: dict[str, Any] = {_SYNC_BUFFERS: False, "gradient_as_bucket_view": True}
        wrapped = DistributedDataParallel(model, process_group=self.group, **options)
        wrapped.register_comm_hook(self.group, _sum_bucket)
        return wrapped

    def meet(self) -> None:
        """Wait until all hosts are here, where NCCL carries tensors; the devices go on meanwhile.

        A host that reads what NCCL computes waits for the other ranks, without an end that Python
        could set. Once all have met, all have started what is about to be read.

        Raises:
            RuntimeError: a rank did not come in time; `answering_within` names it.
        """
        if self.size > 1 and _has_nccl():
            dist.all_reduce(torch.zeros(()), group=self.messages)

    def sum(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Add up named scalars over the ranks; every rank has the same names."""
        names = sorted(sums)
        if not names:
            return {}
        values = torch.stack([sums[name].float() for name in names])
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
            self.meet()
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
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self.messages)
        return values.tolist()

    def gather_rows(self, local: Tensor) -> Tensor:
        """Concatenate equal shares of a global batch, in the order of the ranks."""
        if self.size == 1:
            return local
        parts = [torch.empty_like(local) for _ in range(self.size)]
        dist.all_gather(parts, local.contiguous(), group=self.group)
        return torch.cat(parts)

    def collect_rows(self, tensors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """As `collect`, where the number of rows, the first dimension, is each rank's own."""
        if self.size == 1:
            return self.collect(tensors)
        names = sorted(tensors)
        most = self.maximum(*(len(tensors[name]) for name in names))
        sent = {"": torch.tensor([len(tensors[name]) for name in names])}
        for name, rows in zip(names, most, strict=True):
            tensor = tensors[name]
            padding = tensor.new_zeros(max(1, rows) - len(tensor), *tensor.shape[1:])
            sent[f"/{name}"] = torch.cat([tensor, padding])
        shares = self.collect(sent)
        lengths = [lengths.tolist() for lengths in shares.get("", [])]
        return {
            name: [part[: of[n]] for part, of in zip(shares[f"/{name}"], lengths, strict=True)]
            for n, name in enumerate(names)
            if shares
        }

    def collect(self, tensors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Every rank's tensors on rank 0: name -> one for each rank, on the CPU; {} elsewhere.

        Names, shapes and dtypes are the same on all ranks. A single rank's stay where they are.
        """
        if self.size == 1:
            return {name: [tensor] for name, tensor in tensors.items()}
        self.meet()
        result = {}
        for name in sorted(tensors):
            tensor = tensors[name].detach().cpu().contiguous()
            parts = [torch.empty_like(tensor) for _ in range(self.size)] if self.is_first else []
            views = [_bytes(part) for part in parts] or None
            dist.gather(_bytes(tensor), views, dst=0, group=self.messages)
            if self.is_first:
                result[name] = parts
        return result


ALONE = Ranks(rank=0, size=1, local_rank=0)


def _number(name: str, default: int, least: int = 0, most: int = 2**20) -> int:
    """A whole number from the environment, within bounds."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        _refuse_environment(f"{name} is {text!r}, not a number")
    if not least <= int(text) <= most:
        _refuse_environment(f"{name} is {text}, not within {least} to {most}")
    return int(text)


def _refuse_environment(reason: str) -> NoReturn:
    raise UserError(
        f"environment: {reason}; several processes are started by torchrun, which sets all that "
        f"is needed, a single one needs none of it: unset {' '.join(ENVIRONMENT)}"
    )


def _rank_0_keeps_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _store(seconds: int, is_master: bool) -> dist.TCPStore:
    """A connection to the store, through which processes find each other."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=is_master, timeout=timedelta(seconds=seconds))


def _meet(rank: int, size: int) -> dist.Store:
    """The store, under a prefix that only these processes know.

    torchrun keeps its store when it starts workers again, and with it the addresses of the
    processes that have ended. So rank 0 answers each of the others by the name that it goes by.

    Raises:
        RankLost: after `START_SECONDS`.
    """
    mine = uuid.uuid4().hex
    try:
        store = _store(START_SECONDS, is_master=rank == 0 and _rank_0_keeps_store())
        if rank > 0:
            store.set(f"name/{rank}", mine)
            prefix = store.get(f"prefix-for/{mine}").decode()
            store.set(f"{prefix}/{rank}", "joined")
            return dist.PrefixStore(prefix, store)
    except RuntimeError as error:
        if rank == 0:
            reason = one_line(error)
            place = "MASTER_ADDR, MASTER_PORT"
            raise RankLost(f"rank 0: cannot listen ({reason}); give another {place}") from None
        raise RankLost(f"rank {rank}: rank 0 did not start within {START_SECONDS} s") from None

    absent = list(range(1, size))
    deadline = time.monotonic() + START_SECONDS
    while absent:
        if time.monotonic() > deadline:
            names = ", ".join(map(str, absent))
            raise RankLost(f"ranks {names} did not start within {START_SECONDS} s")
        for other in absent:
            if store.check([f"name/{other}"]):
                store.set(f"prefix-for/{store.get(f'name/{other}').decode()}", mine)
        absent = [other for other in absent if not store.check([f"{mine}/{other}"])]
        time.sleep(0.02)
    return dist.PrefixStore(mine, store)


def _has_nccl() -> bool:
    return torch.cuda.is_available()


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if _has_nccl() else "gloo"


def _bytes(tensor: Tensor) -> Tensor:
    """The same memory as uint8: gloo does not know every dtype."""
    return tensor.view(-1).view(torch.uint8)


def _sum_bucket(
    group: dist.ProcessGroup | None, bucket: dist.GradBucket
) -> torch.futures.Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])
