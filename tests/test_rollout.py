"""Rollouts: all steps as the model itself would take them, and learned halting."""

import pytest
import torch

import hrm
from hrm.rollout import rollout

ARCH = {
    "seq_len": 4,
    "vocab_size": 5,
    "num_puzzle_identifiers": 6,
    "hidden_size": 8,
    "num_heads": 2,
    "expansion": 1,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 1,
    "L_cycles": 1,
    "halt_max_steps": 5,
    "halt_exploration_prob": 1.0,  # must play no part
    "pos_encodings": "learned",
    "puzzle_emb_ndim": 8,
    "forward_dtype": "float32",
}
ROWS = 24
KEYS = ("logits", "q_halt_logits", "q_continue_logits")


@pytest.fixture(autouse=True)
def _small():
    torch.manual_seed(0)


def build(**arch) -> torch.nn.Module:
    model = hrm.build_model(ARCH | arch, {"loss_type": "softmax_cross_entropy"}).eval()
    inner = model.model.inner
    with torch.no_grad():
        inner.q_head.weight.normal_()
        inner.q_head.bias.zero_()
        inner.puzzle_emb.weights.normal_()
    return model


def make_batch(rows: int = ROWS) -> dict[str, torch.Tensor]:
    return {
        "inputs": torch.randint(5, (rows, 4), dtype=torch.int32),
        "labels": torch.randint(5, (rows, 4), dtype=torch.int32),
        "puzzle_identifiers": torch.randint(-1, 6, (rows,), dtype=torch.int32),
    }


def all_steps(model, batch) -> list[dict[str, torch.Tensor]]:
    """The outputs of every step, by calling the model again and again."""
    carry, outputs = model.initial_carry(batch), []
    for _ in range(model.model.config.halt_max_steps):
        carry, _, _, out, _ = model(carry=carry, batch=batch, return_keys=KEYS)
        outputs.append(out)
    return outputs


@torch.no_grad()
@pytest.mark.parametrize("maximum", [1, 5])
def test_max_steps_equals_repeated_calls(maximum):
    model, batch = build(halt_max_steps=maximum), make_batch()
    expected = all_steps(model, batch)
    steps = list(rollout(model, batch))
    assert len(steps) == maximum
    for number, (step, outputs) in enumerate(zip(steps, expected, strict=True), start=1):
        for key in KEYS:
            assert torch.equal(step.outputs[key], outputs[key]), key
        assert (step.carry.steps == number).all() and step.running.all()
        assert step.halting.all() == step.halting.any() == (number == maximum)


def first_halting(model, outputs) -> torch.Tensor:
    """The step of the training rule without exploration, one puzzle at a time."""
    maximum, rows = len(outputs), len(outputs[0]["logits"])
    result = []
    for row in range(rows):
        for number, out in enumerate(outputs, start=1):
            q_halt, q_continue = out["q_halt_logits"][row], out["q_continue_logits"][row]
            wants = q_halt > q_continue if model.model.config.q_continue else q_halt > 0
            if number == maximum or wants:
                result.append(number)
                break
    return torch.tensor(result)


@torch.no_grad()
@pytest.mark.parametrize("q_continue", [True, False])
def test_learned_halting_takes_the_first_step_at_which_the_rule_fires(q_continue):
    model, batch = build(q_continue=q_continue), make_batch()
    expected = all_steps(model, batch)
    halts_at = first_halting(model, expected)
    assert 5 in halts_at and len(halts_at.unique()) >= 3
    halted = torch.zeros(ROWS, dtype=torch.int64)
    for number, step in enumerate(rollout(model, batch, "learned"), start=1):
        assert torch.equal(step.running, halts_at >= number)
        assert torch.equal(step.halting, halts_at == number)
        halted[step.halting] = number
        for key in KEYS:  # halted neighbours disturb nobody
            torch.testing.assert_close(step.outputs[key], expected[number - 1][key])
    assert torch.equal(halted, halts_at)


@torch.no_grad()
def test_learned_halting_alone_and_in_a_batch():
    model, batch = build(), make_batch(12)
    together = {}
    for number, step in enumerate(rollout(model, batch, "learned"), start=1):
        for row in step.halting.nonzero().flatten().tolist():
            assert row not in together
            together[row] = number, step.outputs["logits"][row]
    assert sorted(together) == list(range(12))
    for row, (number, logits) in together.items():
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        steps = list(rollout(model, alone, "learned"))
        assert len(steps) == number and steps[-1].halting.all()
        torch.testing.assert_close(steps[-1].outputs["logits"][0], logits, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_rollout_ends_when_all_have_halted():
    model, batch = build(), make_batch()
    model.model.inner.q_head.bias.copy_(torch.tensor([100.0, -100.0]))
    (only,) = rollout(model, batch, "learned")
    assert only.halting.all()


@torch.no_grad()
def test_labels_are_not_needed_and_a_rollout_starts_afresh():
    model, batch = build(), make_batch()
    first = [step.outputs["logits"] for step in rollout(model, batch)]
    del batch["labels"]
    again = [step.outputs["logits"] for step in rollout(model, batch)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(AssertionError):
        next(rollout(build().train(), make_batch()))
