"""Exponential moving average of weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Running average of a model's weights, `shadow`: a ← a + (1 - d)(w - a).

    Args:
        decay: d, the share that stays.
        warm_up: let d be (1 + t)/(10 + t) at most after t updates, so that short runs are not held
            back by their first weights.
        buffers: average buffers, and with them puzzle rows, too; else parameters only, and buffers
            are the model's own.
    """

    def __init__(
        self, model: nn.Module, decay: float, warm_up: bool = False, buffers: bool = False
    ):
        self.decay = decay
        self.warm_up = warm_up
        self.updates = 0
        self._model = model
        self._averages_buffers = buffers
        self.shadow = {name: t.detach().clone() for name, t in self._weights().items()}
        self._rate = torch.zeros((), device=next(iter(self.shadow.values())).device)

    def _weights(self) -> dict[str, Tensor]:
        """What is averaged, as it is now."""
        if self._averages_buffers:
            return dict(self._model.state_dict())
        return {name: parameter.detach() for name, parameter in self._model.named_parameters()}

    def update(self) -> None:
        """Take in the model's weights of now."""
        self.advance()
        self.follow()

    def advance(self) -> None:
        """Count an update and set its rate, which is the host's part of it."""
        self.updates += 1
        decay = self.decay
        if self.warm_up:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        self._rate.fill_(1 - decay)

    @torch.no_grad()
    def follow(self) -> None:
        """Move towards the model's weights of now, which is the device's part."""
        for average, weight in zip(self.shadow.values(), self._weights().values(), strict=True):
            average.lerp_(weight, self._rate)

    def state_dict(self) -> dict[str, Tensor]:
        """A whole model's weights: the averages, and what is not averaged as it is now."""
        return {**self._model.state_dict(), **self.shadow}

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor], updates: int) -> None:
        """Take up averages that `state_dict` gave after so many updates."""
        for name, average in self.shadow.items():
            average.copy_(averages[name])
        self.updates = updates

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model runs on the averages while inside."""
        weights = self._weights()
        before = {name: tensor.clone() for name, tensor in weights.items()}
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(self.shadow[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in weights.items():
                    tensor.copy_(before[name])
