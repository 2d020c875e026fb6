"""The model, its loss and gradients against a plain float64 reference, for all switches.

The model runs in float64 here, so that no rounding hides behind a tolerance. That float32 itself
is accurate enough is what the golden values show.
"""

import itertools
import random

import pytest
import torch

import hrm
from hrm.models.layers import RotaryEmbedding

from .reference_act import Reference

KEYS = ("logits", "q_halt_logits", "q_continue_logits", "target_q_continue")
ROWS, VOCAB, IDENTIFIERS, HIDDEN = 5, 7, 4, 16
PLAIN = {
    "seq_len": 6,
    "vocab_size": VOCAB,
    "num_puzzle_identifiers": IDENTIFIERS,
    "grid_shape": [2, 3],
    "box_shape": [1, 3],
    "hidden_size": HIDDEN,
    "num_heads": 2,
    "expansion": 2,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 2,
    "L_cycles": 2,
    "halt_max_steps": 3,
    "halt_exploration_prob": 0.0,
    "pos_encodings": "rope",
    "puzzle_emb_ndim": HIDDEN,
    "forward_dtype": "float32",
}
# Every value that a switch can take; (mode, ndim) go together since `add` takes at most HIDDEN.
SWITCHES = {
    "pos_encodings": ["rope", "learned", "grid"],
    "qk_norm": [False, True],
    "attention_bias": ["none", "grid"],
    "puzzle": [
        ("prefix", 0),
        ("prefix", 5),
        ("prefix", 16),
        ("prefix", 24),
        ("prefix", 48),
        ("add", 0),
        ("add", 5),
        ("add", 16),
    ],
    "backprop": ["one_step", "last_cycle"],
    "q_continue": [True, False],
    "halt_max_steps": [3, 1],
    "L_cycles": [2, 1],
    "H_cycles": [2, 1],
    "loss_type": ["stablemax_cross_entropy", "softmax_cross_entropy"],
    "q_continue_loss": ["bce", "mse"],
}
ALL = [dict(zip(SWITCHES, values, strict=True)) for values in itertools.product(*SWITCHES.values())]


def covering(cases: list[dict], ways: int) -> list[dict]:
    """A selection in which every combination of the values of `ways` switches occurs."""
    cases = random.Random(0).sample(cases, len(cases))
    seen, chosen = set(), []
    for case in cases:
        combinations = {frozenset(c) for c in itertools.combinations(case.items(), ways)}
        if not combinations <= seen:
            seen |= combinations
            chosen.append(case)
    return chosen


def split(case: dict) -> tuple[dict, dict]:
    case = dict(case)
    mode, ndim = case.pop("puzzle")
    loss = {"loss_type": case.pop("loss_type"), "q_continue_loss": case.pop("q_continue_loss")}
    return PLAIN | case | {"puzzle_emb_mode": mode, "puzzle_emb_ndim": ndim}, loss


def make_batch(generator: torch.Generator, length: int = 6) -> dict[str, torch.Tensor]:
    """Some tokens ignored, row 1 without any label, rows 1 and 3 without identity."""
    labels = torch.randint(VOCAB, (ROWS, length), generator=generator)
    labels[torch.rand(ROWS, length, generator=generator) < 0.3] = -100
    labels[1] = -100
    labels[0, :4], labels[0, 4:] = -100, 2
    identifiers = torch.randint(IDENTIFIERS, (ROWS,), generator=generator, dtype=torch.int32)
    identifiers[1] = identifiers[3] = -1
    identifiers[4] = identifiers[0]
    return {
        "inputs": torch.randint(VOCAB, (ROWS, length), generator=generator, dtype=torch.int32),
        "labels": labels.int(),
        "puzzle_identifiers": identifiers,
    }


@pytest.fixture(autouse=True)
def _float_means_double(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def doubled(model: torch.nn.Module) -> torch.nn.Module:
    """The model in float64, where `float` means `double`."""
    model = model.double()
    model.model.inner.dtype = torch.float64
    for module in model.modules():
        if hasattr(module, "cast_to"):
            module.cast_to = torch.float64
        if isinstance(module, RotaryEmbedding):
            make_exact(module)
    return model


def make_model(arch: dict, loss: dict, generator: torch.Generator) -> torch.nn.Module:
    """Float64 weights under which nothing is zero and the halting values cross."""
    model = doubled(hrm.build_model(arch, loss))
    state = model.state_dict()
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if "q_head" in name:
            tensor.copy_(noise * (0.5 if name.endswith("weight") else 0.1))
        elif "puzzle_emb" in name:
            tensor.copy_(noise * 0.5)
    return model


def make_exact(rotary: RotaryEmbedding) -> None:
    """Float64 tables instead of those made in float32, which must be near."""
    length, half = rotary.cos.shape
    position = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    angles = position / 10000 ** (torch.arange(half, dtype=torch.float64) / half)
    for table, exact in ((rotary.cos, angles.cos()), (rotary.sin, angles.sin())):
        torch.testing.assert_close(table, exact, rtol=0, atol=1e-6 * length)
        table.copy_(exact)


def assert_near(ours, expected, name: str, tolerance: float) -> None:
    """Relative to the largest element, or to 0.1 where all are small."""
    ours, expected = (torch.as_tensor(x, dtype=torch.float64) for x in (ours, expected))
    assert ours.shape == expected.shape, name
    error = (ours - expected).abs().max().item()
    assert error <= tolerance * max(expected.abs().max().item(), 0.1), (name, error)


def assert_bfloat16_is_near(exact, low, batch: dict[str, torch.Tensor]) -> None:
    """A model in bfloat16 beside the same one in float32: loss, logits, direction of gradients."""
    ran = []
    for model in (exact, low):
        carry, loss, _, outputs, _ = model(
            carry=model.initial_carry(batch), batch=batch, return_keys=["logits", "q_halt_logits"]
        )
        loss.backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters()])
        ran.append((loss.item(), outputs["logits"].float(), grads))
    assert carry.states["z_H"].dtype == outputs["logits"].dtype == torch.bfloat16
    assert outputs["q_halt_logits"].dtype == torch.float32
    assert ran[1][0] == pytest.approx(ran[0][0], rel=0.05)
    assert (ran[1][1] - ran[0][1]).norm() < 0.1 * ran[0][1].norm()
    assert torch.cosine_similarity(ran[1][2], ran[0][2], dim=0) > 0.97


def table_gradient(model: torch.nn.Module) -> torch.Tensor:
    """The summed gradient of each puzzle row that the optimizer would see."""
    table = torch.zeros_like(model.model.inner.puzzle_emb.weights)
    for identifiers, rows in model.model.inner.puzzle_emb.lookups:
        for identifier, gradient in zip(identifiers.tolist(), rows.grad, strict=True):
            if identifier >= 0:
                table[identifier] += gradient
    return table


def compare(case: dict, seed: int = 0, batch_length: int = 6) -> None:
    compare_with(Reference, *split(case), seed, batch_length)


def compare_with(
    reference_of: type[Reference], arch: dict, loss_config: dict, seed: int, batch_length: int
) -> None:
    """Three steps each of training and evaluation: all outputs, states and gradients."""
    generator = torch.Generator().manual_seed(seed)
    model = make_model(arch, loss_config, generator)
    reference = reference_of(arch, loss_config, model.state_dict())
    tolerance = 1e-10
    offered = [make_batch(generator, batch_length) for _ in range(3)]
    for training in (True, False):
        model.train(training)
        carry, expected_carry = model.initial_carry(offered[0]), None
        for batch in offered:
            expected_carry = expected_carry or reference.initial_carry(batch)
            model.zero_grad()
            carry, loss, metrics, outputs, all_halted = model(
                carry=carry, batch=batch, return_keys=KEYS
            )
            expected_carry, expected = reference.step(expected_carry, batch, training)
            for key in KEYS:
                assert (key in outputs) == (key in expected), key
                if key in outputs:
                    assert_near(outputs[key], expected[key].detach(), key, tolerance)
            assert metrics.keys() == expected["metrics"].keys()
            for name, value in expected["metrics"].items():
                assert_near(metrics[name], value, name, max(tolerance, 1e-7))
            assert_near(loss.detach(), expected["loss"].detach(), "loss", tolerance)
            assert carry.halted.tolist() == expected_carry["halted"]
            assert carry.steps.tolist() == expected_carry["steps"]
            assert bool(all_halted) == all(expected_carry["halted"])
            assert_near(carry.states["z_H"], expected_carry["z_H"], "z_H", tolerance)
            assert_near(carry.states["z_L"], expected_carry["z_L"], "z_L", tolerance)
            for name, value in expected_carry["data"].items():
                assert torch.equal(carry.current_data[name], value), name
            if not training:
                continue
            loss.backward()
            leaves = {name: p for name, p in reference.p.items() if "init" not in name}
            gradients = torch.autograd.grad(
                expected["loss"], list(leaves.values()), allow_unused=True
            )
            for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
                gradient = torch.zeros_like(leaf) if gradient is None else gradient
                if name == "puzzle_emb.weights":
                    assert_near(table_gradient(model), gradient, name, tolerance)
                    model.model.inner.puzzle_emb.lookups.clear()
                else:
                    ours = model.get_parameter(f"model.inner.{name}").grad
                    ours = torch.zeros_like(leaf) if ours is None else ours
                    assert_near(ours, gradient, name, tolerance)


def compare_all(cases: list[dict]) -> None:
    for seed, case in enumerate(cases):
        try:
            compare(case, seed)
        except AssertionError as error:
            raise AssertionError(case) from error


@pytest.mark.parametrize(
    "ways, most",
    [
        (2, 50),
        pytest.param(3, 200, marks=pytest.mark.slow),
        pytest.param(4, 1000, marks=pytest.mark.slow),
    ],
)
def test_switches_in_pairs_in_threes_and_in_fours(ways, most):
    """In place of all 12,288 combinations."""
    cases = covering(ALL, ways)
    assert len(cases) < most
    compare_all(cases)


BASE = {name: values[0] for name, values in SWITCHES.items()} | {"puzzle": ("prefix", 16)}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"H_layers": 2, "L_layers": 3},
        {"num_heads": 1},
        {"num_heads": 8},
        {"expansion": 30},
        {"H_cycles": 3, "L_cycles": 4, "backprop": "last_cycle"},
        {"pos_encodings": "grid", "seq_len": 36, "grid_shape": [6, 6], "box_shape": [2, 3]},
        {"pos_encodings": "grid", "seq_len": 36, "grid_shape": [6, 6], "box_shape": [3, 2]},
        {"pos_encodings": "grid", "grid_shape": [3, 2], "box_shape": [3, 1]},
        {
            "pos_encodings": "grid",
            "attention_bias": "grid",
            "grid_shape": [3, 2],
            "box_shape": None,
        },
    ],
    ids=str,
)
def test_sizes(change):
    compare(BASE | change, seed=1, batch_length=change.get("seq_len", 6))


def test_loss_weights():
    generator = torch.Generator().manual_seed(0)
    loss_config = {
        "loss_type": "softmax_cross_entropy",
        "lm_loss_weight": 0.3,
        "q_halt_weight": 2.0,
        "q_continue_weight": 0.7,
    }
    model = make_model(PLAIN, loss_config, generator).train()
    batch = make_batch(generator)
    _, loss, metrics, _, _ = model(carry=model.initial_carry(batch), batch=batch)
    weighted = (
        0.3 * metrics["lm_loss"] + 2 * metrics["q_halt_loss"] + 0.7 * metrics["q_continue_loss"]
    )
    assert loss.item() == pytest.approx(weighted.item(), rel=1e-6)
    assert metrics["q_continue_loss"] > 0


@pytest.mark.parametrize("puzzle", [("prefix", 24), ("add", 5)])
def test_reference_gradient_by_finite_differences(puzzle):
    """Nothing but the carry is constant here, so that differences of the loss are the gradient."""
    generator = torch.Generator().manual_seed(0)
    case = BASE | {"puzzle": puzzle, "backprop": "last_cycle", "H_cycles": 1, "qk_norm": True}
    case |= {"attention_bias": "grid"}
    arch, loss_config = split(case | {"q_continue": False})
    model = make_model(arch, loss_config, generator).train()
    reference = Reference(arch, loss_config, model.state_dict())
    batch = make_batch(generator)

    def loss() -> torch.Tensor:
        return reference.step(reference.initial_carry(batch), batch, training=True)[1]["loss"]

    _, ours, *_ = model(carry=model.initial_carry(batch), batch=batch)
    ours.backward()
    assert_near(ours.detach(), loss().detach(), "loss", 1e-5)
    for name, leaf in reference.p.items():
        if "init" in name:
            continue
        is_table = name == "puzzle_emb.weights"
        gradient = (
            table_gradient(model) if is_table else model.get_parameter(f"model.inner.{name}").grad
        )
        direction = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        direction = direction / direction.norm() + gradient / gradient.norm()
        step = 1e-5
        with torch.no_grad():
            leaf += step * direction
            above = loss()
            leaf -= 2 * step * direction
            below = loss()
            leaf += step * direction
        slope = ((above - below) / (2 * step)).item()
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-4), name
