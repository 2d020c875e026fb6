"""What a checkpoint's configuration must say for its model to be rebuilt and used."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from hrm.config import Config, Fraction, Halting, PositiveInt, Schema, Seed, validate
from hrm.errors import UserError
from hrm.models.recurrence import ForwardDtype
from hrm.models.registry import ArchConfig
from hrm.plain_yaml import read_yaml, shown, write_yaml


class RunConfig(Config):
    """The part of a run's configuration that outlives training; other keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    arch: ArchConfig
    data_path: Path = Field(description="folder of the data set")
    global_batch_size: PositiveInt = Field(384, description="rows of a step, over all ranks")
    seed: Seed = Field(0, description="of the weights, the order of the data and all chance")
    eval_halt_probability: Fraction = Field(
        0.0, description="with learned halting a puzzle stops only where the model is this sure"
    )
    eval_max_steps: PositiveInt | None = Field(
        None, description="ACT steps at most with learned halting; null: arch.halt_max_steps"
    )

    def in_dtype(self, forward_dtype: ForwardDtype | Literal["auto"]) -> Self:
        """The same with another dtype of the activations."""
        arch = self.arch.model_copy(update={"forward_dtype": forward_dtype})
        return self.model_copy(update={"arch": arch})

    def steps_at_most(self, halting: Halting) -> int:
        """ACT steps at most where nobody says how many."""
        more = self.eval_max_steps if halting == "learned" else None
        return more or self.arch.halt_max_steps


def save_config(config: BaseModel, path: Path) -> None:
    """Write a configuration as YAML, whole or not at all; `load_config` reads it back."""
    write_yaml(config.model_dump(mode="json"), path)


def load_config(path: Path, schema: type[Schema]) -> Schema:
    """Read an `all_config.yaml`, ours or the original's; keys it lacks take the present defaults.

    Raises:
        UserError: the file is missing or damaged, or a key is unknown to the schema or wrong.
    """
    return validate(schema, _with_one_data_path(read_yaml(path), path), str(path))


def _with_one_data_path(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """A configuration of the original TRM lists its data sets; ours names one.

    Raises:
        UserError: it lists another number of them.
    """
    if "data_paths" not in values or "data_path" in values:
        return values
    listed = values["data_paths"]
    if not isinstance(listed, list) or len(listed) != 1:
        raise UserError(f"{path}: data_paths: {shown(listed)}; a model has one data set here")
    rest = {key: value for key, value in values.items() if key != "data_paths"}
    return rest | {"data_path": listed[0]}
