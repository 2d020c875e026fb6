"""`hrm evaluate`: metrics of a checkpoint on a split of a data set."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, model_validator

from hrm.cli.options import SchemaCommand
from hrm.config import (
    CompileMode,
    Config,
    Count,
    DeviceName,
    FileName,
    Fraction,
    Halting,
    NonNegative,
    OutputKey,
    PositiveInt,
    Seed,
    Select,
    Switch,
    WeightsName,
    flag,
    refuse_idle_noise,
)
from hrm.errors import UserError, write_output
from hrm.signals import ending_at_once

if TYPE_CHECKING:
    import torch

    from hrm.attempts import Plan
    from hrm.checkpoint import Checkpoint
    from hrm.data import PuzzleDataset
    from hrm.evaluation import EvaluationResult
    from hrm.ranks import Ranks

COUNT_FOR_PREDICTIONS = {"predictions", "data_path", "split", "artefacts_dir"}
VOTING = {  # as evaluators name what is saved
    "inputs": "inputs",
    "puzzle_identifiers": "puzzle_identifiers",
    "preds": "predictions",
    "q_halt_logits": "q_halt_logits",
}
ROWS = 1024  # of saved outputs that are read at a time
WORTH_COMPILING = 50_000  # ACT steps of single puzzles


HELP = """
hrm evaluate checkpoints/quickstart/first
hrm evaluate checkpoints/quickstart/first/step_900 --halting learned
hrm evaluate --predictions step_900/predictions.safetensors --data-path data/arc
torchrun --nproc-per-node 8 -m hrm evaluate checkpoints/sudoku/night

Measure a checkpoint on puzzles that it was not trained on, and print the
metrics as JSON. A run's folder stands for its newest checkpoint. What is not
given is as in training.
"""


class EvaluateConfig(Config):
    """What is measured, and how. None means: as the checkpoint was trained."""

    checkpoint: Path | None = Field(None, description="folder of a checkpoint or of a run")
    data_path: Path | None = Field(None, description="data set; if not given, that of training")
    predictions: tuple[Path, ...] = Field(
        (),
        description="instead of a checkpoint: saved outputs, which vote together (ARC)",
        json_schema_extra={"metavar": "FILE,…"},
    )
    split: FileName = Field("test", description="which part of the data set")
    halting: Halting = Field("max_steps", description="all steps, or until sure")
    halt_probability: Fraction | None = Field(None, description="learned: how sure it must be")
    steps: PositiveInt | None = Field(None, description="ACT steps at most (the run's own)")
    restarts: Count = Field(0, description="also N other start states")
    noise: NonNegative = Field(0.0, description="on the states before each step, in rollouts")
    rollouts: PositiveInt = Field(1, description="then N in all, the first without noise")
    guesses: Count = Field(0, description="then N with guesses, at most")
    select: Select | None = Field(
        None, description="which answer counts; if not given, valid where rules are known"
    )
    seed: Seed = Field(0, description="of the start states and the noise")
    global_batch_size: PositiveInt | None = Field(
        None, description="puzzles side by side, over all ranks; as in training, on a CPU few"
    )
    weights: WeightsName = Field("auto", description="auto: averaged ones if saved")
    allow_leakage: bool = Field(
        False, description="go on where the model may have been trained on the puzzles"
    )
    eval_save_outputs: tuple[OutputKey, ...] = Field(
        (), description="save e.g. predictions,labels,steps"
    )
    artefacts_dir: Path | None = Field(
        None, description="for files such as ARC's submission; if not given, the checkpoint"
    )
    device: DeviceName = Field("auto", description="where to compute")
    compile: Switch = Field("auto", description="auto: where it saves time")

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        if self.predictions:
            if idle := sorted(self.model_fields_set - COUNT_FOR_PREDICTIONS):
                raise ValueError(f"{idle[0]} does not go with predictions; leave one of them out")
            if self.data_path is None:
                raise ValueError("predictions: name the data set that they are of by data_path")
        elif self.checkpoint is None:
            raise ValueError("checkpoint: is required")
        if self.halt_probability is not None and self.halting != "learned":
            raise ValueError("halt_probability counts only with halting=learned; give both")
        refuse_idle_noise(self.noise, self.rollouts)
        return self


def run(read: Callable[[], EvaluateConfig]) -> None:
    """Evaluate on every rank of the job; the first prints."""
    from hrm.checkpoint import load_checkpoint
    from hrm.device import compile_model, keep_memory, pick_device
    from hrm.evaluation import evaluate
    from hrm.ranks import Ranks

    keep_memory()
    ranks = Ranks.from_environment()
    # A rank that waits for others, which have ended, could not tidy up.
    with ending_at_once() if ranks.size > 1 else nullcontext(), ranks.connected():
        config = ranks.agree(read)
        if config.predictions:
            return ranks.agree(lambda: vote(config))
        device = ranks.together(lambda: pick_device(config.device, ranks.local_rank))
        path = cast(Path, config.checkpoint)
        checkpoint = ranks.together(lambda: load_checkpoint(path, config.weights, config.data_path))
        data_path, is_known = ranks.agree(lambda: meet_data(config, checkpoint))
        dataset = ranks.together(
            lambda: open_dataset(config, checkpoint, data_path, is_known, ranks, device)
        )
        plan = ranks.together(lambda: plan_of(config, dataset))
        model = checkpoint.model.to(device).eval()
        compile_model(model, compile_mode(config, checkpoint, dataset), device)
        probability = config.halt_probability
        if probability is None:
            probability = checkpoint.config.eval_halt_probability
        result = evaluate(
            model,
            dataset,
            device,
            ranks,
            config.halting,
            config.eval_save_outputs,
            halt_probability=probability,
            progress=ranks.is_first,
            max_steps=config.steps or checkpoint.config.steps_at_most(config.halting),
            must_stop=lambda: ranks.maximum(0)[0] > 0,  # never; no rank gets far ahead of others
            plan=plan,
        )
        assert result is not None
        metrics = {"step": checkpoint.step, **result.named()}
        ranks.agree(lambda: report(config, metrics, result, checkpoint.path))


def vote(config: EvaluateConfig) -> None:
    """Let saved predictions vote, without a model.

    Raises:
        UserError: a file lacks what is needed, or the data set's task has no votes.
    """
    from hrm.checkpoint import read_rows
    from hrm.data.format import read_metadata
    from hrm.evaluation import EvaluationResult
    from hrm.ranks import ALONE
    from hrm.tasks import VotingEvaluator, task_of

    assert config.data_path is not None
    split = config.data_path / config.split
    of_task = task_of(read_metadata(split)).evaluators(config.data_path, config.split)
    evaluators = [each for each in of_task if isinstance(each, VotingEvaluator)]
    if not evaluators:
        raise UserError(f"predictions: nothing is voted on in {split}; evaluate a checkpoint on it")
    for file in config.predictions:
        for rows in read_rows(file, list(VOTING.values()), ROWS):
            for evaluator in evaluators:
                evaluator.add({name: rows[saved] for name, saved in VOTING.items()})
    result = EvaluationResult({}, {})
    result.take_in(evaluators, ALONE)
    report(config, result.named(), result)


def report(
    config: EvaluateConfig,
    metrics: dict[str, Any],
    result: "EvaluationResult",
    checkpoint: Path | None = None,
) -> None:
    """Print metrics, and write outputs and what evaluators have left where there is a place for it.

    Raises:
        UserError: it cannot be written; the metrics are printed before.
    """
    from hrm.checkpoint import save_artefacts, save_predictions
    from hrm.files import write_texts

    write_output(f"{json.dumps(metrics, indent=2)}\n")
    if checkpoint is not None and config.eval_save_outputs:
        path = save_predictions(checkpoint, result.outputs)
        print(f"outputs saved in {path}", file=sys.stderr)
    written = []
    if config.artefacts_dir is not None:
        written = write_texts(config.artefacts_dir, result.artefacts)
    elif checkpoint is not None:
        written = save_artefacts(checkpoint, result.artefacts)
    for path in written:
        print(f"written: {path}", file=sys.stderr)


command = SchemaCommand("evaluate", EvaluateConfig, run, HELP, first="checkpoint")


def meet_data(config: EvaluateConfig, checkpoint: "Checkpoint") -> tuple[Path, bool]:
    """The data set to evaluate on, and whether its identifiers are rows of the model's table.

    Says on stderr what is not known of them.

    Raises:
        UserError: it is missing, does not fit the model, or may have been trained on.
    """
    from hrm.data.fit import check_fits
    from hrm.data.format import read_metadata
    from hrm.data.missing import training_data
    from hrm.data.origin import compare_data, unknown_identifiers

    trained = checkpoint.config.data_path
    data_path = config.data_path or training_data(trained, flag("data_path"))
    given, ours = read_metadata(data_path / config.split), checkpoint.metadata
    check_fits(ours, given, f"data_path={data_path}")
    meeting = compare_data(checkpoint.origin, trained, data_path, config.split)
    if meeting.seen and not config.allow_leakage:
        raise UserError(f"{meeting.seen}; name the right data by data_path, or --allow-leakage")
    is_known = meeting.knows_identifiers
    is_known &= given.num_puzzle_identifiers <= ours.num_puzzle_identifiers
    notes = [meeting.seen, meeting.note]
    notes += [] if is_known else [unknown_identifiers(data_path, ours)]
    for note in filter(None, notes):
        print(f"note: {note}", file=sys.stderr)
    return data_path, is_known


def open_dataset(
    config: EvaluateConfig,
    checkpoint: "Checkpoint",
    data_path: Path,
    knows_identifiers: bool,
    ranks: "Ranks",
    device: "torch.device",
) -> "PuzzleDataset":
    """The split to evaluate, in batches as in training unless their size is given; few on a CPU.

    Raises:
        UserError: it is damaged.
    """
    from hrm.data import PuzzleDataset, PuzzleDatasetConfig
    from hrm.device import micro_batch_size

    trained, unseen = checkpoint.config, checkpoint.metadata.unseen_identifier
    rows, arch = (
        max(1, trained.global_batch_size // ranks.size),
        checkpoint.model.model.inner.config,
    )
    if device.type == "cpu":
        rows = micro_batch_size(rows, arch.state_numbers(arch.seq_len, arch.vocab_size))
    return PuzzleDataset(
        PuzzleDatasetConfig(
            seed=trained.seed,
            dataset_path=data_path,
            global_batch_size=config.global_batch_size or rows * ranks.size,
            test_set_mode=True,
            epochs_per_iter=1,
            rank=ranks.rank,
            num_replicas=ranks.size,
            unseen_identifier=None if knows_identifiers else unseen,
        ),
        split=config.split,
    )


def plan_of(config: EvaluateConfig, dataset: "PuzzleDataset") -> "Plan | None":
    """The attempts that are made at each puzzle; None: only the puzzle as it is.

    Raises:
        UserError: the answer is to be valid, and the task has no rules.
    """
    from hrm.attempts import plan_attempts
    from hrm.tasks import task_of

    keys = ("restarts", "noise", "rollouts", "guesses", "select", "seed")
    tries = {key: getattr(config, key) for key in keys}
    plan = plan_attempts(task_of(dataset.metadata), **tries)
    return plan if len(plan.attempts) > 1 or plan.guesses else None


def compile_mode(
    config: EvaluateConfig, checkpoint: "Checkpoint", dataset: "PuzzleDataset"
) -> CompileMode:
    """As configured; `auto` compiles where all steps of many puzzles are to be taken."""
    if config.compile != "auto":
        return config.compile
    limit = config.steps or checkpoint.config.steps_at_most(config.halting)
    steps = dataset.examples * limit
    return "auto" if config.halting == "max_steps" and steps >= WORTH_COMPILING else "false"
