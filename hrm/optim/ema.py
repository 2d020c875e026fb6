"""Exponential moving average of weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Running average of all parameters and buffers: a ← a + (1 - d)(w - a).

    d is `decay`, but at most (1 + t)/(10 + t) after t updates, so that short runs are not held
    back by their first weights. Puzzle rows, being buffers, are averaged too.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self._model = model
        self._averages = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights of now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        weights = list(self._model.state_dict().values())
        torch._foreach_lerp_(list(self._averages.values()), weights, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, under the model's names."""
        return dict(self._averages)

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor], updates: int) -> None:
        """Take up averages that `state_dict` gave after so many updates."""
        for name, average in self._averages.items():
            average.copy_(averages[name])
        self.updates = updates

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model runs on the averages while inside."""
        weights = {name: t.detach().clone() for name, t in self._model.state_dict().items()}
        self._model.load_state_dict(self._averages)
        try:
            yield
        finally:
            self._model.load_state_dict(weights)
