"""Models: the ACT wrapper, its cores and the loss head; they know nothing of training."""

from hrm.models.registry import build_model

__all__ = ["build_model"]
