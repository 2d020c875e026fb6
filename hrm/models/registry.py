"""Models by name: cores and loss heads, ours and the originals' strings for them.

A core is one entry in `CORES` and one schema in `ArchConfig`; no name from a configuration is ever
imported.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, ValidationError

from hrm.config import defaults_of
from hrm.errors import TOP_LEVEL, UserError, first_mistake
from hrm.models.act import ACT, Core
from hrm.models.hrm import HRM, HRMArch, HRMConfig
from hrm.models.losses import ACTLossHead, LossConfig
from hrm.models.originals import DATA_KEYS, in_our_keys
from hrm.models.recurrence import ForwardDtype
from hrm.models.symbol_equivariant import (
    SymbolEquivariant,
    SymbolEquivariantArch,
    SymbolEquivariantConfig,
)
from hrm.models.trm import TRM, TRMArch, TRMConfig

DEFAULT_CORE = "hrm_act_v1"
ORIGINAL_NAMES = {
    "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1": "hrm_act_v1",
    "hrm@models/hrm/hrm_act_v1.py:HierarchicalReasoningModel_ACTV1": "hrm_act_v1",
    "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1": "trm",
    "losses@ACTLossHead": "act_loss_head",
    "losses@models/losses.py:ACTLossHead": "act_loss_head",
}


class NamedLossConfig(LossConfig):
    """Loss head as a configuration names it."""

    name: str = Field("act_loss_head", description="loss head")


class Named(BaseModel):
    """What a configuration says of an architecture besides the core's own fields."""

    name: str = Field(DEFAULT_CORE, description="core; the originals' names are known, too")
    loss: NamedLossConfig
    forward_dtype: ForwardDtype | Literal["auto"] = Field(
        "bfloat16",
        description="dtype of the activations; auto: bfloat16 where the device has it, or float32",
    )


class HRMArchConfig(Named, HRMArch):
    """The Hierarchical Reasoning Model as a configuration names it."""


class TRMArchConfig(Named, TRMArch):
    """The Tiny Recursive Model as a configuration names it."""

    name: str = Field("trm", description="core; the originals' names are known, too")


class SymbolEquivariantArchConfig(Named, SymbolEquivariantArch):
    """The symbol-equivariant model as a configuration names it."""

    name: str = Field("symbol_equivariant", description="core")


class CoreEntry(NamedTuple):
    """A core, and its configuration together with what it takes from the data set."""

    core: type[Core]
    config: type[BaseModel]
    schema: type[BaseModel]  # of the configuration without that, but with names


CORES: dict[str, CoreEntry] = {
    "hrm_act_v1": CoreEntry(HRM, HRMConfig, HRMArchConfig),
    "trm": CoreEntry(TRM, TRMConfig, TRMArchConfig),
    "symbol_equivariant": CoreEntry(
        SymbolEquivariant, SymbolEquivariantConfig, SymbolEquivariantArchConfig
    ),
}
LOSS_HEADS: dict[str, tuple[type[ACTLossHead], type[LossConfig]]] = {
    "act_loss_head": (ACTLossHead, LossConfig)
}


def _schema_name(arch: Any) -> str:
    """By which core's schema an architecture is checked; an unknown name as it stands."""
    given = arch if isinstance(arch, Mapping) else vars(arch) if isinstance(arch, Named) else {}
    name = given.get("name", DEFAULT_CORE)
    own = ORIGINAL_NAMES.get(name, name) if isinstance(name, str) else DEFAULT_CORE
    entry = CORES.get(own)
    return own if entry is None else entry.schema.model_fields["name"].default


def _without_original_keys(arch: Any) -> Any:
    """An original's architecture in our keys, and without what is the data set's to say."""
    name = arch.get("name") if isinstance(arch, Mapping) else None
    if not isinstance(name, str) or name not in ORIGINAL_NAMES:
        return arch
    ours = in_our_keys(ORIGINAL_NAMES[name], arch)
    return {key: value for key, value in ours.items() if key not in DATA_KEYS}


ArchConfig = Annotated[
    Annotated[HRMArchConfig, Tag("hrm_act_v1")]
    | Annotated[TRMArchConfig, Tag("trm")]
    | Annotated[SymbolEquivariantArchConfig, Tag("symbol_equivariant")],
    Discriminator(_schema_name),
    BeforeValidator(_without_original_keys),
]


def arch_defaults() -> dict[str, dict[str, Any]]:
    """Of each core's architecture, the keys that need not be given, as plain values."""
    loss = defaults_of(NamedLossConfig)
    return {
        name: defaults_of(entry.schema) | {"name": name, "loss": loss}
        for name, entry in CORES.items()
    }


def build_model(arch: Mapping[str, Any], loss: Mapping[str, Any]) -> ACTLossHead:
    """Build the model with fresh weights from torch's global generator.

    Args:
        arch: fields of the core's configuration (such as `HRMConfig`), optionally `name` (a key of
            `CORES`, or the original's, whose other keys are understood then, too).
        loss: fields of `LossConfig`, optionally `name` (a key of `LOSS_HEADS`, likewise).

    Raises:
        UserError: an unknown name or key, or a value out of range.
    """
    arch, loss = dict(arch), dict(loss)
    name = arch.pop("name", DEFAULT_CORE)
    entry = _look_up(CORES, "arch.name", name)
    head = loss.pop("name", "act_loss_head")
    head_class, head_config = _look_up(LOSS_HEADS, "arch.loss.name", head)
    if name in ORIGINAL_NAMES:
        try:
            arch = in_our_keys(ORIGINAL_NAMES[name], arch)
        except ValueError as error:
            raise UserError(f"model: {error}") from None
    try:
        config = entry.config.model_validate(arch)
        return head_class(ACT(entry.core(config)), head_config.model_validate(loss))
    except ValidationError as error:
        key, reason = first_mistake(error)
        named = "" if key == TOP_LEVEL else f"{key}: "
        raise UserError(f"model: {named}{reason}") from None


def _look_up(registry: Mapping[str, Any], key: str, name: Any) -> Any:
    own = ORIGINAL_NAMES.get(name, name)
    if own not in registry:
        known = [*registry, *(n for n, ours in ORIGINAL_NAMES.items() if ours in registry)]
        raise UserError(f"{key}: unknown {name!r}; choose one of {', '.join(known)}")
    return registry[own]
