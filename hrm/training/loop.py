"""The training loop, top to bottom."""

import shutil
import sys
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from hrm.checkpoint import (
    CONFIG_FILE,
    SOURCE_DIR,
    build_for,
    copy_model_source,
    save_checkpoint,
    save_predictions,
    step_dir,
)
from hrm.config import PretrainConfig, dump_yaml
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.format import has_split
from hrm.errors import UserError
from hrm.training.distributed import Ranks
from hrm.training.evaluation import EvaluationResult, evaluate
from hrm.training.interrupt import StopRequest
from hrm.training.metrics import (
    METRICS_FILE,
    JsonLinesLogger,
    Logger,
    MetricSums,
    Progress,
    WandbLogger,
    prefixed,
)
from hrm.training.state import TrainState, scheduled_lr, train_step


def train(config: PretrainConfig, ranks: Ranks, device: torch.device) -> Path:
    """Train as configured.

    Returns:
        The run's folder, with `metrics.jsonl` and the checkpoints `step_<n>/`.

    Raises:
        UserError: the data set, the batch sizes or the run folder do not allow it.
    """
    ranks.agree(lambda: check_before_work(config, ranks))
    train_set = open_split(config, ranks, "train")
    test_set = open_split(config, ranks, "test") if has_split(config.data_path, "test") else None
    state = TrainState.create(config, train_set.metadata, device, ranks)
    loggers = open_loggers(config) if ranks.is_first else []
    steps = sum(train_set.batches_per_iteration(i) for i in range(config.iterations))
    progress = Progress(steps, config.global_batch_size, config.progress, ranks.is_first)
    if test_set is None:
        progress.say(f"{config.data_path}: no test split; evaluation is skipped")

    sums, stop, since_log = MetricSums(), StopRequest(), 0
    with ExitStack() as cleanup:
        cleanup.callback(progress.close)
        for logger in loggers:
            cleanup.callback(logger.close)
        cleanup.enter_context(stop.listening())
        for iteration in range(config.iterations):
            for _, host_batch, _ in train_set.iterate(iteration):
                batch = to_device(host_batch, device)
                sums.add(train_step(state, batch, config, ranks))
                metrics: dict[str, float] = {}
                since_log += 1
                if since_log == config.log_interval or state.step == steps:
                    metrics = sums.reduce(ranks, config.global_batch_size * since_log)
                    metrics["lr"] = scheduled_lr(config.lr, state, config)
                    log(loggers, prefixed("train", metrics), state.step)
                    since_log = 0
                progress.update(metrics)
                if ranks.size == 1 or since_log == 0:
                    if code := stop.exit_code(ranks):
                        ranks.agree(partial(save, state, config, train_set))
                        progress.say(f"stopped: step {state.step} saved in {config.run_dir}")
                        sys.exit(code)

            last = iteration == config.iterations - 1
            saved = last or config.checkpoint_every_eval or bool(config.eval_save_outputs)
            if saved:
                teller = None if last else progress
                ranks.agree(partial(save, state, config, train_set, teller))
            if test_set is not None:
                result = evaluate_state(state, test_set, device, ranks, config)
                log(loggers, result.named(), state.step)
                progress.say(summary(result, state.step))
                if result.outputs and step_dir(config.run_dir, state.step).is_dir():
                    save_predictions(step_dir(config.run_dir, state.step), result.outputs)
    return config.run_dir


def check_before_work(config: PretrainConfig, ranks: Ranks) -> None:
    """Raise `UserError` for whatever is wrong with batch sizes, data set or run folder."""
    config.local_micro_batch_size(ranks.size)
    metadata = open_split(config, ranks, "train").metadata
    if has_split(config.data_path, "test"):
        open_split(config, ranks, "test")
    with torch.device("meta"):
        build_for(config, metadata)
    if config.logger == "wandb" and find_spec("wandb") is None:
        raise UserError("logger=wandb: not installed; pip install 'hrm[wandb]' or logger=none")
    prepare_run_dir(config)


def open_split(config: PretrainConfig, ranks: Ranks, split: str) -> PuzzleDataset:
    """This rank's share of the training or the test split."""
    test = split == "test"
    return PuzzleDataset(
        PuzzleDatasetConfig(
            seed=config.seed,
            dataset_path=config.data_path,
            global_batch_size=config.global_batch_size,
            test_set_mode=test,
            epochs_per_iter=1 if test else config.epochs_per_iteration,
            rank=ranks.rank,
            num_replicas=ranks.size,
            puzzle_emb_dropout=0.0 if test else config.puzzle_emb_dropout,
        ),
        split=split,
    )


def with_run_name(config: PretrainConfig) -> PretrainConfig:
    """The configuration with a run name: architecture, date and time where none was given."""
    if config.run_name is not None:
        return config
    name = f"{config.arch.name.split('@')[0]}-{datetime.now():%Y%m%d-%H%M%S}"
    return config.model_copy(update={"run_name": name})


def prepare_run_dir(config: PretrainConfig) -> None:
    """Create the run's folder, with the configuration and the model's source.

    Raises:
        UserError: an earlier run has that name and `overwrite` is off, or it is not writable.
    """
    run_dir = config.run_dir
    try:
        if run_dir.exists() and any(run_dir.iterdir()):
            if not config.overwrite:
                raise UserError(
                    f"run_name={config.run_name}: {run_dir} exists; "
                    "choose another run_name or give overwrite=true"
                )
            if not (run_dir / CONFIG_FILE).is_file():
                raise UserError(f"{run_dir}: is not a run's folder; overwrite=true leaves it alone")
            old = run_dir.with_name(f".{run_dir.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(run_dir.rename(old))
        run_dir.mkdir(parents=True, exist_ok=True)
        dump_yaml(config, run_dir / CONFIG_FILE)
        copy_model_source(run_dir / SOURCE_DIR)
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be written ({error.strerror})") from None


def open_loggers(config: PretrainConfig) -> list[Logger]:
    """`metrics.jsonl` always; W&B when asked for."""
    run_dir = config.run_dir
    loggers: list[Logger] = [JsonLinesLogger(run_dir / METRICS_FILE)]
    if config.logger == "wandb":
        project, run_name = config.project_name or config.data_path.name, config.run_name or ""
        values = config.model_dump(mode="json")
        loggers.append(WandbLogger(project, run_name, values, run_dir, run_dir / SOURCE_DIR))
    return loggers


def log(loggers: list[Logger], metrics: dict[str, float], step: int) -> None:
    for logger in loggers:
        logger.log(metrics, step)


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copy a batch; on CUDA from pinned memory, without waiting."""
    if device.type == "cuda":
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def evaluate_state(
    state: TrainState,
    test_set: PuzzleDataset,
    device: torch.device,
    ranks: Ranks,
    config: PretrainConfig,
) -> EvaluationResult:
    """Evaluate the running average where there is one, else the weights."""

    def run() -> EvaluationResult:
        return evaluate(
            state.model, test_set, device, ranks, config.eval_halting, config.eval_save_outputs
        )

    if state.ema is None:
        return run()
    with state.ema.applied():
        return run()


def save(
    state: TrainState,
    config: PretrainConfig,
    train_set: PuzzleDataset,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint. One that cannot be written is told by `progress`, else it is an error."""
    ema = None if state.ema is None else state.ema.state_dict()
    weights = state.model.state_dict()
    try:
        save_checkpoint(config.run_dir, state.step, config, train_set.metadata, weights, ema)
    except UserError as error:
        if progress is None:
            raise
        progress.say(f"warning: {error}; training goes on")


def summary(result: EvaluationResult, step: int) -> str:
    m = result.overall
    return (
        f"step {step}: eval exact accuracy {m.get('exact_accuracy', 0):.1%}, token accuracy "
        f"{m.get('accuracy', 0):.1%}, ACT steps {m.get('steps', 0):.1f} on {m['count']:.0f} puzzles"
    )
