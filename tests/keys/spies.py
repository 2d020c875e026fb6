"""What the model is seen to do."""

from typing import Any

import pytest
import torch
from torch import nn

from hrm.models.act import ACT


def rows_per_pass(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of sequences at every ACT step, in training and in evaluation."""
    seen: list[int] = []
    original = ACT.compute

    def compute(self: ACT, carry: Any, puzzle: Any) -> Any:
        seen.append(len(carry.steps))
        return original(self, carry, puzzle)

    monkeypatch.setattr(ACT, "compute", compute)
    return seen


def compiled_modules(monkeypatch: pytest.MonkeyPatch) -> dict[nn.Module, int]:
    """Each module that is compiled, and how often the compiled call is used; none really is."""
    calls: dict[nn.Module, int] = {}

    def compile_module(self: nn.Module, *_: Any, **__: Any) -> None:
        calls[self] = 0

        def compiled(*arguments: Any, **more: Any) -> Any:
            calls[self] += 1
            return self._call_impl(*arguments, **more)

        self._compiled_call_impl = compiled

    monkeypatch.setattr(nn.Module, "compile", compile_module)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    return calls
