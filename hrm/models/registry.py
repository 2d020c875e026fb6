"""Models by name: cores and loss heads, ours and the originals' strings for them.

A core is one entry in `CORES`; no name from a configuration is ever imported.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from hrm.errors import UserError, first_mistake
from hrm.models.act import ACT, Core
from hrm.models.hrm import HRM, ForwardDtype, HRMArch, HRMConfig
from hrm.models.losses import ACTLossHead, LossConfig


class CoreEntry(NamedTuple):
    """A core, and its configuration together with what it takes from the data set."""

    core: type[Core]
    config: type[BaseModel]


CORES: dict[str, CoreEntry] = {"hrm_act_v1": CoreEntry(HRM, HRMConfig)}
LOSS_HEADS: dict[str, tuple[type[ACTLossHead], type[LossConfig]]] = {
    "act_loss_head": (ACTLossHead, LossConfig)
}
ORIGINAL_NAMES = {
    "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1": "hrm_act_v1",
    "hrm@models/hrm/hrm_act_v1.py:HierarchicalReasoningModel_ACTV1": "hrm_act_v1",
    "losses@ACTLossHead": "act_loss_head",
    "losses@models/losses.py:ACTLossHead": "act_loss_head",
}


class NamedLossConfig(LossConfig):
    """Loss head as a configuration names it."""

    name: str = Field("act_loss_head", description="loss head")


class ArchConfig(HRMArch):
    """Architecture as a configuration names it; `forward_dtype` may be left to the device."""

    name: str = Field("hrm_act_v1", description="core; the originals' names are known, too")
    loss: NamedLossConfig
    forward_dtype: ForwardDtype | Literal["auto"] = Field(  # type: ignore[assignment]
        "bfloat16",
        description="dtype of the activations; auto: bfloat16 where the device has it, or float32",
    )


def arch_defaults() -> dict[str, dict[str, Any]]:
    """Of each core's architecture, the keys that need not be given, as plain values."""
    loss = {n: f.default for n, f in NamedLossConfig.model_fields.items() if not f.is_required()}
    arch = {n: f.default for n, f in ArchConfig.model_fields.items() if not f.is_required()}
    return {name: arch | {"name": name, "loss": loss} for name in CORES}


def build_model(arch: Mapping[str, Any], loss: Mapping[str, Any]) -> ACTLossHead:
    """Build the model with fresh weights from torch's global generator.

    Args:
        arch: fields of the core's configuration (such as `HRMConfig`), optionally `name` (a key of
            `CORES`, or the original's).
        loss: fields of `LossConfig`, optionally `name` (a key of `LOSS_HEADS`, likewise).

    Raises:
        UserError: an unknown name or key, or a value out of range.
    """
    arch, loss = dict(arch), dict(loss)
    core, core_config = _look_up(CORES, "arch.name", arch.pop("name", "hrm_act_v1"))
    head = loss.pop("name", "act_loss_head")
    head_class, head_config = _look_up(LOSS_HEADS, "arch.loss.name", head)
    try:
        config = core_config.model_validate(arch)
        return head_class(ACT(core(config)), head_config.model_validate(loss))
    except ValidationError as error:
        key, reason = first_mistake(error)
        raise UserError(f"model: {key}: {reason}") from None


def _look_up(registry: Mapping[str, Any], key: str, name: Any) -> Any:
    own = ORIGINAL_NAMES.get(name, name)
    if own not in registry:
        known = [*registry, *(n for n, ours in ORIGINAL_NAMES.items() if ours in registry)]
        raise UserError(f"{key}: unknown {name!r}; choose one of {', '.join(known)}")
    return registry[own]
