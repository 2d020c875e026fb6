"""Attention, rotary positions and token losses alone; bfloat16 and compiled against float32."""

import math
import shutil

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import hrm
from hrm.device import compile_model
from hrm.models import attention
from hrm.models.attention import scaled_attention
from hrm.models.layers import CastedEmbedding, RMSNorm, RotaryEmbedding
from hrm.models.losses import log_stablemax, softmax_cross_entropy, stablemax_cross_entropy

ARCH = {
    "seq_len": 16,
    "vocab_size": 6,
    "num_puzzle_identifiers": 4,
    "hidden_size": 32,
    "num_heads": 4,
    "expansion": 2,
    "H_layers": 1,
    "L_layers": 2,
    "H_cycles": 2,
    "L_cycles": 2,
    "halt_max_steps": 3,
    "halt_exploration_prob": 0.0,
    "pos_encodings": "rope",
    "puzzle_emb_ndim": 32,
    "grid_shape": [4, 4],
    "box_shape": [2, 2],
}
LOSS = {"loss_type": "stablemax_cross_entropy"}


def make_batch(rows: int = 4) -> dict[str, torch.Tensor]:
    return {
        "inputs": torch.randint(6, (rows, 16), dtype=torch.int32),
        "labels": torch.randint(6, (rows, 16), dtype=torch.int32),
        "puzzle_identifiers": torch.arange(rows, dtype=torch.int32) % 4 - 1,
    }


# -- attention -----------------------------------------------------------------------------------


def plain_attention(q, k, v, scale, bias=0):
    q, k, v = q.double(), k.double(), v.double()
    return torch.softmax(q @ k.transpose(-2, -1) * scale + bias, dim=-1) @ v


def assert_near(found, expected, tolerance):
    assert (found.double() - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("longest", [0, 10**6], ids=["fused", "plain where allowed"])
def test_both_ways_of_attention(dtype, tolerance, longest, monkeypatch):
    monkeypatch.setattr(attention, "CPU_PLAIN_ATTENTION_MAX_LEN", longest)
    q, k, v = (torch.randn(2, 3, 11, 8).to(dtype) for _ in range(3))
    for scale in (1 / math.sqrt(8), 1.7):
        y = scaled_attention(q, k, v, scale)
        assert y.dtype == dtype
        assert_near(y, plain_attention(q, k, v, scale), tolerance)


def test_both_ways_of_attention_have_the_same_gradients(monkeypatch):
    gradients = []
    data = torch.randn(3, 2, 3, 11, 8).bfloat16()
    weights = torch.randn(2, 3, 11, 8)
    for longest in (0, 10**6):
        monkeypatch.setattr(attention, "CPU_PLAIN_ATTENTION_MAX_LEN", longest)
        leaves = data.clone().requires_grad_()
        (scaled_attention(*leaves, 0.4).float() * weights).sum().backward()
        gradients.append(leaves.grad.float())
    error = (gradients[0] - gradients[1]).abs().max()
    assert error < 0.02 * gradients[0].abs().max()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("longest", [0, 10**6], ids=["fused", "plain where allowed"])
def test_both_ways_of_attention_take_a_bias_and_give_it_a_gradient(
    dtype, tolerance, longest, monkeypatch
):
    monkeypatch.setattr(attention, "CPU_PLAIN_ATTENTION_MAX_LEN", longest)
    q, k, v, weights = (torch.randn(2, 3, 11, 8).to(dtype) for _ in range(4))
    leaves = [x.requires_grad_() for x in (q, k, v, torch.randn(3, 11, 11))]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    y = scaled_attention(*leaves[:3], 0.4, leaves[3])
    expected = plain_attention(*exact[:3], 0.4, exact[3])
    assert_near(y, expected, tolerance)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for leaf, one in zip(leaves, exact, strict=True):
        assert leaf.grad.dtype == leaf.dtype
        assert_near(leaf.grad, one.grad, tolerance)


@pytest.fixture
def every_length_is_long(monkeypatch):
    monkeypatch.setattr(attention, "CPU_PLAIN_ATTENTION_MAX_LEN", 0)
    monkeypatch.setattr(attention, "KEPT_SCORES_MAX_LEN", 0)
    monkeypatch.setattr(attention, "CPU_CHUNK", 2 * 3 * 11 * 4)  # 4 of 11 positions at a time


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_gradients_of_long_attention_are_those_of_kept_scores(
    dtype, tolerance, every_length_is_long, monkeypatch
):
    q, k, v, weights = (torch.randn(2, 3, 11, 8).to(dtype) for _ in range(4))
    bias = torch.randn(3, 11, 11)
    found = []
    for longest in (0, 11):
        monkeypatch.setattr(attention, "KEPT_SCORES_MAX_LEN", longest)
        leaves = [x.clone().requires_grad_() for x in (q, k, v, bias)]
        y = scaled_attention(*leaves[:3], 0.4, leaves[3])
        (y * weights).sum().backward()
        found.append([y, *(leaf.grad for leaf in leaves)])
    for long, kept in zip(*found, strict=True):
        assert long.dtype == kept.dtype
        torch.testing.assert_close(long, kept, rtol=tolerance, atol=tolerance)


def test_gradients_of_long_attention_are_finite_differences(every_length_is_long):
    q, k, v = (torch.randn(2, 3, 11, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = torch.randn(3, 11, 11, dtype=torch.float64, requires_grad=True)

    def attend(*leaves: torch.Tensor) -> torch.Tensor:
        return scaled_attention(*leaves[:3], 0.4, leaves[3])

    assert torch.autograd.gradcheck(attend, (q, k, v, bias))


def test_long_attention_keeps_no_scores_of_all_rows():
    rows, heads, positions = 2, 2, 600
    q, k, v = (torch.randn(rows, heads, positions, 4, requires_grad=True) for _ in range(3))
    bias = torch.randn(heads, positions, positions, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, id):
        scaled_attention(q, k, v, 0.4, bias)
    assert kept and max(kept) == heads * positions**2


# -- positions and norm --------------------------------------------------------------------------


def test_rotary_positions_are_relative():
    rotate = RotaryEmbedding(40, 8)
    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 1, 40, 8)
    scores = rotate(q) @ rotate(k).transpose(-2, -1)
    assert torch.equal(rotate(q)[..., 0, :], q[..., 0, :])
    for offset in (-7, 0, 1, 30):
        diagonal = scores[0, 0].diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores[0, 0, 0, 1], scores[0, 0, 1, 0])
    torch.testing.assert_close(rotate(q).norm(dim=-1), q.norm(dim=-1))


def test_rotary_tables_are_not_weights():
    assert not RotaryEmbedding(5, 4).state_dict()


def test_norm_is_computed_in_float32():
    x = (torch.randn(5, 64) * 300).bfloat16()
    y = RMSNorm()(x)
    assert y.dtype == torch.bfloat16
    exact = x.double() / torch.sqrt(x.double().square().mean(-1, keepdim=True) + 1e-5)
    assert torch.equal(y, exact.float().bfloat16())
    tiny = torch.full((1, 8), 1e-3)  # here ε matters
    torch.testing.assert_close(RMSNorm()(tiny), tiny / math.sqrt(1e-6 + 1e-5))


# -- token losses --------------------------------------------------------------------------------


def test_stablemax_by_numbers():
    x = torch.tensor([[[2.0, 0.0, -1.0, -3.0]]], dtype=torch.float64)
    s = torch.tensor([3.0, 1.0, 0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(log_stablemax(x)[0, 0].exp(), s / s.sum())
    loss = stablemax_cross_entropy(x.float(), torch.tensor([[3]]))
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(-math.log(0.25 / 4.75), rel=1e-12)


@pytest.mark.parametrize("token_loss", [stablemax_cross_entropy, softmax_cross_entropy])
@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
def test_token_losses_are_finite_with_finite_gradients(token_loss, size):
    logits = (torch.randn(2, 5, 7) * size).requires_grad_()
    with torch.no_grad():
        logits[0, 0] = 0
    labels = torch.randint(7, (2, 5))
    labels[1, 2:] = -100
    loss = token_loss(logits, labels)
    loss.sum().backward()
    assert loss.isfinite().all() and logits.grad.isfinite().all()
    assert (loss >= 0).all() and not loss[1, 2:].any() and not logits.grad[1, 2:].any()


# -- precision and compilation -------------------------------------------------------------------


def run(model, batch, steps=1):
    carry = model.initial_carry(batch)
    for _ in range(steps):
        carry, loss, metrics, outputs, _ = model(
            carry=carry, batch=batch, return_keys=("logits", "q_halt_logits")
        )
    return carry, loss, metrics, outputs


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("positions", ["rope", "learned", "grid"])
@pytest.mark.parametrize("backprop", ["one_step", "last_cycle"])
def test_low_precision_is_near_float32(positions, dtype, backprop):
    arch = ARCH | {"pos_encodings": positions, "qk_norm": positions == "grid"}
    arch |= {"backprop": backprop}
    exact = hrm.build_model(arch | {"forward_dtype": "float32"}, LOSS)
    exact.state_dict()["model.inner.puzzle_emb.weights"].normal_()
    exact.state_dict()["model.inner.q_head.weight"].normal_(std=0.2)
    low = hrm.build_model(arch | {"forward_dtype": dtype}, LOSS)
    low.load_state_dict(exact.state_dict())
    batch = make_batch()
    carry, loss, metrics, outputs = run(low, batch)
    _, exact_loss, _, exact_outputs = run(exact, batch)
    assert carry.states["z_H"].dtype == carry.states["z_L"].dtype == getattr(torch, dtype)
    assert outputs["logits"].dtype == getattr(torch, dtype)
    assert outputs["q_halt_logits"].dtype == torch.float32
    assert loss.item() == pytest.approx(exact_loss.item(), rel=0.03)
    error = (outputs["logits"].float() - exact_outputs["logits"]).norm()
    assert error < 0.08 * exact_outputs["logits"].norm()
    loss.backward()
    exact_loss.backward()
    ours = torch.cat([p.grad.flatten() for p in low.parameters()])
    expected = torch.cat([p.grad.flatten() for p in exact.parameters()])
    assert ours.dtype == torch.float32 and ours.isfinite().all()  # weights stay float32
    assert torch.cosine_similarity(ours, expected, dim=0) > 0.98
    for _ in range(2):  # and it goes on without overflow
        carry, loss, *_ = low(carry=carry, batch=batch)
    assert loss.isfinite()


def test_weights_are_cast_once_per_act_step():
    """However many calls, the second forward pass included: four in each of three blocks."""
    model = hrm.build_model(ARCH, LOSS)
    batch = make_batch()
    carry = model.initial_carry(batch)
    shapes = {
        p.shape for name, p in model.named_parameters() if "_level" in name and "bias" not in name
    }
    with CastsOf(shapes) as casts:
        model(carry=carry, batch=batch)
    assert casts.count == 12


class CastsOf(TorchDispatchMode):
    """Counts casts of tensors of some shapes."""

    def __init__(self, shapes):
        super().__init__()
        self.shapes, self.count = shapes, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and args[0].shape in self.shapes:
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch warns of its own doings while compiling
def test_compiled_blocks_compute_the_same():
    arch = ARCH | {"forward_dtype": "float32", "L_layers": 1, "L_cycles": 1}
    eager, compiled = hrm.build_model(arch, LOSS), hrm.build_model(arch, LOSS)
    assert compile_model(compiled, "true", torch.device("cpu"))
    names = eager.state_dict().keys()
    assert compiled.state_dict().keys() == names  # no `_orig_mod.`
    compiled.load_state_dict(eager.state_dict())
    batch = make_batch()
    carry, loss, _, outputs = run(eager, batch)
    carry2, loss2, _, outputs2 = run(compiled, batch)
    torch.testing.assert_close(outputs2["logits"], outputs["logits"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(carry2.states["z_L"], carry.states["z_L"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss2, loss, rtol=1e-5, atol=1e-5)
    loss.backward()
    loss2.backward()
    for (name, p), p2 in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        assert (p2.grad - p.grad).abs().max() <= 1e-4 * p.grad.abs().max() + 1e-7, name


def test_the_gradient_of_a_common_token_is_added_up_in_float32():
    """In bfloat16 on CPUs, 20,000 places with one token would count as some 256."""
    table = CastedEmbedding(2, 8, 1.0, torch.bfloat16)
    ids = torch.zeros(20_000, dtype=torch.int32)
    upstream = torch.full((20_000, 8), 0.3, dtype=torch.bfloat16)
    table(ids).backward(upstream)
    expected = upstream.double().sum(0)
    gradient = table.embedding_weight.grad[0].double()
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=0)
    assert table(ids).dtype == torch.bfloat16
