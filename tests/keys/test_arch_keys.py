"""Every key of the architecture acts: the model that a configuration builds computes what the
independent reference computes with that value, and not what it computes with the usual one."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm.checkpoint import build_for
from hrm.config import dotted_keys
from hrm.data import PuzzleDataset
from hrm.data.format import read_metadata
from hrm.errors import UserError
from hrm.models import registry
from hrm.models.hrm import HRM
from hrm.models.losses import ACTLossHead, LossConfig
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.splits import open_split
from tests.models.reference_act import Reference

from .registry import Registry
from .training import TABLE, TINY, run

acts = Registry()
Case = tuple[str, Any, dict[str, Any]]  # as typed, as meant, and what goes with it
MakeReference = Callable[[Path, dict[str, Tensor], dict[str, Any]], Any]
ALONE = Ranks(0, 1, 0)
# Another value than in `TINY`, as a user types it and as it is meant, and what goes with it.
CASES: dict[str, Case] = {
    "hidden_size": ("24", 24, {"puzzle_emb_ndim": 24}),
    "num_heads": ("4", 4, {}),
    "H_layers": ("2", 2, {}),
    "L_layers": ("2", 2, {}),
    "H_cycles": ("3", 3, {}),
    "L_cycles": ("3", 3, {}),
    "halt_max_steps": ("2", 2, {}),
    "pos_encodings": ("grid", "grid", {}),
    "puzzle_emb_ndim": ("20", 20, {}),
    "backprop": ("last_cycle", "last_cycle", {}),
    "q_continue": ("false", False, {}),
    "qk_norm": ("true", True, {}),
    "attention_bias": ("grid", "grid", {}),
    "puzzle_emb_mode": ("add", "add", {}),
    "loss.loss_type": ("softmax_cross_entropy", "softmax_cross_entropy", {}),
    "loss.lm_loss_weight": ("0.3", 0.3, {}),
    "loss.q_halt_weight": ("0.2", 0.2, {}),
    "loss.q_continue_weight": ("0.7", 0.7, {}),
    "loss.q_continue_loss": ("mse", "mse", {}),
}


def configured(
    data: Path, *keys: str, base: tuple[str, ...] = TINY
) -> tuple[ACTLossHead, PuzzleDataset]:
    """The model and the data of a run, as training makes them."""
    config = load_pretrain_config([f"data_path={data}", *base, "global_batch_size=4", *keys])
    torch.manual_seed(0)
    return build_for(config, read_metadata(data / "train")), open_split(config, ALONE, "train")


def shaken(model: ACTLossHead) -> dict[str, Tensor]:
    """Weights under which no part of the model is without effect."""
    state, generator = model.state_dict(), torch.Generator().manual_seed(1)
    for name in (TABLE, "model.inner.q_head.weight"):
        if name in state:
            state[name].copy_(torch.randn(state[name].shape, generator=generator))
    state["model.inner.q_head.bias"].copy_(torch.tensor([-0.5, 0.5]))
    return state


@cache
def usual_arch(data: Path) -> dict[str, Any]:
    return load_pretrain_config([f"data_path={data}", *TINY]).arch.model_dump()


def with_keys(arch: dict[str, Any], keys: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An architecture and its loss with other values of some keys."""
    arch = dict(arch)
    loss = dict(arch.pop("loss"))
    for key, value in keys.items():
        group, _, name = key.rpartition(".")
        (loss if group else arch)[name] = value
    return arch, loss


def reference(data: Path, state: dict[str, Tensor], keys: dict[str, Any]) -> Reference:
    """The reference with the keys of `TINY` and others, and a model's weights."""
    arch, loss = with_keys(usual_arch(data), keys)
    return Reference({**arch, "grid_shape": (4, 4), "box_shape": (2, 2)}, loss, state)


def trained_steps(model: Any, batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """What a model, ours or the reference, gives in some training steps."""
    carry, found = model.initial_carry(batches[0]), []
    for batch in batches:
        if isinstance(model, Reference):
            carry, out = model.step(carry, batch, training=True)
            loss, logits, parameters = out["loss"], out["logits"], model.p
            halted = torch.tensor(carry["halted"])
        else:
            carry, loss, _, out, _ = model(carry=carry, batch=batch, return_keys=["logits"])
            logits, halted = out["logits"], carry.halted
            parameters = {n.removeprefix("model.inner."): p for n, p in model.named_parameters()}
        named = {n: p for n, p in parameters.items() if p.requires_grad}
        grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        of = {f"gradient of {n}": g for n, g in zip(named, grads, strict=True) if g is not None}
        found.append({"loss": loss.detach(), "logits": logits.detach(), "halted": halted, **of})
    return found


def is_same(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> bool:
    """Whether all that we compute is what the reference computes."""
    for mine, other in zip(ours, theirs, strict=True):
        for name, tensor in mine.items():
            if name not in other or tensor.shape != other[name].shape:
                return False
            scale = other[name].double().abs().max().clamp(min=1e-3)
            if (tensor.double() - other[name].double()).abs().max() > 1e-4 * scale:
                return False
    return True


def check_configured(
    data: Path, key: str, case: Case, reference: MakeReference, base: tuple[str, ...]
) -> None:
    """The model computes what the reference does with that key, and not what it does without."""
    text, value, more = case
    given = [f"arch.{key}={text}", *(f"arch.{name}={other}" for name, other in more.items())]
    model, train_set = configured(data, *given, base=base)
    state = shaken(model)
    batches = [train_set.batch(0, index)[1] for index in range(3)]
    ours = trained_steps(model.train(), batches)
    assert is_same(ours, trained_steps(reference(data, state, {key: value, **more}), batches))
    try:
        usual = trained_steps(reference(data, state, {}), batches)
    except (KeyError, RuntimeError):
        return  # the weights have other names or shapes
    assert not is_same(ours, usual)


@acts(*CASES, "loss")
@pytest.mark.parametrize("key", CASES)
def test_the_model_is_as_configured(data, key):
    check_configured(data, key, CASES[key], reference, TINY)


@acts("expansion")
def test_expansion_sets_the_inner_width(data):
    for expansion, width in (("1", 256), ("30", 512)):  # 30 · 16 · 2/3 is 320
        model, _ = configured(data, f"arch.expansion={expansion}")
        for level in ("H_level", "L_level"):
            mlp = f"model.inner.{level}.layers.0.mlp"
            assert model.get_parameter(f"{mlp}.gate_up_proj.weight").shape == (2 * width, 16)
            assert model.get_parameter(f"{mlp}.down_proj.weight").shape == (16, width)


@acts("halt_exploration_prob")
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_exploration_is_as_frequent_as_configured(data, probability):
    """All sequences want to halt; those that explore take 2 steps at least."""
    keys = ("arch.q_continue=false", "global_batch_size=32")
    model, train_set = configured(data, f"arch.halt_exploration_prob={probability}", *keys)
    model.model.inner.q_head.bias.data.fill_(5)
    batch = train_set.batch(0, 0)[1]
    carry, kept = model.train().initial_carry(batch), []
    for _ in range(30):
        begins = carry.halted
        with torch.no_grad():
            carry, *_ = model(carry=carry, batch=batch)
        kept.append(~carry.halted[begins])
    assert torch.cat(kept).float().mean().item() == pytest.approx(probability, abs=0.06)


@acts("forward_dtype")
@pytest.mark.parametrize(
    ("given", "capability", "dtype"),
    [
        ("bfloat16", "AVX512", torch.bfloat16),
        ("float32", "AVX512", torch.float32),
        ("auto", "AVX512", torch.bfloat16),
        ("auto", "AVX2", torch.float32),
    ],
)
def test_activations_are_of_the_dtype(data, tmp_path, monkeypatch, given, capability, dtype):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    short = ("epochs=1", "global_batch_size=32", "arch.halt_max_steps=1")
    made = run(data, tmp_path / "run", f"arch.forward_dtype={given}", *short)
    assert made.kept(1, "carry/")["z_H"].dtype == dtype
    assert {weight.dtype for weight in made.weights(1).values()} == {torch.float32}


@acts("name")
def test_the_core_is_found_by_name(data, monkeypatch):
    class Other(HRM):
        pass

    monkeypatch.setitem(registry.CORES, "other", registry.CORES["hrm_act_v1"]._replace(core=Other))
    assert type(configured(data, "arch.name=other")[0].model.inner) is Other
    published = "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1"
    assert type(configured(data, f"arch.name='{published}'")[0].model.inner) is HRM
    with pytest.raises(UserError, match="arch.name: unknown 'none'"):
        configured(data, "arch.name=none")


@acts("loss.name")
def test_the_loss_head_is_found_by_name(data, monkeypatch):
    class Other(ACTLossHead):
        pass

    monkeypatch.setitem(registry.LOSS_HEADS, "other", (Other, LossConfig))
    assert type(configured(data, "arch.loss.name=other")[0]) is Other
    assert type(configured(data, "arch.loss.name='losses@ACTLossHead'")[0]) is ACTLossHead
    with pytest.raises(UserError, match="arch.loss.name: unknown 'none'"):
        configured(data, "arch.loss.name=none")


def test_every_key_has_a_test():
    acts.check(set(dotted_keys(registry.HRMArchConfig)))
