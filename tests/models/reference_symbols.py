"""The symbol-equivariant model in float64, cell by cell; shares no code with the package.

The ACT wrapper and the loss are `reference_act`'s. Shapes: B batch, T tokens, C symbols, D hidden
size, M message size.
"""

import itertools
import math

import torch
from torch import Tensor

from .reference_act import norm
from .reference_trm import TRMReference


class SymbolReference(TRMReference):
    """Holds float64 leaves `p` under the state-dict names without the `model.inner.` prefix."""

    def __init__(self, arch: dict, loss: dict, state: dict[str, Tensor]):
        super().__init__({"puzzle_emb_ndim": 0, **arch}, loss, state)
        if self.arch["first_symbol"] is None:
            self.arch["first_symbol"] = self.arch["first_digit"]

    @property
    def symbols(self) -> range:
        return range(self.arch["first_symbol"], self.arch["vocab_size"])

    def state_shape(self, T: int) -> tuple[int, ...]:
        return T, len(self.symbols), self.arch["hidden_size"]

    def embed(self, inputs: Tensor, identifiers: Tensor) -> Tensor:
        def row(token: int, symbol: int) -> int:
            if token < self.arch["first_symbol"]:
                return 2 + token
            return 1 if token == symbol else 0

        table = self.p["embed_cell.embedding_weight"]
        rows = [[[row(t, s) for s in self.symbols] for t in tokens] for tokens in inputs.tolist()]
        return math.sqrt(self.arch["hidden_size"]) * table[torch.tensor(rows)]

    def members(self, cell: int, symbol: int) -> list[list[tuple[int, int]]]:
        """Of each unit of a symbol in a cell: the cells and symbols that belong to it."""
        (rows, columns), box = self.arch["grid_shape"], self.arch["box_shape"]
        height, width = box or (rows, columns)
        r, c = divmod(cell, columns)
        here = [divmod(other, columns) for other in range(rows * columns)]
        return [
            [(i, symbol) for i, (a, _) in enumerate(here) if a == r],
            [(i, symbol) for i, (_, b) in enumerate(here) if b == c],
            [
                (i, symbol)
                for i, (a, b) in enumerate(here)
                if (a // height, b // width) == (r // height, c // width)
            ],
            [(cell, other) for other in range(len(self.symbols))],
        ]

    def mix(self, h: Tensor, name: str) -> Tensor:
        M = self.arch["message_size"]
        message, o = (self.p[f"{name}.{part}_proj.weight"] for part in ("message", "o"))
        told = h @ message.T  # B T C 4M
        told = told / (1 + torch.exp(-told))
        heard = []
        for cell, symbol in itertools.product(range(h.shape[1]), range(h.shape[2])):
            means = []
            for number, unit in enumerate(self.members(cell, symbol)):
                cells, symbols = map(list, zip(*unit, strict=True))
                means.append(told[:, cells, symbols, number * M : (number + 1) * M].mean(1))
            heard.append(torch.cat(means, dim=1) @ o.T)
        return norm(h + torch.stack(heard, dim=1).view_as(h))

    def read(self, z_H: Tensor) -> tuple[Tensor, ...]:
        own = z_H @ self.p["lm_head.weight"][0]
        others = z_H.mean(2) @ self.p["token_head.weight"].T
        flat = z_H.flatten(1, 2)
        both = torch.cat([flat.mean(1), flat.max(1).values], dim=1)
        q = both @ self.p["q_head.weight"].T + self.p["q_head.bias"]
        return torch.cat([others, own], dim=2), q[:, 0], q[:, 1]
