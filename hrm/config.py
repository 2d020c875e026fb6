"""Configuration: frozen schemas, read once at the edge. The only place that touches OmegaConf.

Our own recipes and the command line go through Hydra; a checkpoint's `all_config.yaml` may come
from anywhere and is read as plain data: no interpolation, no tags, no aliases.
"""

import os
import re
import reprlib
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from hrm.device import CompileMode, DeviceName
from hrm.errors import UserError
from hrm.models.hrm_act_v1 import ForwardDtype, HRMArch, PositiveInt
from hrm.models.losses import LossConfig
from hrm.rollout import Halting

CONFIG_DIR = Path(__file__).parents[1] / "config"
CONFIG_NAME = "cfg_pretrain"
LARGEST_CONFIG = 100_000  # bytes of a saved configuration; ours have about 1,500
OUTPUT_KEYS = (
    "inputs",
    "labels",
    "puzzle_identifiers",
    "predictions",
    "logits",
    "q_halt_logits",
    "q_continue_logits",
    "steps",
)

WeightsName = Literal["auto", "raw", "ema"]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Compile = Annotated[
    CompileMode, BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else v)
]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_=+,-][A-Za-z0-9._=+, -]*$")]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class NamedLossConfig(LossConfig):
    """Loss head as a configuration names it."""

    name: str = "act_loss_head"


class ArchConfig(HRMArch):
    """Architecture as a configuration names it; `forward_dtype` may be left to the device."""

    name: str = "hrm_act_v1"
    loss: NamedLossConfig
    forward_dtype: ForwardDtype | Literal["auto"] = "bfloat16"  # type: ignore[assignment]


class PretrainConfig(_Config):
    """What `pretrain.py` reads; documented key by key in `config/cfg_pretrain.yaml`."""

    arch: ArchConfig
    data_path: Path

    global_batch_size: PositiveInt
    micro_batch_size: Literal["auto"] | PositiveInt | None
    epochs: PositiveInt
    eval_interval: PositiveInt | None
    seed: Annotated[int, Field(ge=0, lt=2**63)]

    lr: NonNegative
    lr_min_ratio: Fraction
    lr_warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: NonNegative
    beta1: BelowOne
    beta2: BelowOne
    puzzle_emb_lr: NonNegative
    puzzle_emb_weight_decay: NonNegative
    puzzle_emb_dropout: Fraction
    ema: bool
    ema_decay: BelowOne
    grad_clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    max_skipped_steps: PositiveInt

    eval_halting: Halting
    eval_halt_probability: Fraction
    eval_save_outputs: tuple[Literal[OUTPUT_KEYS], ...]  # type: ignore[valid-type]
    early_stop: PositiveInt | None

    checkpoint_interval: int | str | None
    checkpoint_every_eval: bool
    keep_checkpoints: PositiveInt | None
    resume: Literal["auto"] | Path | None

    project_name: FileName | None
    run_name: FileName | None
    checkpoint_path: Path | None
    overwrite: bool
    logger: Literal["none", "wandb"]
    log_interval: PositiveInt
    progress: bool

    device: DeviceName
    compile: Compile
    rank_timeout: PositiveInt

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


class EvaluateConfig(_Config):
    """What `evaluate.py` reads. None means: as the checkpoint was trained."""

    checkpoint: Path
    data_path: Path | None = None
    split: FileName = "test"
    halting: Halting = "max_steps"
    halt_probability: Fraction | None = None
    global_batch_size: PositiveInt | None = None
    weights: WeightsName = "auto"
    eval_save_outputs: tuple[Literal[OUTPUT_KEYS], ...] = ()  # type: ignore[valid-type]
    device: DeviceName = "auto"
    compile: Compile = "auto"

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        if self.halt_probability is not None and self.halting != "learned":
            raise ValueError("halt_probability counts only with halting=learned; give both")
        return self


class SolveConfig(_Config):
    """What `solve.py` reads; described flag by flag in its help."""

    checkpoint: Path
    puzzles: tuple[str, ...] = ()
    file: Path | None = None
    data: Path | None = None
    split: FileName = "test"
    index: Annotated[int, Field(ge=0)] | None = None

    halting: Halting = "learned"
    steps: PositiveInt | None = None
    votes: PositiveInt = 1
    restarts: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    batch_size: PositiveInt = 64
    weights: WeightsName = "auto"
    device: DeviceName = "auto"

    format: Literal["grid", "line", "json", "csv"] = "grid"
    trace: bool = False
    gif: Path | None = None
    png: Path | None = None

    serve: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, lt=2**16)] = 8000
    checkpoints_root: Path = Path("checkpoints")
    data_root: Path = Path("data")

    @model_validator(mode="after")
    def _check(self) -> "SolveConfig":
        given = [bool(self.puzzles), self.file is not None, self.index is not None]
        if sum(given) > 1:
            raise ValueError("give puzzles as arguments, by --file or by --index, in one way only")
        if self.serve and any(given):
            raise ValueError("--serve takes no puzzles; type or paste them into the page")
        return self


class ReportConfig(_Config):
    """What `report.py` reads; described flag by flag in its help."""

    runs: tuple[Path, ...]
    output: Path | None = None
    data: Path | None = None
    split: FileName = "test"
    limit: PositiveInt = 1000
    device: DeviceName = "auto"
    curves_only: bool = False


Schema = TypeVar("Schema", bound=BaseModel)


def validate(schema: type[Schema], values: Any, source: str) -> Schema:
    """Check plain values against a schema.

    Raises:
        UserError: one line with the first wrong key, what is wrong, and `source`.
    """
    try:
        _refuse_boolean_numbers(schema, values, source)
        _refuse_impossible_paths(schema, values, source)
        _refuse_huge_numbers(values, source)
        checked = schema.model_validate(values)
        _refuse_huge_numbers(checked, source)
        return checked
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(_shorten(str(part)) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = ", ".join(_sibling_keys(schema, first["loc"]))
            reason = f"unknown key; known here: {known}"
        elif first["type"] == "missing":
            reason = "is required"
        elif first["type"] != "value_error":
            reason += f", got {_shown(first['input'])}"
        raise UserError(f"{source}: {key + ': ' if key else ''}{reason}") from None


def _refuse_boolean_numbers(schema: type[BaseModel], values: Any, source: str) -> None:
    """`lr=true` would pass as 1.0."""
    for name, field in schema.model_fields.items():
        value = values.get(name) if isinstance(values, dict) else None
        if isinstance(value, bool) and _takes_numbers(field.annotation):
            raise UserError(f"{source}: {name}={str(value).lower()}: must be a number")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            _refuse_boolean_numbers(field.annotation, value, source)


def _takes_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(_takes_numbers, get_args(annotation)))


def _refuse_impossible_paths(schema: type[BaseModel], values: Any, source: str) -> None:
    for name, field in schema.model_fields.items():
        value = values.get(name) if isinstance(values, dict) else None
        if field.annotation not in (Path, Path | None) or not isinstance(value, str):
            continue
        if any(ord(c) < 32 or "\ud800" <= c <= "\udfff" for c in value):
            raise UserError(f"{source}: {name}: {_shown(value)} is not a path")


def _refuse_huge_numbers(values: Any, source: str, key: str = "") -> None:
    """Numbers that would not fit into a tensor, some of which Python does not even print."""
    if isinstance(values, int) and abs(values) >= 2**63:
        raise UserError(f"{source}: {key}: {_shown(values)} is too large")
    if isinstance(values, dict | BaseModel):
        for name, value in dict(values).items():
            _refuse_huge_numbers(value, source, f"{key}.{name}".lstrip("."))
    elif isinstance(values, list | tuple):
        for value in values:
            _refuse_huge_numbers(value, source, key)


def _shown(value: object) -> str:
    """A value in a message, however large it is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return f"a huge {type(value).__name__}"


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def _sibling_keys(schema: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    for part in location[:-1]:
        annotation = schema.model_fields[str(part)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        schema = annotation
    return list(schema.model_fields)


def load_pretrain_config(
    overrides: Sequence[str], config_name: str = CONFIG_NAME, config_dir: Path = CONFIG_DIR
) -> PretrainConfig:
    """Compose `config_dir/config_name.yaml` with Hydra overrides (`key=value`).

    Raises:
        UserError: an unknown key, a wrong value, or a file that is not there; one line.
    """
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_dir.resolve())):
            composed = compose(config_name, overrides=list(overrides))
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except Exception as error:  # a damaged file raises almost anything in Hydra and OmegaConf
        raise UserError(f"configuration: {_explain(error, config_dir)}") from None
    return validate(PretrainConfig, values, "configuration")


def _explain(error: Exception, config_dir: Path) -> str:
    reason = _first_line(error)
    if not reason.startswith("Could not override '"):
        return reason
    key = reason.split("'")[1]
    keys = [*PretrainConfig.model_fields]
    keys += [f"arch.{name}" for name in ArchConfig.model_fields]
    keys += [f"arch.loss.{name}" for name in NamedLossConfig.model_fields]
    close = get_close_matches(key, keys, n=1)
    hint = f"did you mean {close[0]}?" if close else f"see {config_dir / 'cfg_pretrain.yaml'}"
    return f"{key}: unknown key; {hint}"


def load_evaluate_config(arguments: Sequence[str]) -> EvaluateConfig:
    """Parse `key=value` arguments of `evaluate.py`."""
    return validate(EvaluateConfig, parse_arguments(arguments), "evaluate.py")


def parse_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """`key=value …` -> plain values.

    Raises:
        UserError: an argument is not of that form.
    """
    if wrong := [a for a in arguments if "=" not in a.lstrip("=")]:
        raise UserError(f"argument {wrong[0]!r} is not of the form key=value")
    try:
        parsed = OmegaConf.from_dotlist(list(arguments))
        values = OmegaConf.to_container(parsed, resolve=True)
    except Exception as error:  # OmegaConf and YAML raise almost anything
        raise UserError(f"arguments: {_first_line(error)}") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def dump_yaml(config: BaseModel, path: Path) -> None:
    """Write a configuration as YAML, whole or not at all; `load_saved_config` reads it back."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    temporary.replace(path)


def load_saved_config(path: Path) -> PretrainConfig:
    """Read an `all_config.yaml`, ours or the original's; keys it lacks take today's defaults.

    Raises:
        UserError: the file is missing or damaged, or a key is unknown or wrong.
    """
    return validate(PretrainConfig, _saved_defaults() | _read_yaml(path), str(path))


@cache
def _saved_defaults() -> dict[str, Any]:
    values = _read_yaml(CONFIG_DIR / f"{CONFIG_NAME}.yaml")
    del values["defaults"]
    return values | {"eval_interval": None}  # today's need not divide the saved epochs


class _PlainLoader(yaml.SafeLoader):
    """YAML as plain data, no larger than its text: no alias, no tag, and every key a word, once."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("tags are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key in (self.construct_object(key_node, deep=True) for key_node, _ in node.value):
            if not isinstance(key, str):
                raise yaml.YAMLError(f"key {_shown(key)} is not a word")
            if key in keys:
                raise yaml.YAMLError(f"key {_shown(key)} stands there twice")
            keys.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of keys and values, as it stands.

    Raises:
        UserError: the file is missing or anything else.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise yaml.YAMLError("not a file")
        with open(path, "rb") as file:
            text = file.read(LARGEST_CONFIG + 1)
        if len(text) > LARGEST_CONFIG:
            raise yaml.YAMLError(f"larger than {LARGEST_CONFIG:,} bytes")
        values = yaml.load(text, _PlainLoader)
        if not isinstance(values, dict):
            raise yaml.YAMLError("no keys and values")
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except Exception as error:  # damaged YAML raises more than YAMLError
        raise UserError(f"{path}: not a configuration ({_first_line(error)})") from None
    return values


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
