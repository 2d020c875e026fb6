"""Configuration: the form of all schemas, their checks, and composing a recipe with a command line.

Each package owns its schema, with its defaults and what every key means. Values come from Hydra
(our recipes and the command line) or from `hrm.plain_yaml` (what was saved), are checked once, and
never change afterwards.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
)
from pydantic.fields import FieldInfo

from hrm.errors import UserError
from hrm.plain_yaml import first_line, shown

RECIPES = Path(__file__).parent / "recipes"
RECIPE = "cfg_pretrain"

HYDRA_KEY = re.compile(r"[+~]*hydra(?![\w-])")


def _file_name(name: str) -> str:
    is_hidden = not name or name[0] == "."
    if is_hidden or not name.isprintable() or any(part in name for part in ("/", "\\", "${")):
        raise ValueError("must be a name without /, \\ or ${ that does not begin with a dot")
    return name


PositiveInt = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
FileName = Annotated[str, AfterValidator(_file_name)]
WeightsName = Literal["auto", "raw", "ema"]
StoredDtype = Literal["float32", "float16", "bfloat16"]
GraphDtype = Literal["float32", "int8"]
DeviceName = Literal["auto", "cuda", "mps", "cpu"]
_or_boolean = BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else v)
Switch = Annotated[Literal["auto", "true", "false"], _or_boolean]
CompileMode = Annotated[Literal["auto", "true", "false", "step"], _or_boolean]
Halting = Literal["max_steps", "learned"]
EvalHalting = Literal["max_steps", "learned", "learned_until_end"]
Select = Literal["valid", "q_halt", "majority"]
OutputKey = Literal[
    "inputs",
    "labels",
    "puzzle_identifiers",
    "predictions",
    "logits",
    "q_halt_logits",
    "q_continue_logits",
    "steps",
]


class Config(BaseModel):
    """A frozen schema that knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


Schema = TypeVar("Schema", bound=BaseModel)


def validate(
    schema: type[Schema], values: Any, source: str, written: Mapping[str, str] | None = None
) -> Schema:
    """Check plain values against a schema.

    Args:
        source: of the values, for messages, such as a file.
        written: key -> how the user wrote key and value, where that is known.

    Raises:
        UserError: one line with the first wrong key, what is wrong, and `source`.
    """
    try:
        _refuse_boolean_numbers(schema, values, source)
        _refuse_huge_numbers(values, source)
        checked = schema.model_validate(values)
        _refuse_impossible_paths(checked, source)
        _refuse_huge_numbers(checked, source)
        return checked
    except ValidationError as error:
        first = error.errors()[0]
        keys, owner = _path(schema, first["loc"])
        key = ".".join(map(_shorten, keys))
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            assert owner is not None
            reason = f"unknown key; known here: {', '.join(owner.model_fields)}"
        elif first["type"] == "union_tag_invalid":
            named = first["ctx"]
            known = named["expected_tags"].replace("'", "")
            key += ".name"
            reason = f"unknown {shown(named['tag'])}; choose one of {known}"
        elif first["type"] == "missing":
            reason = "is required"
        elif written and key in written:
            key = written[key]
        elif first["type"] != "value_error":
            reason += f", got {shown(first['input'])}"
        raise UserError(f"{source}: {key + ': ' if key else ''}{reason}") from None


def _refuse_boolean_numbers(schema: type[BaseModel], values: Any, source: str) -> None:
    """`lr=true` would pass as 1.0."""
    for name, field in schema.model_fields.items():
        value = values.get(name) if isinstance(values, dict) else None
        if isinstance(value, bool) and _takes_numbers(field.annotation):
            raise UserError(f"{source}: {name}={str(value).lower()}: must be a number")
        if (inner := _schema_of(field, value)) is not None:
            _refuse_boolean_numbers(inner, value, source)


def _takes_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(_takes_numbers, get_args(annotation)))


def _refuse_impossible_paths(values: BaseModel, source: str) -> None:
    for name, value in values:
        if not isinstance(value, Path):
            continue
        if any(ord(c) < 32 or "\ud800" <= c <= "\udfff" for c in str(value)):
            raise UserError(f"{source}: {name}: {shown(str(value))} is not a path")


def _refuse_huge_numbers(values: Any, source: str, key: str = "") -> None:
    """Numbers that would not fit into a tensor, some of which Python does not even print."""
    if isinstance(values, int) and abs(values) >= 2**63:
        raise UserError(f"{source}: {key}: {shown(values)} is too large")
    if isinstance(values, dict | BaseModel):
        for name, value in dict(values).items():
            _refuse_huge_numbers(value, source, f"{key}.{name}".lstrip("."))
    elif isinstance(values, list | tuple):
        for value in values:
            _refuse_huge_numbers(value, source, key)


def with_home(schema: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """Values that a user typed, with `~` at the start of a path as a shell would read it."""

    def expanded(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(expanded, value))
        return os.path.expanduser(value) if isinstance(value, str) else value

    paths = {name for name, f in schema.model_fields.items() if _takes_paths(f.annotation)}
    return {key: expanded(value) if key in paths else value for key, value in values.items()}


def _takes_paths(annotation: Any) -> bool:
    return annotation is Path or any(map(_takes_paths, get_args(annotation)))


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def schemas_in(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """The schemas that a field's value may be of, none for a plain value.

    Where there are several, its key `name` says which: they stand under those names (pydantic's
    tags). A single one stands under "".
    """
    if _is_schema(field.annotation):
        return {"": field.annotation}  # type: ignore[dict-item]
    found = {}
    for part in get_args(field.annotation):
        inner, *tags = get_args(part) or (part,)
        for tag in tags:
            if isinstance(tag, Tag) and _is_schema(inner):
                found[tag.tag] = inner
    return found


def _is_schema(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _schema_of(field: FieldInfo, value: Any) -> type[BaseModel] | None:
    """That which a value is checked against."""
    for item in field.metadata:
        if isinstance(item, Discriminator) and callable(item.discriminator):
            return schemas_in(field).get(str(item.discriminator(value)))
    return schemas_in(field).get("")


def _path(
    schema: type[BaseModel], location: Sequence[int | str]
) -> tuple[list[str], type[BaseModel] | None]:
    """The keys of a pydantic location, without tags, and the schema that the last one is of."""
    keys: list[str] = []
    owner: type[BaseModel] | None = None
    inner: type[BaseModel] | None = schema
    parts = list(location)
    while parts:
        keys.append(str(parts.pop(0)))
        owner = inner
        field = None if owner is None else owner.model_fields.get(keys[-1])
        known = {} if field is None else schemas_in(field)
        inner = known.get(str(parts.pop(0)) if len(known) > 1 and parts else "")
    return keys, owner


def compose(
    schema: type[Schema],
    overrides: Sequence[str],
    name: str,
    defaults: Mapping[str, Mapping[str, Any]],
    folder: Path = RECIPES,
) -> Schema:
    """A recipe with Hydra overrides (`key=value`).

    Args:
        name: of the recipe, `<folder>/<name>.yaml`.
        defaults: plain values that recipes build on, by the name under which a recipe's own list of
            defaults takes them, such as `schema` or, in a group, `arch/hrm_act_v1_schema`.

    Raises:
        UserError: an unknown key, a key of Hydra itself, a wrong value, or a file that is not
            there; one line.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    for override in overrides:
        if HYDRA_KEY.match(override):
            raise UserError(
                f"{_shorten(override)}: keys of Hydra itself are not used here; "
                "hrm train --keys lists all keys"
            )
    for path, known in defaults.items():
        group, _, own_name = path.rpartition("/")
        ConfigStore.instance().store(name=own_name, node=dict(known), group=group or None)
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder.resolve())):
            composed = hydra_compose(name, overrides=list(overrides))
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        assert isinstance(values, dict)
    except Exception as error:  # a damaged file raises almost anything in Hydra and OmegaConf
        raise UserError(f"configuration: {_explain(error, schema, folder)}") from None
    plain = {str(key): value for key, value in values.items()}
    return validate(schema, with_home(schema, plain), "configuration")


def refuse_idle_noise(noise: float, rollouts: int) -> None:
    """Raise ValueError where noise and rollouts make no sense, or none without each other."""
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise={noise}: must be a number of at least 0")
    if rollouts < 1:
        raise ValueError(f"rollouts={rollouts}: must be at least 1")
    if rollouts > 1 and noise == 0:
        raise ValueError(f"rollouts={rollouts}: all would be equal; give noise, too")
    if noise > 0 and rollouts == 1:
        raise ValueError(f"noise={noise}: the first rollout is without; give rollouts=2 or more")


def flag(key: str) -> str:
    """A key as it is given on the command line."""
    return "--" + key.replace("_", "-")


def defaults_of(schema: type[BaseModel]) -> dict[str, Any]:
    """The keys of a schema that have a default, as plain values."""
    fields = {name: f for name, f in schema.model_fields.items() if not f.is_required()}
    return {name: f.get_default(call_default_factory=True) for name, f in fields.items()}


def _explain(error: Exception, schema: type[BaseModel], folder: Path) -> str:
    from hydra.errors import MissingConfigException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        found = ", ".join(sorted(path.stem for path in (folder / group).glob("*.yaml")))
        return f"{group or '--config-name'}={name}: not found; choose one of {found}"
    reason = first_line(error)
    if reason.startswith("Ambiguous value for argument"):
        given = reason.split("'")[1]
        return f"{given}: several values; hrm sweep trains with each of them"
    if not reason.startswith("Could not override '"):
        return reason
    key = reason.split("'")[1]
    known = dotted_keys(schema)
    if key in known:
        return f"{key}: unknown key; only another architecture has it"
    close = get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else "hrm train --keys lists all keys"
    return f"{key}: unknown key; {hint}"


def dotted_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of a schema, those of schemas within it by their dotted names, each once."""
    keys = []
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        for inner in schemas_in(field).values():
            keys += dotted_keys(inner, f"{prefix}{name}.")
    return list(dict.fromkeys(keys))
