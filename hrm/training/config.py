"""What a training run is configured by; the keys of `hrm train`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from hrm.checkpoint.config import RunConfig
from hrm.config import (
    RECIPE,
    RECIPES,
    CompileMode,
    DeviceName,
    EvalHalting,
    FileName,
    Fraction,
    OutputKey,
    PositiveInt,
    Switch,
    compose,
    defaults_of,
    validate,
)
from hrm.data.format import DatasetMetadata
from hrm.errors import UserError
from hrm.models.registry import arch_defaults
from hrm.optim.groups import OptimConfig
from hrm.optim.schedule import total_steps
from hrm.plain_yaml import read_yaml


class PretrainConfig(OptimConfig, RunConfig):
    """Keys of a run. Those that its checkpoints are used by stand in `RunConfig`."""

    model_config = ConfigDict(extra="forbid")

    micro_batch_size: Literal["auto"] | PositiveInt | None = Field(
        "auto",
        description="rows per forward pass of a rank; null: all; auto: few on CPUs, else what fits",
    )
    epochs: PositiveInt = Field(20000, description="times that one puzzle of every group is drawn")
    eval_interval: PositiveInt | None = Field(
        2000, description="epochs between evaluations, divides epochs; null: only at the end"
    )
    puzzle_emb_dropout: Fraction = Field(
        0.1, description="share of rows trained without identity, where the blank is negative"
    )
    stagger: bool = Field(
        False, description="row r begins at step r mod arch.halt_max_steps: a batch of all ages"
    )
    hint_rate: Fraction = Field(
        0.0, description="share of the puzzles that are trained with some of their answer shown"
    )
    hint_most: Fraction = Field(
        0.8, description="most of the cells that are shown; a puzzle draws its share"
    )
    max_skipped_steps: PositiveInt = Field(
        10, description="unsound steps in a row (loss or gradient not finite) before it goes back"
    )

    eval_halting: EvalHalting = Field(
        "max_steps",
        description="all ACT steps; learned: a puzzle stops when the model says so; "
        "learned_until_end: likewise, but the last evaluation takes all steps",
    )
    eval_limit: PositiveInt | None = Field(
        None,
        description="puzzles per evaluation, a fixed sample; the last one takes all; null: all",
    )
    eval_save_outputs: tuple[OutputKey, ...] = Field(
        (),
        description="saved with an evaluation: [inputs,labels,predictions,logits,q_halt_logits,…]",
    )
    aggregated_voting: bool = Field(
        False, description="ARC: votes count again in later evaluations, as in published logs"
    )
    early_stop: PositiveInt | None = Field(
        None, description="end the run after so many evaluations without a better one"
    )

    checkpoint_interval: int | str | None = Field(
        "10min", description="time or steps between checkpoints; null: only at each evaluation"
    )
    checkpoint_every_eval: bool = Field(
        False, description="keep the checkpoint of every evaluation"
    )
    keep_checkpoints: PositiveInt | None = Field(
        3, description="newest checkpoints that stay, besides the best; null: all"
    )
    load_checkpoint: Path | None = Field(
        None, description="begin with the weights of a checkpoint, also hf://user/name"
    )
    resume: Literal["auto"] | Path | None = Field(
        None, description="auto: resume run_name, or start it; or the path of a checkpoint"
    )

    project_name: FileName | None = Field(None, description="null: name of the data folder")
    run_name: FileName | None = Field(None, description="null: architecture, date and time")
    checkpoint_path: Path | None = Field(
        None, description="null: checkpoints/<project_name>/<run_name>"
    )
    overwrite: bool = Field(False, description="replace an earlier run of the same name")
    logger: Literal["none", "wandb", "tensorboard"] = Field(
        "none", description="besides metrics.jsonl, which is written in any case"
    )
    log_interval: PositiveInt = Field(
        1, description="steps per line of metrics.jsonl; each costs a message between ranks"
    )
    progress: bool = Field(True, description="show a progress bar")

    device: DeviceName = Field("auto", description="cuda, mps or cpu")
    compile: CompileMode = Field(
        "auto",
        description="true: blocks; step: all of a step; auto: blocks, where it can and saves time",
    )
    cuda_graph: Switch = Field(
        "auto", description="launch a step with one call; auto: on CUDA, unless there are ranks"
    )
    deterministic: bool = Field(
        False, description="on CUDA, too, the same run gives the same bits; slower"
    )
    rank_timeout: PositiveInt = Field(
        600, description="seconds after which a process that does not answer is given up"
    )

    @field_validator("checkpoint_interval")
    @classmethod
    def _is_steps_or_minutes(cls, value: int | str | None) -> int | str | None:
        minutes = re.fullmatch(r"(\d+(?:\.\d+)?)min", value) if isinstance(value, str) else None
        if value is None or (isinstance(value, int) and value > 0):
            return value
        if minutes is None or float(minutes[1]) == 0:
            raise ValueError(f"{value!r} is neither a number of steps nor minutes such as 10min")
        return value

    @model_validator(mode="after")
    def _check(self) -> "PretrainConfig":
        if isinstance(self.resume, Path) and self.load_checkpoint is not None:
            raise ValueError("resume and load_checkpoint exclude each other; keep one")
        if self.resume is not None and self.overwrite:
            raise ValueError("resume and overwrite=true exclude each other")
        if self.resume == "auto" and self.run_name is None and self.checkpoint_path is None:
            raise ValueError("resume=auto needs run_name, so that the run can be found again")
        if self.epochs % self.epochs_per_iteration:
            raise ValueError(
                f"epochs={self.epochs} is not a multiple of eval_interval={self.eval_interval}"
            )
        return self

    @property
    def epochs_per_iteration(self) -> int:
        """Epochs between evaluations; all of them without `eval_interval`."""
        return self.eval_interval or self.epochs

    @property
    def iterations(self) -> int:
        return self.epochs // self.epochs_per_iteration

    @property
    def checkpoint_steps(self) -> int | None:
        """Steps between checkpoints, where they are counted in steps."""
        return self.checkpoint_interval if isinstance(self.checkpoint_interval, int) else None

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds between checkpoints, where they are counted in minutes."""
        if not isinstance(self.checkpoint_interval, str):
            return None
        return 60 * float(self.checkpoint_interval.removesuffix("min"))

    @property
    def project(self) -> str:
        """`project_name`, else the name of the data set's folder."""
        return self.project_name or self.data_path.resolve().name or "data"

    @property
    def run_dir(self) -> Path:
        """`checkpoint_path`, else `checkpoints/<project>/<run>`; the run must be named by then."""
        assert self.run_name is not None
        return self.checkpoint_path or Path("checkpoints") / self.project / self.run_name

    def total_steps(self, metadata: DatasetMetadata) -> int:
        """By which the learning rate is scheduled, as of `hrm.optim.schedule.total_steps`."""
        groups, examples = metadata.total_groups, metadata.mean_puzzle_examples
        return total_steps(self.epochs, groups, examples, self.global_batch_size)

    def local_micro_batch_size(self, ranks: int) -> int:
        """Rows per forward pass on one rank; all of them where it is left to the device.

        Raises:
            UserError: the batch is not divisible by the ranks, or the share by the micro-batch.
        """
        if self.global_batch_size % ranks:
            raise UserError(
                f"global_batch_size={self.global_batch_size} is not divisible by {ranks} ranks"
            )
        local = self.global_batch_size // ranks
        micro = self.micro_batch_size if isinstance(self.micro_batch_size, int) else local
        if local % micro:
            raise UserError(
                f"micro_batch_size={micro} does not divide the {local} rows of each rank "
                f"(global_batch_size={self.global_batch_size}, {ranks} ranks)"
            )
        return micro


def load_pretrain_config(
    overrides: Sequence[str], config_name: str = RECIPE, config_dir: Path = RECIPES
) -> PretrainConfig:
    """A recipe with overrides (`key=value`); raises `UserError` as `hrm.config.compose`."""
    defaults: dict[str, dict[str, Any]] = {"schema": defaults_of(PretrainConfig)}
    defaults |= {f"arch/{name}_schema": values for name, values in arch_defaults().items()}
    return compose(PretrainConfig, overrides, config_name, defaults, config_dir)


def load_train_config(path: Path) -> PretrainConfig:
    """Read a run's `all_config.yaml` whole; keys it lacks take the present defaults.

    Raises:
        UserError: the file is missing or damaged, or a key is unknown or wrong.
    """
    values = {"eval_interval": None}  # the present default need not divide the saved epochs
    return validate(PretrainConfig, values | read_yaml(path), str(path))
