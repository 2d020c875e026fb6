"""Which device to run on, and whether to compile."""

import ctypes
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import torch
from torch import Tensor
from torch.utils._triton import has_triton

from hrm.config import CompileMode, DeviceName
from hrm.errors import UserError
from hrm.files import cache_folder
from hrm.models.losses import ACTLossHead

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
# That one block is compiled for: training, and batches that shrink in evaluation. With torch's own
# limit of 8 those beyond it would run uncompiled.
MOST_SHAPES = 64
CPU_STATE = 2**21  # numbers in the state of a micro-batch
LARGEST_KEPT = 32 << 20  # bytes
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # environment variable
FIXED_WORKSPACES = (":4096:8", ":16:8")  # the only values with which cuBLAS is deterministic
COMPILED_CODE = "TORCHINDUCTOR_CACHE_DIR"  # environment variable
CUDNN_ATTENTION = "HRM_CUDNN_ATTENTION"  # environment variable


def pick_device(name: DeviceName, local_rank: int = 0) -> torch.device:
    """The named device; `auto` takes CUDA, then MPS, then the CPU.

    On CUDA attention is not cuDNN's, PyTorch's first choice on Hopper, whose backward pass has
    given NaN in bfloat16; the environment's `HRM_CUDNN_ATTENTION=1` allows it.

    Raises:
        UserError: the named device is not there.
    """
    assert name in get_args(DeviceName)
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(n for n in ("cuda", "mps", "cpu") if available[n])
    if not available[name]:
        raise UserError(f"device={name}: not available here; use device=auto or device=cpu")
    if name == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"device=cuda: {torch.cuda.device_count()} GPUs, but local rank {local_rank}; "
                "start fewer processes per node or use device=cpu"
            )
        torch.cuda.set_device(local_rank)
        torch.backends.cuda.enable_cudnn_sdp(os.environ.get(CUDNN_ATTENTION) == "1")
        return torch.device("cuda", local_rank)
    return torch.device(name)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are made in hardware.

    Not on CPUs without AVX-512, nor on CUDA devices before Ampere (compute capability 8.0).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type != "cpu" or "AVX512" in torch.backends.cpu.get_cpu_capability()


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """While inside, operations whose results vary from run to run are replaced, or raise.

    Raises:
        UserError: `CUBLAS_WORKSPACE_CONFIG` lets cuBLAS's products vary; where it is not set, it
            is set. It counts until the first product.
    """
    if device.type == "cuda":
        given = os.environ.setdefault(CUBLAS_WORKSPACE, FIXED_WORKSPACES[0])
        if given not in FIXED_WORKSPACES:
            raise UserError(
                f"deterministic=true: {CUBLAS_WORKSPACE} is {given!r}, with which cuBLAS is not; "
                f"unset it, or use {' or '.join(FIXED_WORKSPACES)}"
            )
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def free_memory(device: torch.device) -> int:
    """Bytes that are free on an accelerator; 0 on a CPU, where nobody asks."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0


def micro_batch_size(rows: int, numbers: int) -> int:
    """Rows per forward pass on a CPU: about as many as its caches help with.

    Args:
        rows: of the whole batch; the result is the divisor that comes nearest, as a ratio.
        numbers: in the state of one row.
    """
    fitting = CPU_STATE / numbers
    if rows <= fitting:
        return rows
    divisors = [n for n in range(1, rows + 1) if rows % n == 0]
    return min(divisors, key=lambda n: max(n / fitting, fitting / n))


def keep_memory() -> None:
    """Keep freed memory for the next step (glibc; elsewhere nothing happens).

    By default large tensors are unmapped when they are freed, and each page of the next one is
    then cleared by the kernel at its first touch. What is larger than `LARGEST_KEPT`, the largest
    that glibc can keep, is unmapped all the same.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copy a batch; to CUDA from pinned memory, without waiting.

    Elsewhere it waits: MPS would read memory that may be free by then.
    """
    if device.type == "cuda":
        return {n: t.pin_memory().to(device, non_blocking=True) for n, t in batch.items()}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def compile_model(model: ACTLossHead, mode: CompileMode, device: torch.device) -> bool:
    """Compile the core's blocks in place (names of weights stay); says whether it did.

    `auto` compiles where a compiler is found: on CUDA with Triton, on the CPU with a C++ compiler.
    Blocks, and not the whole model, so that all blocks share one short compilation; evaluation has
    several shapes. With `step` a training step's forward pass, with losses and metrics, is one
    graph, and its backward pass another: fewer launches, for a compilation that grows with cycles.

    Raises:
        UserError: `true` or `step`, but there is no working compiler.
    """
    if mode == "false" or (mode == "auto" and not has_compiler(device)):
        return False
    _keep_compiled_code()
    try:
        torch.compile(torch.neg)(torch.zeros(8, device=device))
    except Exception as error:
        [what, *_] = f"{type(error).__name__}: {error}".splitlines()
        reason = f"compile={mode}: no working compiler ({what})"
        if mode != "auto":
            raise UserError(f"{reason}; use compile=false") from None
        warnings.warn(f"{reason}; going on without", stacklevel=2)
        return False
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    for block in model.model.inner.blocks():
        block.compile(dynamic=False)
    if mode == "step":
        model.compute = torch.compile(model.compute, dynamic=False)  # type: ignore[method-assign]
    return True


def _keep_compiled_code() -> None:
    """Where the next run finds it: torch's own place is lost when the machine starts again.

    `TORCHINDUCTOR_CACHE_DIR` names another place.
    """
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault(COMPILED_CODE, str(folder))


def is_compiled(model: ACTLossHead) -> bool:
    """Whether each new number of rows costs a compilation."""
    blocks = model.model.inner.blocks()
    return any(getattr(block, "_compiled_call_impl", None) is not None for block in blocks)


def has_compiler(device: torch.device) -> bool:
    """Whether a compiler for the device is found."""
    if device.type == "cpu":
        return sys.platform == "linux" and any(map(shutil.which, ("g++", "clang++")))
    return device.type == "cuda" and has_triton()
