"""The switches that `benchmarks/recipes.py` measures do what they say, in training alone."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.switches import DEPTHS, SMOOTHING, SWITCHES, use
from hrm import build_model
from hrm.data.format import IGNORE_LABEL_ID
from hrm.models.registry import LOSS_HEADS

from .models.test_symbol_equivariant import LOSS, SMALL

ROWS, BLANK, FIRST = 32, 1, 2


@pytest.fixture
def built(monkeypatch):
    """A model with a switch; None: without."""

    def build(name: str | None):
        monkeypatch.setitem(LOSS_HEADS, "act_loss_head", LOSS_HEADS["act_loss_head"])
        if name is not None:
            use(name)
        torch.manual_seed(0)
        return build_model(SMALL, LOSS).train()

    return build


def a_batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    labels = torch.randint(FIRST, SMALL["vocab_size"], (ROWS, SMALL["seq_len"]), dtype=torch.int32)
    inputs = torch.where(torch.rand(labels.shape) < 0.5, BLANK, labels)
    return {"inputs": inputs, "labels": labels, "puzzle_identifiers": torch.ones(ROWS).int()}


def one_step(model):
    batch = a_batch()
    return model(model.initial_carry(batch), batch, ("logits",))


@pytest.mark.parametrize("name", SWITCHES)
def test_training_is_changed_and_evaluation_is_not(built, name):
    plain, switched = built(None), built(name)
    carry, loss, *_ = one_step(switched)
    assert loss.isfinite() and not torch.equal(loss, one_step(plain)[1])
    loss.backward()
    assert all(p.grad.isfinite().all() for p in switched.parameters())
    after, loss, *_ = switched(carry, a_batch())
    assert loss.isfinite() and after.named().keys() == carry.named().keys()

    _, _, _, known, _ = one_step(plain.eval())
    _, _, _, answered, _ = one_step(switched.eval())
    asked = a_batch()["inputs"] == BLANK
    assert torch.equal(answered["logits"][asked], known["logits"][asked])
    same = torch.equal(answered["logits"], known["logits"])
    assert same == (name != "blanks_only")


def test_smoothed_labels_are_those_of_torch(built):
    model, batch = built("label_smoothing"), a_batch()
    _, _, metrics, answered, _ = one_step(model)
    logits, labels = answered["logits"].flatten(0, 1), batch["labels"].flatten().long()
    smoothed = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    torch.testing.assert_close(metrics["lm_loss"] / ROWS, smoothed)


def test_what_is_given_has_no_loss_and_is_answered_as_it_is_given(built):
    model, batch = built("blanks_only"), a_batch()
    carry, *_ = one_step(model)
    labels = carry.current_data["labels"]
    assert torch.equal(labels == IGNORE_LABEL_ID, batch["inputs"] != BLANK)
    _, _, _, answered, _ = one_step(model.eval())
    given = batch["inputs"] != BLANK
    assert torch.equal(answered["logits"].argmax(-1)[given], batch["inputs"][given].long())


@pytest.mark.parametrize("name", ["random_starts", "corrupted_answers", "winner_take_all"])
def test_only_what_begins_has_start_states_of_its_own(built, name):
    model, batch = built(name), a_batch()
    carry = model.initial_carry(batch)
    carry.halted[: ROWS // 2] = False
    states = model.model.take_new_data(carry, batch).states
    assert all((state[: ROWS // 2] == 0).all() for state in states.values())
    own = model.model.inner.initial_states()
    changed = "z_L1" if name == "winner_take_all" else "z_H"
    begun = states[changed][ROWS // 2 :]
    others = [not torch.equal(row, own["z_H"].expand_as(row)) for row in begun]
    assert len({tuple(row.flatten().tolist()) for row in begun}) >= sum(others) > 0
    assert (sum(others) < len(others)) == (name == "corrupted_answers")


def test_the_better_latent_is_answered_from(built):
    model, batch = built("winner_take_all"), a_batch()
    carry = model.model.take_new_data(model.initial_carry(batch), batch)
    labels = batch["labels"].long()
    losses = {}
    for name in ("z_L", "z_L1"):
        alone = {"z_H": carry.states["z_H"], "z_L": carry.states[name]}
        prepared = model.model.inner.prepare(batch["inputs"], None)
        logits = model.model.inner.step(alone, prepared).logits
        losses[name] = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(-1)
    _, _, metrics, _, _ = model.compute(carry, None, ())
    best = torch.minimum(*losses.values())
    torch.testing.assert_close(metrics["lm_loss"], best.sum())
    assert best.sum() < min(loss.sum() for loss in losses.values())


@pytest.mark.parametrize(
    "steps, depth", [(0, 1), (659, 1), (660, 2), (1059, 2), (1060, 4), (9999, 4)]
)
def test_steps_deepen(built, steps, depth):
    assert list(DEPTHS.items()) == [(0, 1), (660, 2), (1060, 4)]
    model, batch, calls = built("depth_curriculum"), a_batch(), []
    model.model.inner.L_level.register_forward_hook(lambda *_: calls.append(1))
    carry = model.initial_carry(batch)
    carry.tick[:] = steps
    model(carry, batch)
    assert len(calls) == SMALL["H_cycles"] * (depth + 1)
    assert model.model.inner.config.L_cycles == SMALL["L_cycles"]
