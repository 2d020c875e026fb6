"""`hrm doctor`: what a report of a fault needs to say of a machine, and what is odd about it."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hrm.cli.options import SchemaCommand
from hrm.config import Config
from hrm.errors import write_output
from hrm.machine import load, memory
from hrm.machine import usable_cores as cores

HELP = """
hrm doctor

Print versions, devices, threads, compilers and free disk, and below them what
is odd about them. Put it into a report of a fault. Nothing is sent anywhere.
"""
PACKAGES = ("torch", "numpy", "pydantic", "hydra-core", "safetensors", "huggingface-hub")
EXTRAS = {
    "web": "fastapi",
    "generate": "numba",
    "onnx": "onnx",
    "wandb": "wandb",
    "tensorboard": "tensorboard",
}
LITTLE_DISK, LITTLE_MEMORY = 2e9, 2e9  # bytes
OLDEST_TORCH = (2, 7)


class DoctorConfig(Config):
    """It has no keys."""


def run(read: Callable[[], DoctorConfig]) -> None:
    """Print what was found, and what is odd about it."""
    read()
    found = facts()
    width = max(map(len, found))
    lines = [f"{name:{width}}  {value}" for name, value in found.items()]
    strange = [f"- {oddity}" for oddity in oddities()]
    write_output("\n".join([*lines, "", *(strange or ["Nothing is odd."]), ""]))


def facts() -> dict[str, str]:
    """Values by name, for people."""
    import torch

    import hrm
    from hrm.checkpoint import shipped_models
    from hrm.device import has_compiler, has_fast_bfloat16, pick_device

    device = pick_device("auto")
    disk = shutil.disk_usage(Path.cwd())
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(n) for n in range(count)]
    extras = [f"{name} ({known(package)})" for name, package in EXTRAS.items()]
    return {
        "hrm": f"{hrm.__version__}, {Path(hrm.__file__).parent}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": platform.platform(),
        "packages": ", ".join(f"{name} {known(name)}" for name in PACKAGES),
        "extras": ", ".join(extras),
        "cores": f"{cores()}, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}",
        "threads": f"{torch.get_num_threads()}, OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'not set')}",
        "load": f"{load():.1f} threads want a core, in the last minute",
        "memory": f"{memory() / 1e9:.1f} GB",
        "gpus": ", ".join(gpus) or ("MPS" if device.type == "mps" else "none"),
        "device=auto": device.type,
        "bfloat16": "fast" if has_fast_bfloat16(device) else "emulated, slow",
        "compiler": "found" if has_compiler(device) else "not found; nothing is compiled",
        "disk": f"{disk.free / 1e9:.1f} GB free in {Path.cwd()}",
        "models": ", ".join(shipped_models()) or "none",
    }


def known(package: str) -> str:
    """The version of a package, or that it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def oddities() -> Iterator[str]:
    """What may be why something is slow or fails, each with the way out."""
    import torch

    from hrm.checkpoint import shipped_models
    from hrm.checkpoint.manifest import verify
    from hrm.device import has_compiler, has_fast_bfloat16, pick_device
    from hrm.errors import UserError

    device, threads = pick_device("auto"), torch.get_num_threads()
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        yield f"torch {torch.__version__} is older than {'.'.join(map(str, OLDEST_TORCH))}"
    if threads > cores():
        yield f"{threads} threads on {cores()} cores: set OMP_NUM_THREADS={cores()} or fewer"
    elif device.type == "cpu" and load() + threads > cores() + 1:
        yield f"other programs want cores, too (load {load():.1f} of {cores()}): this may be slow"
    if torch.version.cuda and not torch.cuda.is_available():
        yield f"torch is built for CUDA {torch.version.cuda}, but no GPU is usable: see nvidia-smi"
    if not torch.version.cuda and shutil.which("nvidia-smi"):
        yield "there is an NVIDIA GPU, but torch is built for CPUs: install a build for CUDA"
    if not has_compiler(device):
        yield "no compiler: training is slower; install g++ (CPU) or Triton (CUDA)"
    if not has_fast_bfloat16(device):
        yield "bfloat16 is emulated here: train with arch.forward_dtype=auto or float32"
    if shutil.disk_usage(Path.cwd()).free < LITTLE_DISK:
        yield f"less than {LITTLE_DISK / 1e9:.0f} GB of disk are free here"
    if 0 < memory() < LITTLE_MEMORY:
        yield f"less than {LITTLE_MEMORY / 1e9:.0f} GB of memory"
    if not os.access(Path.cwd(), os.W_OK):
        yield f"{Path.cwd()} cannot be written"
    if not shipped_models():
        yield "the models of the package are missing: install it again"
    for folder in shipped_models().values():
        try:
            verify(folder)
        except UserError as error:
            yield f"{error}: install hrm again"


command = SchemaCommand("doctor", DoctorConfig, run, HELP)
