"""Every key of the Tiny Recursive Model acts, its own and those that it shares with HRM."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from hrm.config import dotted_keys
from hrm.models import registry
from hrm.models.trm import TRM
from hrm.training.config import load_pretrain_config
from tests.models.reference_trm import TRMReference

from .registry import Registry
from .test_arch_keys import Case, check_configured, configured, with_keys
from .training import TINY

acts = Registry()
TINY_TRM = (
    "arch=trm",
    *(key for key in TINY if key != "arch.H_layers=1"),
    *("arch.H_cycles=2", "arch.L_cycles=2", "arch.puzzle_emb_len=2"),
)
# Another value than in `TINY_TRM`, as a user types it and as it is meant, and what goes with it.
CASES: dict[str, Case] = {
    "hidden_size": ("24", 24, {"puzzle_emb_ndim": 24}),
    "num_heads": ("4", 4, {}),
    "L_layers": ("2", 2, {}),
    "H_cycles": ("3", 3, {}),
    "L_cycles": ("3", 3, {}),
    "halt_max_steps": ("2", 2, {}),
    "pos_encodings": ("none", "none", {}),
    "puzzle_emb_ndim": ("20", 20, {}),
    "puzzle_emb_len": ("3", 3, {}),
    "mlp_t": ("true", True, {}),
    "backprop": ("one_step", "one_step", {}),
    "q_continue": ("true", True, {}),
    "qk_norm": ("true", True, {}),
    "attention_bias": ("grid", "grid", {}),
    "loss.loss_type": ("softmax_cross_entropy", "softmax_cross_entropy", {}),
}


def reference(data: Path, state: dict[str, Tensor], keys: dict[str, Any]) -> TRMReference:
    """The reference with the keys of `TINY_TRM` and others, and a model's weights."""
    usual = load_pretrain_config([f"data_path={data}", *TINY_TRM]).arch.model_dump()
    arch, loss = with_keys(usual, keys)
    return TRMReference({**arch, "grid_shape": (4, 4), "box_shape": (2, 2)}, loss, state)


@acts(*CASES)
@pytest.mark.parametrize("key", CASES)
def test_the_model_is_as_configured(data, key):
    check_configured(data, key, CASES[key], reference, TINY_TRM)


@acts("name")
def test_the_core_is_found_by_name(data):
    published = "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"
    for name in ("trm", published):
        model, _ = configured(data, f"arch.name='{name}'", base=TINY_TRM)
        assert type(model.model.inner) is TRM


def test_every_key_has_a_test():
    shared = set(dotted_keys(registry.HRMArchConfig)) - CASES.keys()  # tested in `test_arch_keys`
    acts.check((set(dotted_keys(registry.TRMArchConfig)) - shared) | {"name"})
