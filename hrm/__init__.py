"""Hierarchical reasoning models: train, evaluate, understand.

The public names load on first use, so that the data builders never import torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrm.checkpoint import load_weights
    from hrm.inference import Solution, Solver, pretrained
    from hrm.models import build_model

DISTRIBUTION = "recursive-reasoning"  # as pip knows it
try:
    __version__ = version(DISTRIBUTION)  # of its git tag
except PackageNotFoundError:  # run from sources that are not installed
    __version__ = "unknown"

SUBMODULES = ("data", "inference", "models", "optim")
HOMES = {
    "Solution": "hrm.inference",
    "Solver": "hrm.inference",
    "build_model": "hrm.models",
    "load_weights": "hrm.checkpoint",
    "pretrained": "hrm.inference",
}
__all__ = ["Solution", "Solver", "build_model", "load_weights", "pretrained", *SUBMODULES]


def __getattr__(name: str) -> Any:
    if name in SUBMODULES:
        return import_module(f"hrm.{name}")
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'hrm' has no attribute {name!r}")
