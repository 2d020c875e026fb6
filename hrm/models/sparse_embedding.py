"""Puzzle embedding: a table of which each step touches only the rows in the batch."""

import torch
from torch import Tensor, nn

PUZZLE_TABLE = "model.inner.puzzle_emb.weights"  # in the state dict of every core


class CastedSparseEmbedding(nn.Module):
    """Table [num_embeddings, dim], float32, without a dense gradient.

    `weights` is a buffer. A training lookup copies the rows of its batch into a leaf tensor, and
    `lookups` keeps (identifiers [B], leaf [B, dim]) for the optimizer, which reads the leaf's
    gradient, updates those rows and empties the list (`hrm.optim.SparseSignSGD`).
    Negative identifiers mean "no identity": a zero row that is never updated. The table has one
    row at least, so that data without any identity can be looked up.
    """

    weights: Tensor

    def __init__(self, num_embeddings: int, dim: int, cast_to: torch.dtype):
        super().__init__()
        self.cast_to = cast_to
        self.register_buffer("weights", torch.zeros(max(num_embeddings, 1), dim))
        self.lookups: list[tuple[Tensor, Tensor]] = []

    def forward(self, identifiers: Tensor) -> Tensor:
        """Identifiers [B], any integer dtype -> rows [B, dim] in `cast_to`."""
        known = (identifiers >= 0).unsqueeze(-1)
        rows = self.weights[identifiers.clamp(min=0).long()] * known
        if self.training and torch.is_grad_enabled():
            rows = rows.detach().requires_grad_()
            self.lookups.append((identifiers, rows))
        return rows.to(self.cast_to)


def forget_lookups(model: nn.Module) -> None:
    """Drop the lookups of all puzzle embeddings, as if there had been none."""
    for module in model.modules():
        if isinstance(module, CastedSparseEmbedding):
            module.lookups.clear()
