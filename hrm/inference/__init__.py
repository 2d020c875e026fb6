"""Inference: load a checkpoint once, solve many puzzles.

The public names load on first use, so that a process for a model starts before torch is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrm.inference.solver import Solution, Solver, Trace, pretrained

__all__ = ["Solution", "Solver", "Trace", "pretrained"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("hrm.inference.solver"), name)
    raise AttributeError(f"module 'hrm.inference' has no attribute {name!r}")
