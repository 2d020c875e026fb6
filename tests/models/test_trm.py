"""The Tiny Recursive Model against a plain float64 reference, its sizes, names and refusals."""

import itertools

import pytest
import torch
from torch._dynamo.utils import counters

import hrm
from hrm.device import compile_model
from hrm.errors import UserError

from .reference_trm import TRMReference
from .test_reference import (
    PLAIN,
    _float_means_double,  # noqa: F401
    assert_bfloat16_is_near,
    compare_with,
    covering,
)

PUBLISHED = "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"
LOSS = {"loss_type": "stablemax_cross_entropy"}
SMALL = {key: value for key, value in PLAIN.items() if key != "H_layers"} | {"name": "trm"}
# Every value that a switch can take; (ndim, len) go together: hidden is 16.
SWITCHES = {
    "mlp_t": [False, True],
    "pos_encodings": ["rope", "learned", "none", "grid"],
    "puzzle": [(0, 16), (0, 0), (16, 0), (16, 4), (5, 3), (24, 0), (24, 2), (48, 5)],
    "q_continue": [False, True],
    "H_cycles": [2, 1],
    "L_cycles": [3, 1],
    "L_layers": [1, 2],
    "halt_max_steps": [3, 1],
    "backprop": ["last_cycle", "one_step"],
    "qk_norm": [False, True],
    "attention_bias": ["none", "grid"],
    "loss_type": ["stablemax_cross_entropy", "softmax_cross_entropy"],
}


def split(case: dict) -> tuple[dict, dict]:
    case = dict(case)
    loss = {"loss_type": case.pop("loss_type")}
    ndim, length = case.pop("puzzle")
    return SMALL | case | {"puzzle_emb_ndim": ndim, "puzzle_emb_len": length}, loss


def is_possible(case: dict) -> bool:
    return not (case["mlp_t"] and (case["qk_norm"] or case["attention_bias"] == "grid"))


@pytest.mark.parametrize("ways", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_pair_and_triple_of_switches(ways):
    product = itertools.product(*SWITCHES.values())
    cases = [dict(zip(SWITCHES, values, strict=True)) for values in product]
    for case in covering(list(filter(is_possible, cases)), ways):
        try:
            compare_with(TRMReference, *split(case), seed=0, batch_length=6)
        except AssertionError as error:
            raise AssertionError(case) from error


def build(**changes) -> torch.nn.Module:
    return hrm.build_model(SMALL | {"puzzle_emb_len": 3} | changes, LOSS)


@pytest.mark.parametrize("mlp_t", [False, True])
def test_names_are_frozen(mlp_t):
    names = {"H_init", "L_init", "embed_tokens.embedding_weight", "lm_head.weight"}
    names |= {"q_head.weight", "q_head.bias", "puzzle_emb.weights"}
    mixer = ("mlp_t.gate_up_proj", "mlp_t.down_proj")
    parts = mixer if mlp_t else ("self_attn.qkv_proj", "self_attn.o_proj")
    parts += ("mlp.gate_up_proj", "mlp.down_proj")
    names |= {f"L_level.layers.{i}.{part}.weight" for i in range(2) for part in parts}
    model = build(mlp_t=mlp_t, L_layers=2)
    assert model.state_dict().keys() == {f"model.inner.{name}" for name in names}
    assert {n for n, _ in model.named_buffers() if n in model.state_dict()} == {
        f"model.inner.{name}" for name in ("H_init", "L_init", "puzzle_emb.weights")
    }


@pytest.mark.parametrize(
    "seq_len, mlp_t, parameters",
    [
        (81, False, 6_829_058),
        (900, False, 6_829_058),
        (81, True, 5_029_890),
        (900, True, 18_801_666),
    ],
)
def test_sizes_are_the_published_ones(seq_len, mlp_t, parameters):
    """At S = 97 the MLP over positions is 512 wide, at S = 916 it is 2,560."""
    arch = {"name": PUBLISHED, "hidden_size": 512, "num_heads": 8, "expansion": 4, "L_layers": 2}
    arch |= {"H_cycles": 3, "L_cycles": 6, "halt_max_steps": 16, "halt_exploration_prob": 0.1}
    arch |= {"H_layers": 0, "puzzle_emb_ndim": 512, "puzzle_emb_len": 16, "mlp_t": mlp_t}
    arch |= {"pos_encodings": "rope", "no_ACT_continue": True, "causal": False, "batch_size": 768}
    arch |= {"seq_len": seq_len, "vocab_size": 12, "num_puzzle_identifiers": 1000}
    with torch.device("meta"):
        model = hrm.build_model(arch, LOSS | {"name": "losses@ACTLossHead"})
    assert sum(p.numel() for p in model.parameters()) == parameters
    if mlp_t:
        S, width = seq_len + 16, {81: 512, 900: 2560}[seq_len]
        block = model.model.inner.L_level.layers[0]
        assert block.mlp_t.gate_up_proj.weight.shape == (2 * width, S)
        assert block.mlp_t.down_proj.weight.shape == (S, width)


def test_fresh_weights_of_the_mlp_over_positions():
    arch = {"seq_len": 100, "grid_shape": None, "box_shape": None, "mlp_t": True}
    block = build(**arch, puzzle_emb_ndim=0).model.inner.L_level.layers[0]
    for linear, fan_in in ((block.mlp_t.gate_up_proj, 100), (block.mlp_t.down_proj, 256)):
        assert linear.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.02)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"puzzle_emb_ndim": 17, "puzzle_emb_len": 1}, "puzzle_emb_len 1 .* puzzle_emb_ndim 17"),
        ({"pos_encodings": "rotary"}, "pos_encodings"),
        ({"mlp_t": True, "qk_norm": True}, "qk_norm .* mlp_t"),
        ({"mlp_t": True, "attention_bias": "grid"}, "attention_bias .* mlp_t"),
        ({"num_heads": 3}, "not divisible by num_heads"),
        ({"H_layers": 0}, "H_layers: unknown key"),
        ({"puzzle_emb_mode": "add"}, "puzzle_emb_mode: unknown key"),
        ({"no_ACT_continue": True}, "no_ACT_continue: unknown key"),
        ({"name": PUBLISHED, "no_ACT_continue": "maybe"}, "no_ACT_continue 'maybe'"),
        ({"name": PUBLISHED, "causal": True}, "causal True"),
        ({"name": PUBLISHED, "rope_theta": 500}, "rope_theta 500"),
        ({"name": PUBLISHED, "rms_norm_eps": 1e-6}, "rms_norm_eps 1e-06"),
        ({"name": PUBLISHED, "attention": "flash"}, "attention: unknown key"),
        ({"name": "hrm_act_v1"}, "H_layers"),
    ],
    ids=str,
)
def test_impossible_architectures_are_named(change, words):
    with pytest.raises(UserError, match=words) as caught:
        build(**change)
    assert "\n" not in str(caught.value)


def test_keys_of_the_original_are_understood_under_its_name():
    extra = {"name": PUBLISHED, "H_layers": 7, "causal": False, "batch_size": 5}
    extra |= {"rms_norm_eps": 1e-5, "rope_theta": 10000.0}
    for given, expected in ((True, False), (False, True)):
        config = build(**extra, no_ACT_continue=given).model.config
        assert config.q_continue is expected
    assert build(**extra).model.config.q_continue is False  # the original's default, and ours


# -- what must not matter ------------------------------------------------------------------------


@pytest.fixture
def plain_floats(monkeypatch):
    """Undo `_float_means_double`, which comes with the reference."""
    monkeypatch.undo()


def make_batch(rows: int) -> dict[str, torch.Tensor]:
    return {
        "inputs": torch.randint(7, (rows, 6), dtype=torch.int32),
        "labels": torch.randint(7, (rows, 6), dtype=torch.int32),
        "puzzle_identifiers": torch.randint(-1, 4, (rows,), dtype=torch.int32),
    }


def shaken(mlp_t: bool, **changes) -> torch.nn.Module:
    model = build(mlp_t=mlp_t, forward_dtype="float32", **changes)
    inner = model.model.inner
    with torch.no_grad():
        inner.q_head.weight.normal_()
        inner.q_head.bias.zero_()
        inner.puzzle_emb.weights.normal_()
    return model


@pytest.mark.parametrize("mlp_t", [False, True])
def test_order_of_the_batch_and_padding_rows(mlp_t, plain_floats):
    model = shaken(mlp_t).train()
    order = torch.tensor([4, 0, 3, 1, 2])
    first = make_batch(5)
    padding = make_batch(3)
    padding["labels"].fill_(-100)
    padded = {name: torch.cat([first[name][order], padding[name]]) for name in first}
    carry, other = model.initial_carry(first), model.initial_carry(padded)
    for _ in range(3):
        batch = make_batch(5)
        more = {name: torch.cat([batch[name][order], padding[name]]) for name in batch}
        keys = ("logits", "q_halt_logits", "preds")
        carry, _, _, outputs, _ = model(carry=carry, batch=batch, return_keys=keys)
        other, _, _, shuffled, _ = model(carry=other, batch=more, return_keys=keys)
        assert torch.equal(other.halted[:5], carry.halted[order])
        for key in keys:
            torch.testing.assert_close(shuffled[key][:5], outputs[key][order])
        assert torch.equal(outputs["preds"], outputs["logits"].argmax(-1))


@pytest.mark.filterwarnings("ignore")  # torch warns of its own doings while compiling
@pytest.mark.parametrize(
    ("mlp_t", "mode"),
    [(True, "auto"), (False, "step"), pytest.param(False, "auto", marks=pytest.mark.slow)],
)
def test_compiled_models_compute_the_same(mlp_t, mode, plain_floats):
    eager, compiled = shaken(mlp_t, L_cycles=1), shaken(mlp_t, L_cycles=1)
    assert compile_model(compiled, mode, torch.device("cpu")), "no compiler to try"
    before = counters["stats"]["unique_graphs"]
    compiled.load_state_dict(eager.state_dict())
    batch = make_batch(4)
    ran = []
    for model in (eager, compiled):
        carry, loss, *_ = model(carry=model.initial_carry(batch), batch=batch)
        loss.backward()
        ran.append((carry, loss))
    graphs = counters["stats"]["unique_graphs"] - before
    assert (graphs == 1) == (mode == "step") and graphs >= 1
    states = [carry.states["z_H"] for carry, _ in ran]
    torch.testing.assert_close(states[1], states[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ran[1][1], ran[0][1], rtol=1e-5, atol=1e-5)
    for (name, p), p2 in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        assert (p2.grad - p.grad).abs().max() <= 1e-4 * p.grad.abs().max() + 1e-7, name


@pytest.mark.parametrize("mlp_t", [False, True])
def test_bfloat16_is_near_float32(mlp_t, plain_floats):
    exact, low = shaken(mlp_t), build(mlp_t=mlp_t, forward_dtype="bfloat16")
    low.load_state_dict(exact.state_dict())
    assert_bfloat16_is_near(exact, low, make_batch(6))
