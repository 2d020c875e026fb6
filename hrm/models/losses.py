"""Loss head: token loss, halting losses and metrics of one ACT step.

Shapes: B batch, T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hrm.config import NonNegative
from hrm.data.format import IGNORE_LABEL_ID
from hrm.models.act import ACT, Carry


class LossConfig(BaseModel):
    """Which losses, and their weights in the sum."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss_type: Literal["stablemax_cross_entropy", "softmax_cross_entropy"] = Field(
        description="loss of the tokens"
    )
    lm_loss_weight: NonNegative = Field(1.0, description="weight of the tokens' loss")
    q_halt_weight: NonNegative = Field(0.5, description="weight of the halting loss")
    q_continue_weight: NonNegative = Field(0.5, description="weight of the loss of q_continue")
    q_continue_loss: Literal["bce", "mse"] = Field(
        "bce", description="binary cross-entropy, or squared error of the sigmoid"
    )


def log_stablemax(x: Tensor) -> Tensor:
    """log(s(x)/Σs), s(x) = x + 1 for x ≥ 0 and 1/(1 - x) below (arXiv 2501.04697, eq. 5)."""
    s = torch.where(x < 0, 1 / (1 - x.clamp(max=0)), x + 1)
    return torch.log(s / s.sum(-1, keepdim=True))


def stablemax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Per-token loss [B, T] in float64 (float32 where the device has none); ignored tokens 0."""
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    log_probs = log_stablemax(logits.to(dtype))
    valid = labels != IGNORE_LABEL_ID
    target = torch.where(valid, labels, 0).long().unsqueeze(-1)
    return torch.where(valid, -log_probs.gather(-1, target).squeeze(-1), 0)


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Per-token loss [B, T] in float32; ignored tokens 0."""
    loss = F.cross_entropy(
        logits.float().flatten(0, 1),
        labels.long().flatten(),
        ignore_index=IGNORE_LABEL_ID,
        reduction="none",
    )
    return loss.view_as(labels)


def bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Per-sequence binary cross-entropy with logits, [B]."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def mse_on_sigmoid(logits: Tensor, target: Tensor) -> Tensor:
    """Per-sequence squared error of the sigmoid, [B]."""
    return (torch.sigmoid(logits) - target).square()


TokenLoss = Callable[[Tensor, Tensor], Tensor]
TOKEN_LOSSES: dict[str, TokenLoss] = {
    "stablemax_cross_entropy": stablemax_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
}
CONTINUE_LOSSES: dict[str, TokenLoss] = {"bce": bce_loss, "mse": mse_on_sigmoid}


class ACTLossHead(nn.Module):
    """Wraps the ACT model; one call is one ACT step with its loss and metrics."""

    def __init__(self, model: ACT, config: LossConfig):
        super().__init__()
        self.model = model
        self.config = config
        self.token_loss = TOKEN_LOSSES[config.loss_type]
        self.continue_loss = CONTINUE_LOSSES[config.q_continue_loss]

    @property
    def loss_names(self) -> list[str]:
        """Parts of the training loss, as the metrics name them."""
        parts = ["lm_loss", "q_halt_loss"]
        return [*parts, "q_continue_loss"] if self.model.has_continue_target else parts

    def initial_carry(self, batch: dict[str, Tensor], first_row: int = 0) -> Carry:
        """See `ACT.initial_carry`."""
        return self.model.initial_carry(batch, first_row)

    def staggered_carry(self, batch: dict[str, Tensor], first_row: int = 0) -> Carry:
        """See `ACT.staggered_carry`."""
        return self.model.staggered_carry(batch, first_row)

    def sequence_losses(self, outputs: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Unweighted losses of every sequence: name -> [B], with gradient.

        `lm_loss` is the mean over the sequence's labelled tokens, 0 where it has none.
        """
        labelled = (labels != IGNORE_LABEL_ID).sum(-1)
        token_loss = self.token_loss(outputs["logits"], labels)
        exact = self._is_exact(outputs["logits"], labels)
        losses = {
            "lm_loss": (token_loss / labelled.clamp(min=1).unsqueeze(-1)).sum(-1),
            "q_halt_loss": bce_loss(outputs["q_halt_logits"], exact.float()),
        }
        if "target_q_continue" in outputs:
            losses["q_continue_loss"] = self.continue_loss(
                outputs["q_continue_logits"], outputs["target_q_continue"]
            )
        return losses

    @torch.no_grad()
    def sequence_metrics(
        self, outputs: dict[str, Tensor], labels: Tensor, steps: Tensor
    ) -> dict[str, Tensor]:
        """Metrics of every sequence, name -> [B] float32; 0 where a sequence has no label."""
        valid = labels != IGNORE_LABEL_ID
        labelled = valid.sum(-1)
        exact = self._is_exact(outputs["logits"], labels)
        correct = valid & (outputs["logits"].argmax(-1) == labels)
        q_halt = outputs["q_halt_logits"]
        metrics = {
            "count": torch.ones_like(q_halt),
            "accuracy": correct.sum(-1) / labelled.clamp(min=1),
            "exact_accuracy": exact,
            "q_halt_accuracy": (q_halt >= 0) == exact,
            "steps": steps,
            "q_halt": q_halt,
            "q_continue": outputs["q_continue_logits"],
        }
        return {name: torch.where(labelled > 0, m.float(), 0) for name, m in metrics.items()}

    @staticmethod
    def _is_exact(logits: Tensor, labels: Tensor) -> Tensor:
        return ((labels == IGNORE_LABEL_ID) | (logits.argmax(-1) == labels)).all(-1)

    def forward(
        self, carry: Carry, batch: dict[str, Tensor], return_keys: Iterable[str] = ()
    ) -> tuple[Carry, Tensor, dict[str, Tensor], dict[str, Tensor], Tensor]:
        """One ACT step.

        Args:
            carry: of the previous step, or `initial_carry(batch)`.
            batch: `inputs`, `labels` [B, T] and `puzzle_identifiers` [B], which the halted
                sequences take; ignored labels are -100.
            return_keys: outputs to return (`logits`, `preds` [B, T] int64, which is their argmax,
                `q_halt_logits`, `q_continue_logits`, `target_q_continue`), and metrics of each
                sequence (as `sequence_metrics`).

        Returns:
            The new carry; the weighted loss summed over the batch; metrics, summed over the
            sequences that halted and have labels, and unweighted losses, summed over all;
            what `return_keys` names, detached; whether all sequences halted (bool tensor).
        """
        carry = self.model.take_new_data(carry, batch)
        return self.compute(carry, self.model.look_up(carry), tuple(return_keys))

    def compute(
        self, carry: Carry, puzzle: Tensor | None, keys: tuple[str, ...]
    ) -> tuple[Carry, Tensor, dict[str, Tensor], dict[str, Tensor], Tensor]:
        """`forward` for a carry that has taken its data: all of it can be one graph."""
        carry, outputs = self.model.compute(carry, puzzle)
        labels = carry.current_data["labels"]
        losses = {n: v.sum() for n, v in self.sequence_losses(outputs, labels).items()}
        c = self.config
        loss = c.lm_loss_weight * losses["lm_loss"] + c.q_halt_weight * losses["q_halt_loss"]
        if "q_continue_loss" in losses:
            loss = loss + c.q_continue_weight * losses["q_continue_loss"]

        per_sequence = self.sequence_metrics(outputs, labels, carry.steps)
        metrics = {n: (m * carry.halted).sum() for n, m in per_sequence.items()}
        metrics |= {n: v.detach() for n, v in losses.items()}
        known = per_sequence | outputs
        if "preds" in keys:
            known["preds"] = outputs["logits"].argmax(-1)
        returned = {key: known[key].detach() for key in keys if key in known}
        return carry, loss, metrics, returned, carry.halted.all()
