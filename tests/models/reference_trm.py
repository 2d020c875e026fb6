"""The Tiny Recursive Model in float64, written out plainly; shares no code with the package.

The ACT wrapper and the loss are `reference_act`'s. Shapes: B batch, S positions, D hidden size,
U inner width of the MLP over positions.
"""

import math

import torch
from torch import Tensor

from .reference_act import Reference, norm


class TRMReference(Reference):
    """Holds float64 leaves `p` under the state-dict names without the `model.inner.` prefix."""

    def __init__(self, arch: dict, loss: dict, state: dict[str, Tensor]):
        defaults = {"backprop": "last_cycle", "q_continue": False, "mlp_t": False}
        super().__init__({**defaults, "puzzle_emb_len": 16, **arch}, loss, state)
        ndim, hidden = self.arch["puzzle_emb_ndim"], self.arch["hidden_size"]
        self.prefix = 0
        if ndim:
            self.prefix = self.arch["puzzle_emb_len"] or math.ceil(ndim / hidden)

    def mix(self, h: Tensor, name: str) -> Tensor:
        """The first half of a block: positions learn of each other."""
        if not self.arch["mlp_t"]:
            return norm(h + self.attention(h, f"{name}.self_attn"))
        gate_up = self.p[f"{name}.mlp_t.gate_up_proj.weight"]  # 2U S
        both = torch.einsum("us,bsd->bud", gate_up, h)
        width = len(gate_up) // 2
        gate, up = both[:, :width], both[:, width:]
        inner = gate / (1 + torch.exp(-gate)) * up
        h = h + torch.einsum("su,bud->bsd", self.p[f"{name}.mlp_t.down_proj.weight"], inner)
        S = h.shape[1]
        return h / torch.sqrt((h * h).sum(1, keepdim=True) / S + 1e-5)

    def module(self, level: str, h: Tensor, injection: Tensor) -> Tensor:
        """One module, whichever state it updates."""
        h = h + injection
        for i in range(self.arch["L_layers"]):
            name = f"L_level.layers.{i}"
            h = self.mix(h, name)
            h = norm(h + self.mlp(h, f"{name}.mlp"))
        return h
