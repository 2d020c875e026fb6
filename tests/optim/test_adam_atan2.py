"""AdamATan2 against its formula, one number at a time."""

import copy
import math

import pytest
import torch

from hrm.optim import AdamATan2


class Scalar:
    """The formula for one number, in Python floats."""

    def __init__(self, value: float, betas: tuple[float, float]):
        self.p, self.m, self.v, self.t, self.betas = value, 0.0, 0.0, 0, betas

    def step(self, g: float, lr: float, weight_decay: float) -> None:
        beta1, beta2 = self.betas
        self.t += 1
        self.p *= 1 - lr * weight_decay
        self.m = beta1 * self.m + (1 - beta1) * g
        self.v = beta2 * self.v + (1 - beta2) * g * g
        quotient = math.atan2(self.m, math.sqrt(self.v) / math.sqrt(1 - beta2**self.t))
        self.p -= lr / (1 - beta1**self.t) * quotient


def parameters(dtype: torch.dtype) -> list[torch.Tensor]:
    return [
        torch.randn(3, 2, dtype=dtype).requires_grad_(),
        torch.randn(4, dtype=dtype).requires_grad_(),
        torch.randn((), dtype=dtype).requires_grad_(),
    ]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.0, 0.0), (0.3, 0.999)])
@pytest.mark.parametrize("weight_decay", [0.0, 1.0])
def test_formula(dtype, tolerance, betas, weight_decay):
    params = parameters(dtype)
    expected = [[Scalar(x, betas) for x in p.flatten().tolist()] for p in params]
    optimizer = AdamATan2(params, lr=1.0, betas=betas, weight_decay=weight_decay)
    for number in range(12):
        lr = (0.01, 0.1, 0.0, 0.03)[number % 4]  # changed between steps, as the schedule does
        optimizer.param_groups[0]["lr"] = lr
        for p, scalars in zip(params, expected, strict=True):
            p.grad = torch.randn_like(p) * 10.0 ** (number % 5 - 3)
            if number in (3, 4):
                p.grad.zero_()
            for scalar, g in zip(scalars, p.grad.flatten().tolist(), strict=True):
                scalar.step(g, lr, weight_decay)
        optimizer.step()
        for p, scalars in zip(params, expected, strict=True):
            wanted = torch.tensor([s.p for s in scalars], dtype=torch.float64)
            torch.testing.assert_close(
                p.detach().flatten().double(), wanted, rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e6])
def test_first_step_is_sign_like_whatever_the_gradient_s_size(size):
    """m/(1-β1) = g and √v̂ = |g|, so p moves by lr/(1-β1)·atan(1-β1) against the gradient."""
    p = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([size, -size], dtype=torch.float64)
    AdamATan2([p], lr=0.1, betas=(0.9, 0.95)).step()
    move = 0.1 / 0.1 * math.atan(0.1)
    torch.testing.assert_close(p.detach(), torch.tensor([-move, move], dtype=torch.float64))


def test_zero_gradients_only_decay():
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.zeros(3)
    optimizer = AdamATan2([p], lr=0.1, weight_decay=0.5)
    optimizer.step()
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.95**2))


def test_parameters_without_gradient_are_left_alone():
    p, unused = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    optimizer = AdamATan2([p, unused], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(unused.detach(), torch.ones(3)) and not optimizer.state[unused]
    unused.grad = torch.ones(3)  # its own count of steps begins now
    optimizer.step()
    once = torch.ones(3, requires_grad=True)
    once.grad = torch.ones(3)
    AdamATan2([once], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(unused.detach(), once.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_dict_round_trip(dtype, tmp_path):
    params = parameters(dtype)
    optimizer = AdamATan2(params, lr=0.01, weight_decay=0.1)

    def advance(optimizer, params, seed):
        generator = torch.Generator().manual_seed(seed)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
        optimizer.step()

    for seed in range(3):
        advance(optimizer, params, seed)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    others = [p.detach().clone().requires_grad_() for p in params]
    resumed = AdamATan2(others, lr=0.5)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for seed in range(3, 6):
        advance(optimizer, params, seed)
        advance(resumed, others, seed)
    for p, other in zip(params, others, strict=True):
        assert torch.equal(p, other)


def test_state_keeps_the_parameters_dtype_and_a_copy_goes_its_own_way():
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = AdamATan2([p], lr=0.1)
    optimizer.step()
    state = optimizer.state[p]
    assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.float64
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.step()
    assert saved["state"][0]["step"].item() == 1 and state["step"].item() == 2


def test_moments_that_were_put_in_are_used():
    """As a run that goes on does it: new tensors in place of those that the optimizer made."""
    params, others = parameters(torch.float32), []
    optimizer = AdamATan2(params, lr=0.1)
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer.step()
    others = [p.detach().clone().requires_grad_() for p in params]
    other = AdamATan2(others, lr=0.1)
    for p, copied in zip(params, others, strict=True):
        copied.grad = torch.randn_like(p)
    other.step()  # with moments of its own, which are replaced now
    for p, copied in zip(params, others, strict=True):
        other.state[copied] = {name: t.clone() for name, t in optimizer.state[p].items()}
        with torch.no_grad():
            copied.copy_(p)
        p.grad = copied.grad = torch.randn_like(p)
    optimizer.step()
    other.step()
    for p, copied in zip(params, others, strict=True):
        assert torch.equal(p, copied)
        for name, t in optimizer.state[p].items():
            assert torch.equal(t, other.state[copied][name])


def test_closure():
    p = torch.tensor([2.0], requires_grad=True)
    optimizer = AdamATan2([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert p.item() < 2.0


@pytest.mark.parametrize(
    "bad",
    [{"lr": -1}, {"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}, {"weight_decay": -1}],
    ids=str,
)
def test_values_out_of_range(bad):
    with pytest.raises(ValueError, match="out of range"):
        AdamATan2([torch.ones(1, requires_grad=True)], **({"lr": 0.1} | bad))


def test_it_minimises():
    torch.manual_seed(1)
    target = torch.randn(10)
    p = torch.zeros(10, requires_grad=True)
    optimizer = AdamATan2([p], lr=0.05)
    for number in range(300):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - number / 300)
        optimizer.zero_grad()
        ((p - target) ** 2).sum().backward()
        optimizer.step()
    assert (p - target).abs().max() < 1e-3
