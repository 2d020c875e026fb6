"""Training where both optimizers have a rate and a weight decay of their own.

The golden cases give both the same. Here the model's final weights are compared with those of the
float64 reference, updated by the formulas of both optimizers written out below.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import hrm
from hrm.optim import build_optimizers
from hrm.optim.groups import OptimConfig
from tests.models.reference_act import Reference

from .test_reference import doubled

ROWS, LENGTH, VOCABULARY, IDENTIFIERS, STEPS = 4, 6, 7, 5, 6
ARCH: dict[str, Any] = {
    "seq_len": LENGTH,
    "vocab_size": VOCABULARY,
    "num_puzzle_identifiers": IDENTIFIERS,
    "hidden_size": 16,
    "num_heads": 2,
    "expansion": 2,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 2,
    "L_cycles": 2,
    "halt_max_steps": 3,
    "halt_exploration_prob": 0.0,
    "pos_encodings": "learned",
    "puzzle_emb_ndim": 16,
    "forward_dtype": "float32",
}
LOSS = {"loss_type": "softmax_cross_entropy"}
RATES = {"lr": 0.004, "weight_decay": 2.0, "puzzle_emb_lr": 0.03, "puzzle_emb_weight_decay": 0.5}
BETAS = (0.8, 0.9)


def make_batches() -> list[dict[str, Tensor]]:
    """Row 1 never has an identity, rows 2 and 3 have the same; the last identifier never comes."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(STEPS):
        identifiers = torch.randint(IDENTIFIERS - 1, (ROWS,), generator=generator).int()
        identifiers[1], identifiers[3] = -1, identifiers[2]
        shape = (ROWS, LENGTH)
        batches.append(
            {
                "inputs": torch.randint(VOCABULARY, shape, generator=generator).int(),
                "labels": torch.randint(VOCABULARY, shape, generator=generator).int(),
                "puzzle_identifiers": identifiers,
            }
        )
    return batches


def make_model() -> torch.nn.Module:
    """Weights under which the puzzle table has something to decay, and some sequences halt."""
    torch.manual_seed(0)
    model = hrm.build_model(ARCH, LOSS).train()
    state = model.state_dict()
    state["model.inner.puzzle_emb.weights"].normal_()
    state["model.inner.q_head.weight"].normal_()
    state["model.inner.q_head.bias"].zero_()
    return model


def trained_reference(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights after all steps, float64."""
    reference = Reference(ARCH, LOSS, model.state_dict())
    dense = {n: p for n, p in reference.p.items() if "init" not in n and "puzzle_emb" not in n}
    m, v = ({n: torch.zeros_like(p) for n, p in dense.items()} for _ in range(2))
    table, (beta1, beta2) = reference.p["puzzle_emb.weights"], BETAS
    batches = make_batches()
    carry = reference.initial_carry(batches[0])
    for t, batch in enumerate(batches, 1):
        carry, result = reference.step(carry, batch, training=True)
        (result["loss"] / ROWS).backward()
        with torch.no_grad():
            for name, p in dense.items():
                g = p.grad
                m[name] = beta1 * m[name] + (1 - beta1) * g
                v[name] = beta2 * v[name] + (1 - beta2) * g * g
                turn = torch.atan2(m[name], (v[name] / (1 - beta2**t)).sqrt())
                p.mul_(1 - RATES["lr"] * RATES["weight_decay"])
                p.sub_(RATES["lr"] / (1 - beta1**t) * turn)
            rate, decay = RATES["puzzle_emb_lr"], RATES["puzzle_emb_weight_decay"]
            for row in {i for i in carry["data"]["puzzle_identifiers"].tolist() if i >= 0}:
                table[row] = table[row] * (1 - rate * decay) - rate * table.grad[row].sign()
        for p in reference.p.values():
            p.grad = None
    return {name: p.detach() for name, p in reference.p.items()}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]]:
    """Weights before, after our steps, and after the reference's; all in float64.

    AdamATan2 turns a gradient that is rounding alone into a step as long as any other.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield train_both()


def train_both() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    torch.set_num_threads(1)
    model = doubled(make_model())
    before = {n.removeprefix("model.inner."): t.clone() for n, t in model.state_dict().items()}
    expected = trained_reference(model)
    optimizers = build_optimizers(model, OptimConfig(beta1=BETAS[0], beta2=BETAS[1], **RATES))
    batches = make_batches()
    carry, halted = model.initial_carry(batches[0]), []
    for batch in batches:
        carry, loss, *_ = model(carry=carry, batch=batch)
        halted.append(carry.halted)
        (loss / ROWS).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert 0 < torch.stack(halted).float().mean() < 1
    after = {n.removeprefix("model.inner."): t for n, t in model.state_dict().items()}
    return before, after, expected


def test_dense_weights_are_the_references(pair):
    before, after, expected = pair
    dense = [name for name in after if "init" not in name and "puzzle_emb" not in name]
    for name in dense:
        assert (before[name] - after[name]).abs().max() > 0.01, name
        error = (after[name] - expected[name]).abs()
        assert error.max() <= 1e-5 * max(1, expected[name].abs().max()), name
    assert len(dense) == 13


def test_puzzle_rows_are_the_references(pair):
    before, after, expected = (weights["puzzle_emb.weights"] for weights in pair)
    torch.testing.assert_close(after.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(after[IDENTIFIERS - 1], before[IDENTIFIERS - 1])
    assert (after != before).any(1).sum() == IDENTIFIERS - 2  # one more never came


def test_start_states_stay(pair):
    before, after, _ = pair
    for name in ("H_init", "L_init"):
        assert torch.equal(before[name], after[name])
