"""Hierarchical reasoning models: train, evaluate, understand.

The public names load on first use, so that the data builders never import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrm.models import build_model, load_weights

__all__ = ["build_model", "load_weights"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hrm import models

        return getattr(models, name)
    raise AttributeError(f"module 'hrm' has no attribute {name!r}")
