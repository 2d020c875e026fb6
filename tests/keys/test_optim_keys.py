"""Every key of the optimizers acts: weights are compared, step by step, with the formulas."""

import json
import math

import pytest
import torch

from hrm.optim.groups import OptimConfig
from hrm.optim.muon import Muon, orthogonalized
from hrm.optim.schedule import learning_rate
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.splits import open_split
from hrm.training.state import TrainState, train_step

from .commands import done
from .registry import Registry
from .training import TABLE, TINY, Run, run

acts, ALONE = Registry(), Ranks(0, 1, 0)
GIVEN = {"lr": 1e-2, "weight_decay": 1.0, "beta1": 0.9, "beta2": 0.95}  # of `TINY`, or by default


def largest_error(made: Run, step: int, **keys: float) -> float:
    """Of the dense weights after a step, against AdamATan2's formula from the step before."""
    k = GIVEN | keys
    before, after = made.dense(step - 1), made.dense(step)
    m, v = (made.kept(step, f"optimizer/{name}/") for name in ("exp_avg", "exp_avg_sq"))
    errors = []
    for name, old in before.items():
        second = (v[name].double() / (1 - k["beta2"] ** step)).sqrt()
        turn = torch.atan2(m[name].double(), second) / (1 - k["beta1"] ** step)
        new = old.double() * (1 - k["lr"] * k["weight_decay"]) - k["lr"] * turn
        errors.append((after[name] - new).abs().max().item())
    return max(errors)


@acts("lr")
@pytest.mark.parametrize("lr", [1e-2, 3e-3])
def test_dense_weights_move_by_lr(data, tmp_path, lr):
    made = run(data, tmp_path / "run", f"lr={lr}")
    assert largest_error(made, 3, lr=lr) < 1e-6 < largest_error(made, 3, lr=0.9 * lr)
    assert made.logged("train/lr") == pytest.approx([lr] * 4)


@acts("weight_decay")
def test_dense_weights_shrink_by_their_own_decay(data, tmp_path):
    made = run(data, tmp_path / "run", "weight_decay=3", "puzzle_emb_weight_decay=0.5")
    assert largest_error(made, 3, weight_decay=3.0) < 1e-6
    assert largest_error(made, 3, weight_decay=0.5) > 1e-4


@acts("beta1")
def test_beta1_is_of_the_first_average(data, tmp_path, frozen):
    made = run(data, tmp_path / "run", "beta1=0.5")
    assert largest_error(made, 3, beta1=0.5) < 1e-6 < largest_error(made, 3)
    ours, usual = (r.kept(1, "optimizer/exp_avg/") for r in (made, frozen))
    for name, average in ours.items():  # (1 - β1) · g, of the same gradient
        torch.testing.assert_close(average, usual[name] * (0.5 / 0.1), rtol=1e-5, atol=1e-9)


@acts("beta2")
def test_beta2_is_of_the_second_average(data, tmp_path, frozen):
    made = run(data, tmp_path / "run", "beta2=0.5")
    assert largest_error(made, 3, beta2=0.5) < 1e-6 < largest_error(made, 3)
    ours, usual = (r.kept(1, "optimizer/exp_avg_sq/") for r in (made, frozen))
    for name, average in ours.items():
        torch.testing.assert_close(average, usual[name] * (0.5 / 0.05), rtol=1e-5, atol=1e-12)


def matrices_moved(made: Run, step: int, lr: float, decay: float, momentum: float) -> float:
    """Largest error of the matrices after a step, against Muon's formula from the step before."""
    before, after = made.weights(step - 1), made.weights(step)
    old, new = (made.kept(s, "optimizer/momentum_buffer/") for s in (step - 1, step))
    errors = []
    for name, average in new.items():
        gradient = (average - momentum * old[name]) / (1 - momentum)
        pieces = {"qkv_proj": 3, "gate_up_proj": 2}.get(name.split(".")[-2], 1)
        ahead = (1 - momentum) * gradient + momentum * average
        turns = [orthogonalized(m[None])[0] for m in ahead.double().chunk(pieces)]
        factor = max(1, len(turns[0]) / turns[0].shape[1]) ** 0.5
        wanted = before[name] * (1 - lr * decay) - lr * factor * torch.cat(turns)
        errors.append((after[name] - wanted).abs().max().item())
    return max(errors)


@acts("optimizer", "muon_lr", "muon_weight_decay", "muon_momentum")
def test_matrices_are_muon_s_where_asked(data, tmp_path, plain):
    keys = {"lr": 0.03, "decay": 2.0, "momentum": 0.5}
    named = ("optimizer=muon", "muon_lr=0.03", "muon_weight_decay=2", "muon_momentum=0.5")
    made = run(data, tmp_path / "run", *named)
    assert matrices_moved(made, 3, **keys) < 1e-5
    for key in keys:
        assert matrices_moved(made, 3, **keys | {key: 0.9 * keys[key]}) > 1e-4, key
    assert largest_error(made, 3) < 1e-6  # the rest is AdamATan2's, with rates of its own
    matrices, all_dense = made.kept(1, "optimizer/momentum_buffer/"), plain.dense(1)
    assert matrices.keys() | made.dense(1).keys() == all_dense.keys() and len(matrices) == 8
    assert not matrices.keys() & made.dense(1).keys()


@acts("lr_min_ratio")
def test_the_cosine_ends_at_its_share_of_lr(data, tmp_path):
    made = run(data, tmp_path / "run", "lr_min_ratio=0.25")
    assert made.logged("train/lr")[-1] == pytest.approx(0.25e-2)
    assert largest_error(made, 4, lr=0.25e-2) < 1e-6 < largest_error(made, 4, lr=0.1e-2)


@acts("lr_warmup_steps")
def test_the_warm_up_is_linear_from_0(data, tmp_path):
    made = run(data, tmp_path / "run", "lr_warmup_steps=3")
    rates = made.logged("train/lr")
    assert rates == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2, learning_rate(4, 1e-2, 3, 4, 1)])
    assert largest_error(made, 2, lr=2e-2 / 3) < 1e-6 < largest_error(made, 2)
    moved = made.weights(1)[TABLE].abs()
    assert moved.max().item() == pytest.approx(0.1 / 3)  # puzzle_emb_lr is scheduled alike


@acts("puzzle_emb_lr")
def test_puzzle_rows_move_by_their_own_rate(data, tmp_path):
    made = run(data, tmp_path / "run", "lr=1e-2", "puzzle_emb_lr=0.03")
    rows = made.weights(1)[TABLE]
    seen = made.kept(1, "carry/current_data/")["puzzle_identifiers"].long().unique()
    assert len(seen) == 16 and (rows[seen] != 0).float().mean() > 0.9
    sizes = rows[rows != 0].abs()
    torch.testing.assert_close(sizes, torch.full_like(sizes, 0.03))


@acts("puzzle_emb_weight_decay")
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_puzzle_rows_shrink_by_their_own_decay(data, tmp_path, decay):
    """Row by row what is left of p after p(1 - lr·wd) - lr·sign(g) must be a sign."""
    more = (f"puzzle_emb_weight_decay={decay}", "weight_decay=2", "epochs=4")
    made, lr, decayed = run(data, tmp_path / "run", *more), 0.1, 0
    for step in range(2, 9):
        before, after = (made.weights(s)[TABLE] for s in (step - 1, step))
        touched = (before != after).any(1) & (before != 0).all(1)
        signs = (before[touched] * (1 - lr * decay) - after[touched]) / lr
        decayed += len(signs)
        torch.testing.assert_close(signs, signs.round(), rtol=0, atol=1e-5)
    assert decayed >= 16


@acts("puzzle_emb_weight_decay")
def test_puzzle_rows_without_gradient_only_decay(data):
    nothing = [f"arch.loss.{name}_weight=0" for name in ("lm_loss", "q_halt", "q_continue")]
    keys = (*TINY, *nothing, "weight_decay=2", "puzzle_emb_weight_decay=0.5", "puzzle_emb_lr=0.1")
    config = load_pretrain_config([f"data_path={data}", *keys])
    train_set = open_split(config, ALONE, "train")
    state = TrainState.create(config, train_set.metadata, torch.device("cpu"), ALONE)
    table = state.model.model.inner.puzzle_emb.weights.fill_(1)
    _, batch, _ = train_set.batch(0, 0)
    train_step(state, batch, config, ALONE)
    seen = batch["puzzle_identifiers"].long().unique()
    expected = torch.ones_like(table)
    expected[seen] = 1 - 0.1 * 0.5
    torch.testing.assert_close(table, expected)


@pytest.mark.parametrize("dtype, products", [("bfloat16", torch.bfloat16), ("float32", None)])
def test_products_of_muon_are_in_the_dtype_of_the_activations(data, dtype, products):
    keys = (*TINY, "optimizer=muon", f"arch.forward_dtype={dtype}")
    config = load_pretrain_config([f"data_path={data}", *keys])
    metadata = open_split(config, ALONE, "train").metadata
    state = TrainState.create(config, metadata, torch.device("cpu"), ALONE)
    (muon,) = (o for o in state.optimizers if isinstance(o, Muon))
    assert muon.dtype == products


@acts("ema", "ema_decay")
@pytest.mark.parametrize("decay", [0.05, 0.999])
def test_the_running_average_follows_the_weights_of_every_step(data, tmp_path, frozen, decay):
    made = run(data, tmp_path / "run", "ema=true", f"ema_decay={decay}")
    average = {name: w.double() for name, w in frozen.weights(1).items()}
    for step in range(1, 5):
        d = min(decay, (1 + step) / (10 + step))
        for name, weight in made.weights(step).items():
            average[name] += (1 - d) * (weight.double() - average[name])
        for name, kept in made.weights(step, "ema").items():
            torch.testing.assert_close(kept.double(), average[name], rtol=1e-6, atol=1e-6)
    assert not torch.equal(made.weights(4, "ema")[TABLE], made.weights(4)[TABLE])


@acts("ema_warm_up", "ema_buffers")
@pytest.mark.parametrize("warm_up, buffers", [(False, False), (True, False), (False, True)])
def test_the_running_average_is_of_the_kind_that_is_asked_for(
    data, tmp_path, frozen, warm_up, buffers
):
    keys = (f"ema_warm_up={warm_up}", f"ema_buffers={buffers}")
    made = run(data, tmp_path / "run", "ema=true", "ema_decay=0.7", *keys)
    average = {name: w.double() for name, w in frozen.weights(1).items()}
    for step in range(1, 5):
        d = min(0.7, (1 + step) / (10 + step)) if warm_up else 0.7
        for name, weight in made.weights(step).items():
            average[name] += (1 - d) * (weight.double() - average[name])
            if name == TABLE and not buffers:
                average[name] = weight.double()
        for name, kept in made.weights(step, "ema").items():
            torch.testing.assert_close(kept.double(), average[name], rtol=1e-6, atol=1e-6)


@acts("ema")
def test_the_running_average_is_evaluated(data, tmp_path, plain):
    assert not plain.file(4, "ema.safetensors").exists()
    made = run(data, tmp_path / "run", "ema=true", "lr=5e-2")
    losses = {}
    for weights in ("raw", "ema"):
        words = (f"checkpoint={made.path}", f"weights={weights}", "device=cpu")
        losses[weights] = json.loads(done("evaluate", *words))["eval/lm_loss"]
    [logged] = made.logged("eval/lm_loss")
    assert logged == pytest.approx(losses["ema"], rel=1e-5)
    assert abs(losses["raw"] - losses["ema"]) > 1e-3


@acts("grad_clip")
def test_a_large_gradient_is_shortened(data, tmp_path, frozen):
    """After one step the first average is (1 - β1) · gradient."""

    def norm(made: Run) -> float:
        averages = made.kept(1, "optimizer/exp_avg/").values()
        return math.sqrt(sum((t.double() / 0.1).square().sum().item() for t in averages))

    whole = norm(frozen)
    assert whole > 0.02
    short = run(data, tmp_path / "short", "grad_clip=0.01", "epochs=1")
    assert norm(short) == pytest.approx(0.01, rel=1e-3)
    long = run(data, tmp_path / "long", f"grad_clip={2 * whole}", "epochs=1")
    assert norm(long) == pytest.approx(whole, rel=1e-5)


def test_every_key_has_a_test():
    acts.check(OptimConfig.model_fields.keys())
