"""ARC-AGI: few demonstrations of a rule, by which a grid is to be changed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrm.tasks.arc.evaluator import Evaluator

__all__ = ["Evaluator"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # loads torch
        from hrm.tasks.arc import evaluator

        return getattr(evaluator, name)
    raise AttributeError(f"module 'hrm.tasks.arc' has no attribute {name!r}")
