"""What suits a device where a configuration leaves it open: dtype, micro-batch, compilation.

On a CPU micro-batches are as large as its caches help with (`hrm.device`). On an accelerator they
are as large as its memory allows: the largest divisor M of a rank's B rows for which

    always + B · kept + M · passing <= SHARE · free

`always` is weights, their average, gradients, moments and what an update copies; `kept` is a row of
the carry, twice, since a checkpoint joins the carries; `passing` is what a row adds to the peak of
a forward and a backward pass. All three are found by such passes on the meta device, where tensors
have a shape and no memory, so they follow the architecture whatever its switches.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hrm.checkpoint import build_for
from hrm.data.format import DatasetMetadata
from hrm.device import has_fast_bfloat16, micro_batch_size
from hrm.errors import UserError
from hrm.models.flops import training_flops
from hrm.models.losses import ACTLossHead
from hrm.progress import say
from hrm.training.config import PretrainConfig

SHARE = 0.8  # of the free memory; the rest is for libraries, messages and fragmentation
COPIES_IN_UPDATE = 6  # of the parameters: two moments, and four more while AdamATan2 moves them
SHORT_RUN = 3e12  # FLOPs of a whole run: half a minute or so
FEW, MORE = 32, 64  # rows of the passes on the meta device


def for_device(
    config: PretrainConfig, device: torch.device, metadata: DatasetMetadata, ranks: int, free: int
) -> PretrainConfig:
    """The configuration with the dtype, the micro-batch and the compilation that suit the device.

    Args:
        metadata: of the training data.
        free: bytes that are free on an accelerator; on a CPU they play no part.

    Raises:
        UserError: it asks for float16, whose gradients would need scaling.
    """
    arch, fast = config.arch, has_fast_bfloat16(device)
    if arch.forward_dtype == "float16":
        raise UserError(
            "arch.forward_dtype=float16: training does not scale its losses, so that small "
            "gradients would become 0 in float16; use bfloat16, float32 or auto"
        )
    if arch.forward_dtype == "auto":
        config = config.in_dtype("bfloat16" if fast else "float32")
    elif arch.forward_dtype == "bfloat16" and not fast:
        say("arch.forward_dtype=bfloat16 is very slow on this device; use float32 or auto")
    if config.compile == "auto" and device.type == "cpu" and is_short(config, metadata):
        config = config.model_copy(update={"compile": "false"})
    if config.micro_batch_size != "auto":
        return config
    rows = config.local_micro_batch_size(ranks)
    if device.type == "cpu":
        micro = micro_batch_size(rows, arch.state_numbers(metadata.seq_len, metadata.vocab_size))
    else:
        need = memory_need(config, metadata, linear_attention=device.type == "cuda")
        micro = largest_fitting(rows, need, free)
    return config.model_copy(update={"micro_batch_size": micro})


def is_short(config: PretrainConfig, metadata: DatasetMetadata) -> bool:
    """Whether a run on a CPU is over before compiled blocks have made up for their compilation."""
    with torch.device("meta"):
        arch = build_for(config, metadata).model.inner.config
    examples = config.total_steps(metadata) * config.global_batch_size
    return examples * training_flops(arch) < SHORT_RUN


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on the device, as in the formula above."""

    always: int
    kept: int  # per row of the rank
    passing: int  # per row of a micro-batch

    def of(self, rows: int, micro: int) -> int:
        """At the peak of a step."""
        return self.always + rows * self.kept + micro * self.passing


def largest_fitting(rows: int, need: MemoryNeed, free: int) -> int:
    """The largest divisor of `rows` that fits; 1 where none does."""
    divisors = (n for n in range(rows, 1, -1) if rows % n == 0)
    return next((n for n in divisors if need.of(rows, n) <= SHARE * free), 1)


def memory_need(
    config: PretrainConfig, metadata: DatasetMetadata, linear_attention: bool
) -> MemoryNeed:
    """What a training step needs, uncompiled; a compiled one needs less.

    Args:
        linear_attention: the device has a kernel that never holds the scores of all positions.
    """
    with torch.device("meta"):
        model = build_for(config, metadata)
    weights = sum(t.nbytes for t in model.state_dict().values())
    parameters = sum(p.nbytes for p in model.parameters())
    few, more = (_peak(model, rows, linear_attention) for rows in (FEW, MORE))
    passing = (more - few) // (MORE - FEW)
    carry = model.initial_carry(model.model.blank_batch(1, "meta")).named().values()
    return MemoryNeed(
        always=weights * (1 + config.ema) + COPIES_IN_UPDATE * parameters + few - FEW * passing,
        kept=2 * sum(t.nbytes for t in carry),
        passing=passing,
    )


def _peak(model: ACTLossHead, rows: int, linear_attention: bool) -> int:
    """Bytes at once at most in a forward and a backward pass, weights and batch not counted."""
    batch = model.model.blank_batch(rows, "meta")
    model.zero_grad()
    with _LinearAttention(linear_attention), _LiveBytes() as live:
        _, loss, *_ = model(carry=model.initial_carry(batch), batch=batch)
        loss.backward()
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, for as long as these live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _LinearAttention(TorchFunctionMode):
    """Attention by the kernel that CUDA has; the meta device itself would take the plain one."""

    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self._enabled = enabled

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._enabled or func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = args
        bias = kwargs["attn_mask"]
        if bias is not None:
            bias = bias.expand(len(query), -1, -1, -1)
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        return efficient(query, key, value, bias, True, scale=kwargs["scale"])[0]
