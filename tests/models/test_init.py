"""Fresh weights: distributions, and the names that published checkpoints rely on."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import hrm
from hrm.models.layers import truncated_normal

GOLDEN = Path(__file__).parents[1] / "golden"
LOSS = {"loss_type": "softmax_cross_entropy"}
ARCH = {
    "seq_len": 16,
    "vocab_size": 300,
    "num_puzzle_identifiers": 3,
    "hidden_size": 128,
    "num_heads": 4,
    "expansion": 4,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 1,
    "L_cycles": 1,
    "halt_max_steps": 2,
    "halt_exploration_prob": 0.1,
    "pos_encodings": "learned",
    "puzzle_emb_ndim": 128,
}
# Standard deviation of a standard normal cut at ±2.
CUT_STD = 0.8796256610342398


def assert_truncated_normal(weights: torch.Tensor, std: float) -> None:
    n = weights.numel()
    assert weights.std().item() == pytest.approx(std, rel=4 / math.sqrt(n))
    assert abs(weights.mean().item()) < 5 * std / math.sqrt(n)
    bound = 2 * std / CUT_STD
    assert weights.abs().max() <= bound * (1 + 1e-6)
    if n > 10_000:  # the cut is where it should be, not further in
        assert weights.abs().max() > bound * 0.97


@pytest.mark.parametrize("std", [1.0, 0.02])
def test_truncated_normal(std):
    sample = truncated_normal(400, 500, std=std)
    assert sample.shape == (400, 500) and sample.dtype == torch.float32
    assert sample.std().item() == pytest.approx(std, rel=0.006)
    assert_truncated_normal(sample, std)
    # the density inside: P(|x| < σ) / P(|x| < 2σ) of a normal with σ = std / CUT_STD
    inside = (sample.abs() < std / CUT_STD).double().mean().item()
    assert inside == pytest.approx(math.erf(1 / math.sqrt(2)) / math.erf(math.sqrt(2)), abs=0.005)


def test_truncated_normal_of_width_zero():
    assert torch.equal(truncated_normal(3, 2, std=0.0), torch.zeros(3, 2))


def test_every_tensor():
    inner = hrm.build_model(ARCH, LOSS).model.inner
    expected = {  # name -> fan_in
        "embed_tokens.embedding_weight": 128,
        "embed_pos.embedding_weight": 128,
        "lm_head.weight": 128,
    }
    for level in ("H_level", "L_level"):
        expected |= {
            f"{level}.layers.0.self_attn.qkv_proj.weight": 128,
            f"{level}.layers.0.self_attn.o_proj.weight": 128,
            f"{level}.layers.0.mlp.gate_up_proj.weight": 128,
            f"{level}.layers.0.mlp.down_proj.weight": 512,
        }
    state = inner.state_dict()
    for name, fan_in in expected.items():
        assert_truncated_normal(state.pop(name), 1 / math.sqrt(fan_in))
    for name in ("H_init", "L_init"):
        assert_truncated_normal(state.pop(name), 1.0)
        assert name in dict(inner.named_buffers())
    assert torch.equal(state.pop("q_head.weight"), torch.zeros(2, 128))
    assert torch.equal(state.pop("q_head.bias"), torch.full((2,), -5.0))
    assert torch.equal(state.pop("puzzle_emb.weights"), torch.zeros(3, 128))
    assert not state


def test_grid_tables():
    grid = {"pos_encodings": "grid", "seq_len": 36, "grid_shape": [6, 6], "box_shape": [2, 3]}
    inner = hrm.build_model(ARCH | grid, LOSS).model.inner
    for table in ("row", "column", "box"):
        weight = inner.get_parameter(f"embed_pos.{table}.embedding_weight")
        assert weight.shape == (6, 128)
        assert_truncated_normal(weight.detach(), 1 / math.sqrt(128))


def test_a_grid_that_states_no_boxes_has_none():
    grid = {"pos_encodings": "grid", "attention_bias": "grid", "seq_len": 36}
    for more, has_boxes in (
        ({"grid_shape": [6, 6], "box_shape": [2, 3]}, True),
        ({"grid_shape": [6, 6]}, False),
        ({"seq_len": 81}, True),  # nothing is stated: those of 9x9 are known
        ({"seq_len": 81, "grid_shape": [9, 9]}, False),
        ({"seq_len": 12, "grid_shape": [3, 4]}, False),
    ):
        inner = hrm.build_model(ARCH | grid | more, LOSS).model.inner
        assert ("embed_pos.box.embedding_weight" in inner.state_dict()) == has_boxes


def test_fresh_weights_follow_the_global_seed():
    torch.manual_seed(5)
    first = hrm.build_model(ARCH, LOSS).state_dict()
    again = hrm.build_model(ARCH, LOSS).state_dict()
    torch.manual_seed(5)
    second = hrm.build_model(ARCH, LOSS).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model.inner.H_init"], again["model.inner.H_init"])
    assert not torch.equal(first["model.inner.H_init"], first["model.inner.L_init"])


@pytest.mark.parametrize("case", ["rope_stablemax", "learned_softmax"])
def test_names_and_shapes_are_those_of_the_golden_weights(case):
    arrays = np.load(GOLDEN / f"{case}.npz")
    meta = json.loads(str(arrays["meta"]))
    model = hrm.build_model(meta["arch"], {"loss_type": meta["loss_type"]})
    golden = {n.removeprefix("init/"): arrays[n].shape for n in arrays if n.startswith("init/")}
    assert {n: tuple(t.shape) for n, t in model.state_dict().items()} == golden
    assert all(t.dtype == torch.float32 for t in model.state_dict().values())


LAYER_NAMES = (
    "self_attn.qkv_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.gate_up_proj.weight",
    "mlp.down_proj.weight",
)


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_names_are_frozen(positions):
    names = {"H_init", "L_init", "embed_tokens.embedding_weight", "lm_head.weight"}
    names |= {"q_head.weight", "q_head.bias", "puzzle_emb.weights"}
    names |= {"embed_pos.embedding_weight"} if positions == "learned" else set()
    for level, layers in (("H", 2), ("L", 3)):
        names |= {f"{level}_level.layers.{i}.{n}" for i in range(layers) for n in LAYER_NAMES}
    model = hrm.build_model(ARCH | {"H_layers": 2, "L_layers": 3, "pos_encodings": positions}, LOSS)
    assert model.state_dict().keys() == {f"model.inner.{name}" for name in names}


@pytest.mark.parametrize(
    "hidden, expansion, width",
    [(512, 4, 1536), (512, 6, 2048), (128, 4, 512), (32, 4, 256), (96, 4, 256), (97 * 4, 1, 512)],
)
def test_inner_width(hidden, expansion, width):
    arch = ARCH | {"hidden_size": hidden, "expansion": expansion, "puzzle_emb_ndim": 0}
    with torch.device("meta"):
        mlp = hrm.build_model(arch, LOSS).model.inner.H_level.layers[0].mlp
    assert mlp.gate_up_proj.weight.shape == (2 * width, hidden)
    assert mlp.down_proj.weight.shape == (hidden, width)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"hidden_size": 30}, "not divisible by num_heads"),
        ({"hidden_size": 12, "pos_encodings": "rope"}, "even"),
        ({"puzzle_emb_mode": "add", "puzzle_emb_ndim": 129}, "puzzle_emb_ndim <= hidden_size"),
        ({"pos_encodings": "grid", "seq_len": 36}, "needs grid_shape, and box_shape"),
        ({"pos_encodings": "grid", "grid_shape": [4, 5], "box_shape": [2, 2]}, "do not fit"),
        ({"pos_encodings": "grid", "grid_shape": [4, 4], "box_shape": [3, 2]}, "do not fit"),
        ({"pos_encodings": "grid", "grid_shape": [4, 4], "box_shape": [0, 2]}, "box_shape"),
        ({"halt_exploration_prob": 1.5}, "halt_exploration_prob"),
        ({"H_cycles": 0}, "H_cycles"),
        ({"h_cycles": 2}, "h_cycles"),
        ({"backprop": "all"}, "backprop"),
        ({"name": "gpt"}, "arch.name: unknown 'gpt'"),
    ],
    ids=str,
)
def test_impossible_architectures_are_named(change, words):
    from hrm.errors import UserError

    with pytest.raises(UserError, match=words) as caught:
        hrm.build_model(ARCH | change, LOSS)
    assert "\n" not in str(caught.value)


def test_names_of_the_original_build_the_same_model():
    arch = ARCH | {"name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1", "batch_size": 8}
    ours = hrm.build_model(arch, LOSS | {"name": "losses@ACTLossHead"})
    assert type(ours) is type(hrm.build_model(ARCH, LOSS))
