"""Evaluation: every puzzle of a split, all ACT steps or learned halting, sharded over the ranks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hrm.data import PuzzleDataset
from hrm.data.format import IGNORE_LABEL_ID
from hrm.device import to_device
from hrm.models.losses import ACTLossHead
from hrm.rollout import Halting, rollout
from hrm.training.distributed import Ranks
from hrm.training.metrics import MetricSums


@dataclass
class EvaluationResult:
    """Metrics over all sets, per set, and the outputs that were asked for."""

    overall: dict[str, float]
    per_set: dict[str, dict[str, float]]
    outputs: dict[str, Tensor] = field(default_factory=dict)  # [examples, …], in data order

    def named(self) -> dict[str, float]:
        """As logged: `eval/<name>`, and `eval/<set>/<name>` where there are several sets."""
        names = {f"eval/{name}": value for name, value in self.overall.items()}
        if len(self.per_set) > 1:
            for set_name, metrics in self.per_set.items():
                names |= {f"eval/{set_name}/{name}": value for name, value in metrics.items()}
        return names


@torch.inference_mode()
def evaluate(
    model: ACTLossHead,
    dataset: PuzzleDataset,
    device: torch.device,
    ranks: Ranks,
    halting: Halting = "max_steps",
    output_keys: Iterable[str] = (),
    must_stop: Callable[[], bool] = lambda: False,
) -> EvaluationResult | None:
    """Run a split and divide every metric by the number of puzzles.

    `must_stop` is asked before every batch, on all ranks; None is returned when it says so.

    A puzzle's metrics and outputs are those of the step at which it halts. Padding rows count
    nowhere, so neither the batch size nor the number of ranks changes a result.
    """
    was_training = model.training
    model.eval()
    per_set: dict[str, MetricSums] = {name: MetricSums() for name in dataset.metadata.sets}
    outputs: dict[str, list[Tensor]] = {key: [] for key in output_keys}
    for set_name, host_batch, size in dataset:
        if must_stop():
            model.train(was_training)
            return None
        batch = to_device(host_batch, device)
        chosen: dict[str, Tensor] = {}
        for step in rollout(model, batch, halting):
            if not step.halting.any():
                continue
            sequence = model.sequence_metrics(step.outputs, batch["labels"], step.carry.steps)
            losses = model.sequence_losses(step.outputs, batch["labels"])
            labelled = (batch["labels"] != IGNORE_LABEL_ID).any(-1)
            counted = step.halting & labelled
            per_set[set_name].add(
                {n: torch.where(counted, v, 0).sum() for n, v in (sequence | losses).items()}
            )
            if outputs:
                available = {**batch, **step.outputs, "steps": step.carry.steps}
                available["predictions"] = step.outputs["logits"].argmax(-1).to(torch.int32)
                for key in outputs:
                    new = available[key]
                    mask = step.halting.view(-1, *[1] * (new.ndim - 1))
                    chosen[key] = torch.where(mask, new, chosen[key]) if key in chosen else new
        for key in outputs:
            rows = ranks.gather_rows(chosen[key])[:size]
            if ranks.is_first:
                outputs[key].append(rows.cpu())
    model.train(was_training)

    overall = MetricSums()
    for sums in per_set.values():
        overall.add(sums.totals())
    return EvaluationResult(
        overall=overall.reduce(ranks),
        per_set={name: sums.reduce(ranks) for name, sums in per_set.items()},
        outputs={key: torch.cat(parts) for key, parts in outputs.items() if parts},
    )
