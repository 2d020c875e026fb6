"""Sign-SGD for the puzzle embedding: only rows in the batch are touched, on every rank alike."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from hrm.models.sparse_embedding import CastedSparseEmbedding
from hrm.optim.conditional import loss_of


class SparseSignSGD(Optimizer):
    """For each row present in the batch of any rank: p ← p(1 - lr·wd) - lr·sign(g), sign(0) = 0.

    g is the sum of the gradients of equal identifiers over all lookups since the last step
    (micro-batches) and over the ranks; a step uses them up. What travels is (identifiers, rows),
    never a dense table; every rank must look up the same number of rows.

    Args:
        embedding: the table and its lookups.
        lr: learning rate; changed between steps through `param_groups`.
        weight_decay: decoupled, times lr.
        process_group: ranks that share the table; None is the default group, if there is one.
    """

    def __init__(
        self,
        embedding: CastedSparseEmbedding,
        lr: float,
        weight_decay: float = 0.0,
        process_group: dist.ProcessGroup | None = None,
    ):
        if lr < 0 or weight_decay < 0:
            raise ValueError(f"lr {lr} or weight_decay {weight_decay} out of range")
        self.embedding = embedding
        self.process_group = process_group
        # CUDA adds in no fixed order: in float64 the signs are equal on all ranks all the same.
        on_mps = embedding.weights.device.type == "mps"
        self._sum_dtype = torch.float32 if on_mps else torch.float64
        super().__init__([embedding.weights], {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, only_if: Tensor | None = None
    ) -> Any:
        """One update.

        Args:
            closure: reevaluates the model and returns the loss.
            only_if: bool scalar on the table's device; False uses up the lookups and leaves the
                table as it is. The host does not wait for it.
        """
        loss = loss_of(closure)
        looked_up = self.embedding.lookups
        lookups = [(ids, rows.grad) for ids, rows in looked_up if rows.grad is not None]
        looked_up.clear()
        if not lookups:
            return loss
        identifiers = self._gather(torch.cat([ids for ids, _ in lookups]))
        grads = self._gather(torch.cat([grad for _, grad in lookups]))
        known, last = identifiers >= 0, identifiers.max()
        # No shape depends on what is known: the rest stand for the last row, and add nothing.
        rows = torch.where(known, identifiers, last.clamp(min=0)).long()
        place = torch.searchsorted(rows.sort().values, rows)  # the same for equal rows
        total = torch.zeros_like(grads, dtype=self._sum_dtype)
        grads = torch.where(known.unsqueeze(-1), grads, 0)
        total.index_add_(0, place, grads.to(self._sum_dtype))
        group = self.param_groups[0]
        weights, lr = self.embedding.weights, group["lr"]
        old = weights[rows]
        new = old * (1 - lr * group["weight_decay"]) - lr * total[place].sign().to(weights.dtype)
        is_changed = last >= 0 if only_if is None else (last >= 0) & only_if
        weights[rows] = torch.where(is_changed, new, old)  # equal rows write equal values
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the lookups that have a gradient; those that still await one stay."""
        lookups = self.embedding.lookups
        lookups[:] = [(ids, rows) for ids, rows in lookups if rows.grad is None]

    def blank_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """Nothing is kept."""
        return {}

    def gradients(self) -> list[Tensor]:
        """Of the rows that were looked up on this rank, [B, dim] each."""
        return [rows.grad for _, rows in self.embedding.lookups if rows.grad is not None]

    def _gather(self, local: Tensor) -> Tensor:
        if not (dist.is_available() and dist.is_initialized()):
            return local
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size(self.process_group))]
        dist.all_gather(parts, local.contiguous(), group=self.process_group)
        return torch.cat(parts)
