"""Evaluation: every puzzle of a split, all ACT steps or learned halting, sharded over the ranks.

What is found out is the business of evaluators, which see each puzzle once, when it halts. They
keep sums or votes, not logits.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, repeat
from operator import itemgetter
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hrm.attempts import Attempt, Plan, RolloutOptions, Wave, answers_of, run_wave, search
from hrm.config import Halting
from hrm.data import PuzzleDataset
from hrm.data.format import IGNORE_LABEL_ID
from hrm.data.puzzle_dataset import NamedBatch
from hrm.device import is_compiled, to_device
from hrm.metrics import MetricSums
from hrm.models.losses import ACTLossHead
from hrm.progress import Progress
from hrm.ranks import Ranks
from hrm.rollout import RolloutStep, halved, rollout
from hrm.tasks import Evaluator, Task, task_of
from hrm.threads import ThreadWatch


@dataclass
class EvaluationResult:
    """Metrics over all sets (the task's among them), per set, and the outputs asked for."""

    overall: dict[str, float]
    per_set: dict[str, dict[str, float]]
    outputs: dict[str, Tensor] = field(default_factory=dict)  # [examples, …], in data order
    artefacts: dict[str, str] = field(default_factory=dict)  # of the task's evaluators, on rank 0

    def take_in(self, evaluators: Iterable[Evaluator], ranks: Ranks) -> None:
        """Add what evaluators of a task have found out on all ranks."""
        for evaluator in evaluators:
            metrics, artefacts = evaluator.reduce(ranks)
            self.overall |= metrics
            self.artefacts |= artefacts

    def named(self) -> dict[str, float]:
        """As logged: `eval/<name>`, and `eval/<set>/<name>` where there are several sets."""
        names = {f"eval/{name}": value for name, value in self.overall.items()}
        if len(self.per_set) > 1:
            for set_name, metrics in self.per_set.items():
                names |= {f"eval/{set_name}/{name}": value for name, value in metrics.items()}
        return names


# What becomes of the padding of a last batch, whose rows cost all steps. "few rows" keeps as much
# as makes it a batch halved some times. "few shapes" keeps all of it behind larger batches: a
# compiled model would take longer to be compiled for another shape.
Padding = Literal["dropped", "few rows", "few shapes"]


class _Stopped(Exception):
    """Evaluation is to end early."""


@torch.inference_mode()
def evaluate(
    model: ACTLossHead,
    dataset: PuzzleDataset,
    device: torch.device,
    ranks: Ranks,
    halting: Halting = "max_steps",
    output_keys: Iterable[str] = (),
    must_stop: Callable[[], bool] = lambda: False,
    halt_probability: float = 0.0,
    progress: bool = False,
    max_steps: int | None = None,
    plan: Plan | None = None,
    evaluators: Sequence[Evaluator] | None = None,
) -> EvaluationResult | None:
    """Run a split and divide every metric by the number of puzzles; halting and steps as of
    `rollout`.

    `must_stop` is asked whenever a batch is read, as often on every rank; None is returned when it
    says so. With learned halting ranks take different numbers of ACT steps in between.

    A puzzle's metrics and outputs are those of the step at which it halts. Padding rows count
    nowhere, so neither the batch size nor the number of ranks changes a result. With a `plan` of
    several attempts these are the metrics of the answers that count, but `steps`, which are those
    of all attempts.

    `progress` is shown where evaluation takes long, as that of this rank. `evaluators` are those of
    the task, as `evaluators_of` makes them; None: new ones.

    Raises:
        UserError: as `evaluators_of`.
    """

    def batches() -> Iterator[NamedBatch]:
        for batch in dataset:
            if must_stop():
                raise _Stopped
            yield batch

    per_set = {name: MetricsEvaluator(model) for name in dataset.metadata.sets}
    task = task_of(dataset.metadata)
    of_task = evaluators
    if of_task is None:
        of_task = ranks.together(lambda: evaluators_of(dataset))
    outputs: dict[str, list[Tensor]] = {key: [] for key in output_keys}
    padding: Padding = "dropped"
    if halting == "max_steps" and plan is None:
        padding = "few shapes" if is_compiled(model) else "few rows"
    limit = max_steps or model.model.config.halt_max_steps
    is_whole = halting == "learned" or plan is not None  # a puzzle counts when it has ended
    before = 0  # puzzles of other sets
    shown = Progress("puzzles evaluated", dataset.examples, enabled=progress)
    threads = ThreadWatch(device, "puzzles")
    was_training = model.training
    model.eval()
    try:
        for set_name, of_set in groupby(batches(), key=itemgetter(0)):
            share = _Share(of_set, ranks, device, padding, before)
            kept: list[tuple[Tensor, dict[str, Tensor]]] = []
            thinking = halting, halt_probability, max_steps
            if plan is None:
                steps = rollout(model, share, *thinking)
            else:
                steps = _answers_that_count(model, task, share, plan, *thinking)
            threads.start()
            for step in steps:
                counts = torch.stack([step.halting.sum(), step.running.sum()])
                ended, taken = counts.tolist()
                threads.done(taken if plan is None else max(ended, 1))
                shown.update((ended if is_whole else taken / limit) * ranks.size)
                if step.halting.any():
                    answer = step.select(step.halting)
                    per_set[set_name].update(answer)
                    for evaluator in of_task:
                        evaluator.update(answer)
                    if outputs:
                        named = named_outputs(answer)
                        kept.append((answer.index, {key: named[key].cpu() for key in outputs}))
            for key, parts in outputs.items():
                parts += share.gather([(index, values[key]) for index, values in kept])
            before += sum(share.sizes)
    except _Stopped:
        return None
    finally:
        shown.close()
        threads.close()
        model.train(was_training)

    overall = MetricSums()
    for measured in per_set.values():
        overall.add(measured.sums.totals())
    result = EvaluationResult(
        overall=overall.reduce(ranks),
        per_set={name: evaluator.reduce(ranks)[0] for name, evaluator in per_set.items()},
        outputs={key: torch.cat(parts) for key, parts in outputs.items() if parts},
    )
    result.take_in(of_task, ranks)
    return result


def evaluators_of(dataset: PuzzleDataset, aggregated_voting: bool = False) -> list[Evaluator]:
    """The evaluators of a data set's task, as `Task.evaluators`.

    They know puzzles by their identifiers; where these are unknown, there are none.
    """
    config = dataset.config
    if config.unseen_identifier is not None:
        return []
    task = task_of(dataset.metadata)
    return task.evaluators(config.dataset_path, dataset.split, aggregated_voting)


@dataclass(frozen=True)
class _Ended:
    """The end of an attempt, as answers are compared by."""

    attempt: int
    steps: int
    tokens: np.ndarray
    valid: bool | None
    halt_probability: float
    probabilities: np.ndarray | None
    row: int  # of the outputs


def _answers_that_count(
    model: ACTLossHead,
    task: Task,
    share: "_Share",
    plan: Plan,
    halting: Halting,
    halt_probability: float,
    max_steps: int | None,
) -> Iterator[RolloutStep]:
    """Of each batch the answers that count, as if all were given in one step."""
    begun = 0
    for batch in share:
        size = len(batch["inputs"])
        positions = torch.arange(size) + share.first
        how = RolloutOptions(halting, halt_probability, max_steps, batch_size=share.rows)
        step = _try(model, task, batch, positions, plan, how)
        yield replace(step, index=torch.arange(size) + begun)
        begun += size


def _try(
    model: ACTLossHead,
    task: Task,
    batch: dict[str, Tensor],
    positions: Tensor,
    plan: Plan,
    how: RolloutOptions,
) -> RolloutStep:
    """All attempts at a batch's puzzles: the answers that count, and the steps of all attempts."""
    device, inputs = batch["inputs"].device, batch["inputs"].cpu().numpy()
    outputs: list[dict[str, Tensor]] = []
    done = 0

    def run(
        rows: np.ndarray, asked: np.ndarray, wave: Wave, before: int
    ) -> Iterator[tuple[int, _Ended]]:
        nonlocal done
        at = torch.from_numpy(rows)
        given = {name: values[at.to(device)] for name, values in batch.items()}
        given["inputs"] = torch.from_numpy(asked)
        for step in run_wave(model, task, given, positions[at], plan, wave, how, device):
            if not step.halting.any():
                continue
            ended = step.select(step.halting)
            outputs.append(ended.outputs)
            numbers = ended.index.numpy()
            asked_at = inputs[rows[numbers // len(wave)]]
            tokens = answers_of(ended, wave[0], task, asked_at)
            ends = zip(
                (numbers % len(wave) + before + 1).tolist(),
                ended.steps.tolist(),
                tokens,
                task.are_valid(tokens, asked_at),
                ended.outputs["q_halt_logits"].sigmoid().tolist(),
                _probabilities(ended, wave[0]) if plan.guesses else repeat(None, len(tokens)),
                range(done, done + len(numbers)),
                strict=True,
            )
            done += len(numbers)
            for number, end in zip(numbers.tolist(), ends, strict=True):
                yield number // len(wave), _Ended(*end)

    found, costs = search(plan, task, inputs, run)
    chosen = torch.tensor([end.row for end in found], device=device)
    every = torch.ones(len(inputs), dtype=torch.bool)
    return RolloutStep(
        index=positions,
        running=every,
        halting=every,
        steps=torch.tensor(costs, dtype=torch.int32, device=device),
        data=batch,
        outputs={n: torch.cat([part[n] for part in outputs])[chosen] for n in outputs[0]},
    )


def _probabilities(step: RolloutStep, attempt: Attempt) -> np.ndarray:
    """Of every token in every cell of the puzzles' answers, [B, T, V] float32."""
    return attempt.undo_probabilities(step.outputs["logits"].float().softmax(-1).cpu().numpy())


class MetricsEvaluator:
    """The metrics and losses that all tasks have, as means over the puzzles with labels."""

    def __init__(self, model: ACTLossHead):
        self.sums = MetricSums()
        self._model = model

    def update(self, step: RolloutStep) -> None:
        """Take in puzzles that halt in this step."""
        labels = step.data["labels"]
        sequence = self._model.sequence_metrics(step.outputs, labels, step.steps)
        losses = self._model.sequence_losses(step.outputs, labels)
        labelled = (labels != IGNORE_LABEL_ID).any(-1)
        values = (sequence | losses).items()
        self.sums.add({name: torch.where(labelled, v, 0).sum() for name, v in values})

    def reduce(self, ranks: Ranks) -> tuple[dict[str, float], dict[str, str]]:
        """Metrics of all ranks; no artefacts."""
        return self.sums.reduce(ranks), {}


def named_outputs(step: RolloutStep) -> dict[str, Tensor]:
    """What `eval_save_outputs` can name, of every sequence of a step."""
    predictions = step.outputs["logits"].argmax(-1).to(torch.int32)
    return {**step.data, **step.outputs, "steps": step.steps, "predictions": predictions}


@dataclass
class _Share:
    """This rank's rows of a set's batches: a stream of batches, and the way back to data order.

    A rank runs one row at least of every batch, if need be a row of padding: so all ranks have the
    same metrics, and outputs of the same kind.
    """

    batches: Iterable[NamedBatch]
    ranks: Ranks
    device: torch.device
    padding: Padding
    before: int  # puzzles of the sets before
    rows: int = 0  # of this rank in a batch
    sizes: list[int] = field(default_factory=list)  # puzzles in each batch that was read

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for _, batch, size in self.batches:
            self.rows = len(batch["inputs"])
            self.sizes.append(size)
            stop = self._rows_to_run(max(1, size - self.ranks.rank * self.rows))
            yield to_device({name: rows[:stop] for name, rows in batch.items()}, self.device)

    @property
    def first(self) -> int:
        """Position in the data set of the first row of the batch that was read last."""
        return self.before + sum(self.sizes[:-1]) + self.ranks.rank * self.rows

    def _rows_to_run(self, puzzles: int) -> int:
        if self.padding == "dropped" or puzzles >= self.rows:
            return puzzles
        if self.padding == "few shapes" and len(self.sizes) > 1:
            return self.rows
        return halved(self.rows, puzzles)

    def gather(self, parts: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """One tensor of all ranks in data order, [puzzles, …], on rank 0; nothing elsewhere.

        Args:
            parts: (index in this stream [n], values [n, …]), on the host.
        """
        first = parts[0][1]
        mine = first.new_zeros(len(self.sizes) * self.rows, *first.shape[1:])
        for index, values in parts:
            mine[index] = values
        shares = self.ranks.collect({"": mine}).get("", [])
        # Rows of all ranks stand in the order: batch, rank, row.
        by_batch = [share.unflatten(0, (-1, self.rows)) for share in shares]
        return [torch.stack(by_batch, 1).flatten(0, 2)[: sum(self.sizes)]] if by_batch else []
