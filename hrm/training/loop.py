"""The training loop, top to bottom."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from hrm.checkpoint import build_for
from hrm.checkpoint.layout import MANIFEST_FILE
from hrm.checkpoint.training import load_snapshot
from hrm.config import Halting
from hrm.data import PuzzleDataset
from hrm.data.format import TEST_SPLIT, TRAIN_SPLIT, fingerprint, read_metadata
from hrm.data.origin import identifiers_digest
from hrm.device import deterministic, free_memory, to_device
from hrm.errors import TrainingDiverged, UserError, install_command
from hrm.evaluation import EvaluationResult, evaluate
from hrm.progress import say
from hrm.ranks import Ranks
from hrm.tasks import Evaluator, Task
from hrm.threads import ThreadWatch
from hrm.training.config import PretrainConfig
from hrm.training.graph import can_capture, stepper
from hrm.training.interrupt import StopRequest
from hrm.training.loggers import Loggers, prefixed
from hrm.training.progress import TrainingProgress
from hrm.training.run_folder import (
    Start,
    check_is_shared,
    check_position,
    first_weights,
    last_good,
    may_resume,
    prepare,
    remove_if_empty,
    unused_name,
)
from hrm.training.saving import Checkpoints, code_version
from hrm.training.sizing import for_device
from hrm.training.snapshot import check, restore
from hrm.training.splits import open_data, open_evaluators, open_split
from hrm.training.stability import explain
from hrm.training.state import TrainState, scheduled_lr


@dataclass
class Job:
    """What the loop works with."""

    config: PretrainConfig
    ranks: Ranks
    device: torch.device
    train_set: PuzzleDataset
    test_set: PuzzleDataset | None
    test_sample: PuzzleDataset | None  # for all evaluations but the last
    evaluators: list[Evaluator]  # of the test set's task
    steps: int  # of the whole run
    state: TrainState
    loggers: Loggers
    progress: TrainingProgress
    checkpoints: Checkpoints
    stop: StopRequest
    threads: ThreadWatch


def train(config: PretrainConfig, ranks: Ranks, device: torch.device) -> Path:
    """Train as configured, from the beginning or from a checkpoint.

    Returns:
        The run's folder, with `metrics.jsonl` and the checkpoints `step_<n>/`.

    Raises:
        UserError: the data set, the batch sizes or the run folder do not allow it.
        TrainingDiverged: losses or gradients stay non-finite.
    """
    ranks.together(lambda: can_capture(config, ranks, device))
    metadata = ranks.together(lambda: read_metadata(config.data_path / TRAIN_SPLIT))
    [most_used] = ranks.maximum(-free_memory(device))
    config = ranks.agree(lambda: for_device(config, device, metadata, ranks.size, -most_used))
    train_set, test_set = ranks.together(lambda: open_data(config, ranks))
    evaluators = ranks.together(lambda: open_evaluators(config, test_set))
    digest = ranks.agree(lambda: check_before_work(config, train_set))
    with ExitStack() as cleanup:
        stop = cleanup.enter_context(StopRequest().listening())
        if config.deterministic:
            ranks.together(lambda: cleanup.enter_context(deterministic(device)))
        config = ranks.agree(lambda: with_run_name(config, cleanup))
        # Weights that are missing or do not fit are said before the folder is made.
        weights = None
        if not ranks.agree(lambda: may_resume(config)):
            weights = ranks.together(lambda: first_weights(config, metadata))
        start = ranks.agree(lambda: prepare(config, digest, say, cleanup))
        if start is None and weights is None:  # all checkpoints may be damaged
            weights = ranks.together(lambda: first_weights(config, metadata))
        ranks.together(lambda: check_is_shared(config.run_dir))
        job = open_job(
            config,
            ranks,
            device,
            train_set,
            test_set,
            evaluators,
            start=start,
            weights=weights,
            data_digest=digest,
            stop=stop,
            cleanup=cleanup,
        )
        evaluated = None if start is None else start.evaluation
        failed_at = 0
        while True:
            try:
                with job.stop.watched() if ranks.size > 1 else nullcontext():
                    run(job, evaluated)
                return config.run_dir
            except TrainingDiverged as error:
                evaluated = roll_back(job, error, failed_at)
                failed_at = max(failed_at, error.step)


def run(job: Job, evaluated: dict[str, float] | None) -> None:
    """Train from where the state stands to the end.

    Args:
        evaluated: metrics of the state's step, where it was evaluated before.
    """
    config, ranks, state, progress = job.config, job.ranks, job.state, job.progress
    keeps_evaluated = config.checkpoint_every_eval or bool(config.eval_save_outputs)
    step = stepper(state, config, ranks, job.device)
    (signal,) = ranks.maximum(job.stop.signal)
    if signal:
        sys.exit(128 + signal)
    for iteration in range(state.iteration, config.iterations):
        if iteration > state.iteration:
            state.iteration, state.batch = iteration, 0
        batches = job.train_set.batches_per_iteration(iteration)
        for _, host_batch, _ in job.train_set.iterate(iteration, state.batch):
            batch = to_device(host_batch, job.device)
            job.threads.start()
            step(batch)
            job.threads.done()
            state.batch += 1
            state.since_log += 1
            evaluated = None

            metrics: dict[str, float] = {}
            is_logged = state.since_log >= config.log_interval or state.step == job.steps
            if is_logged:
                metrics = state.sums.reduce(ranks)
                metrics["lr"] = scheduled_lr(config.lr, state, config)
                job.loggers.log(prefixed("train", metrics), state.step)
                state.since_log = 0
                check_soundness(job, batch)
            progress.update(metrics)
            job.stop.got_on()

            signal = overdue = 0
            if is_logged or ranks.size == 1:
                signal, overdue = ranks.maximum(job.stop.signal, job.checkpoints.is_overdue())
            if signal:
                save_and_exit(job, signal, keep=keeps_evaluated and state.batch == batches)
            is_due = overdue or job.checkpoints.is_due(state.step)
            if is_due and state.batch < batches:
                save(job)

        save(job, keep=keeps_evaluated)
        is_last = iteration == config.iterations - 1
        test_set = job.test_set if is_last else job.test_sample
        if test_set is not None:
            evaluated = evaluated or evaluate_state(job, test_set, is_last)
            update_best(state, evaluated)
            if config.early_stop and state.evaluations_since_best >= config.early_stop:
                progress.say(f"no better for {config.early_stop} evaluations; the run ends here")
                break
    save(job, wait=True)
    if state.best_step is not None:
        metric = state.best_metric.replace("_", " ")
        progress.say(f"best: step {state.best_step} with eval {metric} {state.best_value:.1%}")


def check_before_work(config: PretrainConfig, train_set: PuzzleDataset) -> str:
    """The fingerprint of the training data.

    Raises:
        UserError: the model cannot be built for the data, or the logger is not installed.
    """
    with torch.device("meta"):
        build_for(config, train_set.metadata)
    if config.arch.remark is not None:
        say(config.arch.remark)
    name = config.logger
    if name != "none" and find_spec(name) is None:
        raise UserError(f"logger={name}: not installed; {install_command(name)} or logger=none")
    code_version()  # asks git, which may be slow, while there is nothing to save yet
    return fingerprint(config.data_path / TRAIN_SPLIT, train_set.metadata)


def open_job(
    config: PretrainConfig,
    ranks: Ranks,
    device: torch.device,
    train_set: PuzzleDataset,
    test_set: PuzzleDataset | None,
    evaluators: list[Evaluator],
    start: Start | None,
    weights: Mapping[str, Tensor] | None,
    data_digest: str,
    stop: StopRequest,
    cleanup: ExitStack,
) -> Job:
    """Build the state, or restore it, and open what the loop writes to."""
    state = TrainState.create(config, train_set.metadata, device, ranks, weights)
    sizes = [train_set.batches_per_iteration(i) for i in range(config.iterations)]
    if start is not None:
        ranks.agree(lambda: check_position(start, sizes))
        load(state, start, config, ranks)
    steps, test_sample = sum(sizes), test_set
    if test_set is not None and config.eval_limit is not None:
        test_sample = open_split(config, ranks, TEST_SPLIT, config.eval_limit)
    progress = TrainingProgress(
        state.step, steps, config.global_batch_size, config.progress, ranks.is_first
    )
    cleanup.callback(progress.close)
    threads = ThreadWatch(device, "steps", progress.say)
    cleanup.callback(threads.close)
    if test_set is None:
        progress.say(f"{config.data_path}: no test split; evaluation is skipped")
    if start is not None and config.aggregated_voting:
        progress.say("aggregated_voting: checkpoints hold no votes; counting begins anew")

    wandb_run_id = None if start is None else start.values.get("wandb_run_id")
    record: dict[str, Any] = {"data": data_digest, "wandb_run_id": wandb_run_id}
    loggers = Loggers()
    if ranks.is_first:
        loggers = Loggers.open(config, state.step, wandb_run_id)
        record["wandb_run_id"] = loggers.wandb_run_id or wandb_run_id
        record["code"] = code_version()
        record["identifiers"] = identifiers_digest(config.data_path)
    cleanup.callback(loggers.close)
    checkpoints = Checkpoints(config, train_set.metadata, ranks, loggers, progress.say, record)
    cleanup.push(checkpoints.finish_unless_interrupted)
    checkpoints.reserve(state)
    if start is not None and start.checkpoint.parent.resolve() == config.run_dir.resolve():
        checkpoints.begin_after(state.step)
    elif start is not None:
        checkpoints.save(state, wait=True)
    return Job(
        config=config,
        ranks=ranks,
        device=device,
        train_set=train_set,
        test_set=test_set,
        test_sample=test_sample,
        evaluators=evaluators,
        steps=steps,
        state=state,
        loggers=loggers,
        progress=progress,
        checkpoints=checkpoints,
        stop=stop,
        threads=threads,
    )


def load(state: TrainState, start: Start, config: PretrainConfig, ranks: Ranks) -> None:
    """Put a checkpoint into the state of every rank."""

    def read() -> None:
        batch_size = config.global_batch_size
        snapshot = load_snapshot(start.checkpoint, ranks.rank, ranks.size, batch_size)
        check(state, snapshot, ranks, batch_size, start.checkpoint)
        restore(state, snapshot, ranks, config.local_micro_batch_size(ranks.size))

    ranks.together(read)


def with_run_name(config: PretrainConfig, cleanup: ExitStack | None = None) -> PretrainConfig:
    """The configuration with a run name where none was given.

    It is the folder's with `resume=<path>`, else architecture, date and time, with a number behind
    them where another run has that name. A folder that is made here and stays empty is removed.
    """
    if config.run_name is not None:
        return config
    if isinstance(config.resume, Path) and config.checkpoint_path is None:
        path = config.resume.resolve()
        run_dir = path if not (path / MANIFEST_FILE).is_file() else path.parent
        return config.model_copy(update={"run_name": run_dir.name, "checkpoint_path": run_dir})
    name = f"{config.arch.name.split('@')[0]}-{datetime.now():%Y%m%d-%H%M%S}"
    named = config.model_copy(update={"run_name": unused_name(config, name)})
    if cleanup is not None:
        cleanup.callback(remove_if_empty, named.run_dir)
    return named


def evaluate_state(job: Job, test_set: PuzzleDataset, is_last: bool) -> dict[str, float]:
    """Evaluate the running average where there is one, else the weights; log it; return that.

    A request to stop is answered here too: the checkpoint of this step was written before.
    """
    config, state = job.config, job.state
    all_steps = config.eval_halting == "max_steps" or (is_last and config.eval_halting != "learned")
    halting: Halting = "max_steps" if all_steps else "learned"

    def must_stop() -> bool:
        job.stop.got_on()
        (signal,) = job.ranks.maximum(job.stop.signal)
        return signal > 0

    with nullcontext() if state.ema is None else state.ema.applied():
        result = evaluate(
            state.model,
            test_set,
            job.device,
            job.ranks,
            halting,
            config.eval_save_outputs,
            must_stop,
            halt_probability=config.eval_halt_probability,
            max_steps=config.steps_at_most(halting),
            progress=job.progress.is_shown,
            evaluators=job.evaluators,
        )
    if result is None:
        (signal,) = job.ranks.maximum(job.stop.signal)
        save_and_exit(job, signal)
    assert result is not None
    outputs, artefacts = result.outputs, result.artefacts
    job.ranks.agree(lambda: job.checkpoints.add(state.step, outputs, artefacts))
    metrics = result.named()
    job.loggers.log(metrics, state.step)
    job.progress.say(summary(result, state))
    return metrics


def update_best(state: TrainState, evaluated: dict[str, float]) -> None:
    """Remember the best evaluation; one without the metric is no worse than others."""
    value, best = evaluated.get(f"eval/{state.best_metric}"), state.best_value
    if value is None:
        return
    state.evaluations_since_best += 1
    if best is None or value > best:
        state.best_value, state.best_step = value, state.step
        state.evaluations_since_best = 0


def save(job: Job, wait: bool = False, keep: bool = False) -> None:
    """Write a checkpoint, as `Checkpoints.save`."""
    with job.stop.saving():
        job.checkpoints.save(job.state, wait, keep)


def save_and_exit(job: Job, signal: int, keep: bool = False) -> NoReturn:
    """Save and exit, as a signal asked for."""
    save(job, wait=True, keep=keep)
    job.progress.say(f"stopped: step {job.state.step} saved in {job.config.run_dir}")
    sys.exit(128 + signal)


def check_soundness(job: Job, batch: dict[str, Tensor]) -> None:
    """Raise `TrainingDiverged`, on every rank, after too many unsound steps in a row."""
    state, stability = job.state, job.state.stability
    in_a_row = int(stability.in_a_row)
    if in_a_row >= job.config.max_skipped_steps:
        rows = {name: tensor[: len(state.carries[0].row)] for name, tensor in batch.items()}
        reason = explain(stability, state.model, state.carries[0], rows)
        step = int(stability.first_step)
        raise TrainingDiverged(f"{in_a_row} steps in a row were not finite; {reason}", step)


def roll_back(job: Job, error: TrainingDiverged, failed_at: int) -> dict[str, float] | None:
    """Return to the last good checkpoint; the evaluation of that step, as `Start.evaluation`.

    Raises:
        TrainingDiverged: there is none, or the run failed at this step before.
    """
    config, ranks, say = job.config, job.ranks, job.progress.say
    job.checkpoints.finish()

    def find() -> Start:
        start = None if error.step <= failed_at else last_good(config, say)
        if start is None:
            reason = f"{error}; no better from the last good checkpoint on" if failed_at else error
            raise TrainingDiverged(f"{reason}; try a lower lr, or grad_clip", error.step)
        say(f"warning: {error}; going back to {start.checkpoint}")
        return start

    start = ranks.agree(find)
    load(job.state, start, config, ranks)
    job.evaluators = ranks.together(lambda: open_evaluators(config, job.test_set))
    job.checkpoints.begin_after(job.state.step)
    job.loggers.go_back(job.state.step)
    job.progress.go_back(job.state.step)
    return start.evaluation


def summary(result: EvaluationResult, state: TrainState) -> str:
    m, best = result.overall, state.best_metric
    own = f"{best} {m[best]:.1%}, " if best in m and best != Task.best_metric else ""
    return (
        f"step {state.step}: eval {own}exact accuracy {m.get('exact_accuracy', 0):.1%}, token "
        f"accuracy {m.get('accuracy', 0):.1%}, ACT steps {m.get('steps', 0):.1f} on "
        f"{m['count']:.0f} puzzles"
    )
