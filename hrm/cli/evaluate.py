"""Evaluate a checkpoint: `python evaluate.py checkpoint=checkpoints/<project>/<run>/step_<n>`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import model_validator

from hrm.checkpoint import Checkpoint, RunConfig, load_checkpoint, save_predictions
from hrm.config import (
    Config,
    FileName,
    Fraction,
    PositiveInt,
    WeightsName,
    parse_arguments,
    validate,
)
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.format import DatasetMetadata
from hrm.device import Compile, CompileMode, DeviceName, compile_model, keep_memory, pick_device
from hrm.errors import UserError
from hrm.evaluation import OutputKey, evaluate
from hrm.ranks import Ranks
from hrm.rollout import Halting

WORTH_COMPILING = 50_000  # ACT steps of single puzzles


class EvaluateConfig(Config):
    """What `evaluate.py` reads. None means: as the checkpoint was trained."""

    checkpoint: Path
    data_path: Path | None = None
    split: FileName = "test"
    halting: Halting = "max_steps"
    halt_probability: Fraction | None = None
    global_batch_size: PositiveInt | None = None
    weights: WeightsName = "auto"
    eval_save_outputs: tuple[OutputKey, ...] = ()
    device: DeviceName = "auto"
    compile: Compile = "auto"

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        if self.halt_probability is not None and self.halting != "learned":
            raise ValueError("halt_probability counts only with halting=learned; give both")
        return self


def load_evaluate_config(arguments: Sequence[str]) -> EvaluateConfig:
    """Parse `key=value` arguments."""
    return validate(EvaluateConfig, parse_arguments(arguments), "evaluate.py")


KEYS = ", ".join(EvaluateConfig.model_fields)


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\n\nkeys: {KEYS}")
        return
    keep_memory()
    ranks = Ranks.from_environment()
    with ranks.connected():
        config = ranks.agree(lambda: load_evaluate_config(sys.argv[1:]))
        device = ranks.together(lambda: pick_device(config.device, ranks.local_rank))
        checkpoint, dataset = ranks.together(lambda: load(config, ranks))
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
        )
        assert result is not None
        if config.eval_save_outputs:
            path = ranks.agree(lambda: save_predictions(checkpoint.path, result.outputs))
            if ranks.is_first:
                print(f"outputs saved in {path}", file=sys.stderr)
        if ranks.is_first:
            print(json.dumps({"step": checkpoint.step, **result.named()}, indent=2))


def load(config: EvaluateConfig, ranks: Ranks) -> tuple[Checkpoint, PuzzleDataset]:
    """The model, and the split to run it on.

    Raises:
        UserError: one of them is missing or damaged, or they do not fit each other.
    """
    checkpoint = load_checkpoint(config.checkpoint, config.weights, config.data_path)
    dataset = open_dataset(config, checkpoint.config, ranks)
    check_fit(checkpoint.metadata, dataset)
    return checkpoint, dataset


def open_dataset(config: EvaluateConfig, trained: RunConfig, ranks: Ranks) -> PuzzleDataset:
    """The split to evaluate; the training run's data and batch size unless given."""
    return PuzzleDataset(
        PuzzleDatasetConfig(
            seed=trained.seed,
            dataset_path=config.data_path or trained.data_path,
            global_batch_size=config.global_batch_size or trained.global_batch_size,
            test_set_mode=True,
            epochs_per_iter=1,
            rank=ranks.rank,
            num_replicas=ranks.size,
        ),
        split=config.split,
    )


def compile_mode(
    config: EvaluateConfig, checkpoint: Checkpoint, dataset: PuzzleDataset
) -> CompileMode:
    """As configured; `auto` compiles where all steps of many puzzles are to be taken."""
    if config.compile != "auto":
        return config.compile
    rows = dataset.batches_per_iteration() * dataset.config.global_batch_size
    steps = rows * checkpoint.model.model.config.halt_max_steps
    return "auto" if config.halting == "max_steps" and steps >= WORTH_COMPILING else "false"


def check_fit(trained: DatasetMetadata, dataset: PuzzleDataset) -> None:
    """Raise `UserError` where the data set does not fit the checkpoint's model."""
    for key in ("vocab_size", "seq_len", "num_puzzle_identifiers"):
        theirs, ours = getattr(dataset.metadata, key), getattr(trained, key)
        fits = theirs <= ours if key == "num_puzzle_identifiers" else theirs == ours
        if not fits:
            raise UserError(
                f"data_path={dataset.config.dataset_path}: {key} is {theirs}, but the checkpoint "
                f"was trained with {ours}; name a data set of the same kind"
            )
