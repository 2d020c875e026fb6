"""Every key of the symbol-equivariant model acts, its own and those that it shares with others."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from hrm.config import dotted_keys
from hrm.models import registry
from hrm.models.symbol_equivariant import SymbolEquivariant
from hrm.training.config import load_pretrain_config
from tests.models.reference_symbols import SymbolReference

from .registry import Registry
from .test_arch_keys import Case, check_configured, configured, with_keys
from .training import TINY

acts = Registry()
ABSENT = ("H_layers", "num_heads", "puzzle_emb", "pos_encodings")
TINY_SYMBOLS = (
    "arch=symbol_equivariant",
    *(key for key in TINY if not any(name in key for name in ABSENT)),
    *("arch.H_cycles=2", "arch.L_cycles=2", "arch.message_size=4"),
)
# Another value than in `TINY_SYMBOLS`, as a user types it and as it is meant.
CASES: dict[str, Case] = {
    "hidden_size": ("24", 24, {}),
    "message_size": ("6", 6, {}),
    "first_symbol": ("2", 2, {}),
    "L_layers": ("2", 2, {}),
    "H_cycles": ("3", 3, {}),
    "L_cycles": ("3", 3, {}),
    "halt_max_steps": ("2", 2, {}),
    "backprop": ("one_step", "one_step", {}),
    "q_continue": ("true", True, {}),
    "loss.loss_type": ("stablemax_cross_entropy", "stablemax_cross_entropy", {}),
}


def reference(data: Path, state: dict[str, Tensor], keys: dict[str, Any]) -> SymbolReference:
    """The reference with the keys of `TINY_SYMBOLS` and others, and a model's weights."""
    usual = load_pretrain_config([f"data_path={data}", *TINY_SYMBOLS]).arch.model_dump()
    arch, loss = with_keys(usual, keys)
    grid = {"grid_shape": (4, 4), "box_shape": (2, 2), "first_digit": 1, "vocab_size": 5}
    return SymbolReference({**arch, **grid}, loss, state)


@acts(*CASES)
@pytest.mark.parametrize("key", CASES)
def test_the_model_is_as_configured(data, key):
    check_configured(data, key, CASES[key], reference, TINY_SYMBOLS)


@acts("name")
def test_the_core_is_found_by_name(data):
    model, _ = configured(data, "arch.name=symbol_equivariant", base=TINY_SYMBOLS)
    assert type(model.model.inner) is SymbolEquivariant


@acts("expansion")
def test_the_inner_width(data):
    """Of 16 numbers: rounded up to 16, expansion 1 gives 16, 2 gives 32."""
    for given, width in (("1", 16), ("2", 32)):
        model, _ = configured(data, f"arch.expansion={given}", base=TINY_SYMBOLS)
        block = model.model.inner.L_level.layers[0]
        assert block.mlp.down_proj.weight.shape == (16, width)


def test_every_key_has_a_test():
    shared = set(dotted_keys(registry.HRMArchConfig)) - CASES.keys()  # tested in `test_arch_keys`
    own = set(dotted_keys(registry.SymbolEquivariantArchConfig)) - shared
    acts.check(own | {"name", "expansion"})
