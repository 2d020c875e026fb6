"""Models: the ACT wrapper, its cores and the loss head; torch only."""

from hrm.models.registry import build_model

__all__ = ["build_model"]
