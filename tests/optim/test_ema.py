"""The running average of the weights: recurrence, and going back exactly."""

import pytest
import torch
from torch import nn

from hrm.models.sparse_embedding import CastedSparseEmbedding
from hrm.optim.ema import EMA


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.puzzle_emb = CastedSparseEmbedding(4, 3, torch.float32)


def change(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn_like(tensor))


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items()}


PARAMETERS = {"linear.weight", "linear.bias"}


@pytest.mark.parametrize("warm_up", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.2, 0.5, 0.999])
def test_recurrence(decay, warm_up):
    torch.manual_seed(0)
    model = Model()
    ema = EMA(model, decay, warm_up, buffers=True)
    expected = {name: t.double() for name, t in snapshot(model).items()}
    for t in range(1, 30):
        change(model)
        ema.update()
        d = min(decay, (1 + t) / (10 + t)) if warm_up else decay  # 2/11, 3/12, … until `decay`
        for name, w in model.state_dict().items():
            expected[name] = d * expected[name] + (1 - d) * w.double()
    assert ema.state_dict().keys() == expected.keys() == model.state_dict().keys()
    for name, average in ema.state_dict().items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_it_begins_at_the_first_weights_and_is_a_copy():
    model = Model()
    first = snapshot(model)
    for buffers in (False, True):
        ema = EMA(model, 0.999, buffers=buffers)
        assert ema.shadow.keys() == (first.keys() if buffers else PARAMETERS)
        change(model)
        assert all(torch.equal(ema.shadow[name], first[name]) for name in ema.shadow)
        first = snapshot(model)


def test_buffers_are_left_alone_by_default():
    model = Model()
    ema = EMA(model, 0.5)
    old = snapshot(model)
    change(model)
    ema.update()
    new, whole = snapshot(model), ema.state_dict()
    assert whole.keys() == new.keys()
    torch.testing.assert_close(
        whole["linear.weight"], (old["linear.weight"] + new["linear.weight"]) / 2
    )
    assert torch.equal(whole["puzzle_emb.weights"], new["puzzle_emb.weights"])
    with ema.applied():
        assert torch.equal(model.linear.weight, ema.shadow["linear.weight"])
        assert torch.equal(model.puzzle_emb.weights, new["puzzle_emb.weights"])
    other = EMA(model, 0.5)
    other.load(whole, 1)
    assert other.updates == 1 and torch.equal(other.shadow["linear.bias"], whole["linear.bias"])


def test_puzzle_rows_are_averaged_where_asked():
    model = Model()
    ema = EMA(model, 0.5, warm_up=True, buffers=True)
    model.puzzle_emb.weights[2] = 11.0
    ema.update()  # decay 2/11
    row = ema.state_dict()["puzzle_emb.weights"][2]
    torch.testing.assert_close(row, torch.full((3,), 9.0))


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_applied_goes_back_bit_by_bit(fails, buffers):
    torch.manual_seed(0)
    model = Model()
    ema = EMA(model, 0.9, buffers=buffers)
    for _ in range(3):
        change(model)
        ema.update()
    change(model)
    weights, averages = snapshot(model), {n: t.clone() for n, t in ema.state_dict().items()}
    addresses = {name: t.data_ptr() for name, t in model.state_dict().items()}
    try:
        with ema.applied():
            for name, tensor in model.state_dict().items():
                assert torch.equal(tensor, averages[name]), name
                is_averaged = buffers or name in PARAMETERS
                assert torch.equal(tensor, weights[name]) != is_averaged, name
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
        assert tensor.data_ptr() == addresses[name]  # the optimizer still holds these tensors
        assert torch.equal(ema.state_dict()[name], averages[name]), name
    assert model.linear.weight.requires_grad
