"""Muon against singular values in float64, and against torch's own where there is one."""

import pytest
import torch
from torch import Tensor

from hrm.optim import Muon
from hrm.optim.muon import orthogonalized

# Of five iterations, what they make of singular values from 0.003 to 1.
LEAST, MOST = 0.68, 1.21


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def reference(matrix: Tensor) -> Tensor:
    """The iteration on singular values, where it is one of numbers; no product of matrices."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 4, 9), (2, 9, 4), (1, 1, 5), (2, 5, 1)], ids=str)
def test_newton_schulz(shape, dtype, tolerance):
    matrices = torch.randn(shape, dtype=dtype)
    ours = orthogonalized(matrices)
    wanted = torch.stack([reference(matrix) for matrix in matrices])
    torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=tolerance)
    for matrix in ours.double():
        values = torch.linalg.svdvals(matrix)
        assert values.min() > LEAST and values.max() < MOST


@pytest.mark.parametrize("size", [1e-38, 1e-30, 2.0**-40, 1.0, 2.0**60, 1e37])
def test_the_scale_of_a_gradient_does_not_matter(size):
    """Also where its squares are no float32 numbers; with powers of 2 to the last bit."""
    gradients = torch.randn(2, 4, 6)
    ours, usual = orthogonalized(gradients * size), orthogonalized(gradients)
    torch.testing.assert_close(ours, usual, rtol=0, atol=1e-4 if size > 1e-37 else 1e-2)
    if size in (2.0**-40, 2.0**60):
        assert torch.equal(ours, usual)


def test_turning_and_transposing_a_gradient_turn_and_transpose_its_update():
    matrix = torch.randn(1, 5, 7, dtype=torch.float64)
    left, right = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0] for n in (5, 7))
    usual = orthogonalized(matrix)
    torch.testing.assert_close(orthogonalized(left @ matrix @ right), left @ usual @ right)
    torch.testing.assert_close(orthogonalized(matrix.mT), usual.mT)


def test_no_gradient_is_no_update():
    assert not orthogonalized(torch.zeros(2, 3, 4)).any()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("momentum", [0.0, 0.95])
@pytest.mark.parametrize("pieces, shape", [(1, (4, 7)), (1, (8, 2)), (3, (12, 4)), (2, (24, 5))])
def test_formula(dtype, tolerance, momentum, pieces, shape):
    p = torch.randn(shape, dtype=dtype).requires_grad_()
    groups = [{"params": [p], "pieces": pieces}]
    optimizer = Muon(groups, lr=1.0, weight_decay=0.5, momentum=momentum)
    wanted, average = p.detach().double(), torch.zeros(shape, dtype=torch.float64)
    factor = max(1, shape[0] / pieces / shape[1]) ** 0.5
    for number in range(6):
        lr = (0.01, 0.1, 0.0)[number % 3]  # changed between steps, as the schedule does
        optimizer.param_groups[0]["lr"] = lr
        p.grad = torch.randn_like(p) * 10.0 ** (number - 3)
        gradient = p.grad.double()
        average = momentum * average + (1 - momentum) * gradient
        ahead = momentum * average + (1 - momentum) * gradient
        turn = torch.cat([reference(matrix) for matrix in ahead.chunk(pieces)])
        wanted = wanted * (1 - lr * 0.5) - lr * factor * turn
        optimizer.step()
        torch.testing.assert_close(p.detach().double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has none before 2.9")
@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (8, 32)], ids=str)
def test_it_is_torch_s_but_for_bfloat16(shape):
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().clone())
    given = {"lr": 0.1, "weight_decay": 0.3, "momentum": 0.9}
    optimizers = Muon([ours], **given), torch.optim.Muon([theirs], **given)
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = (ours.detach() - theirs.detach()).abs().max().item()
    assert 0 < moved < 0.1 * 0.03
    buffer = optimizers[1].state[theirs]["momentum_buffer"]
    torch.testing.assert_close(optimizers[0].state[ours]["momentum_buffer"], buffer)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_products_in_bfloat16(momentum):
    """Only the products: weights and momentum keep float32's digits."""
    start, gradient = torch.randn(2, 24, 16)
    moved = {}
    for dtype in (None, torch.float32, torch.bfloat16):
        p = torch.nn.Parameter(start.clone())
        optimizer = Muon([p], lr=0.1, momentum=momentum, dtype=dtype)
        p.grad = gradient.clone()
        optimizer.step()
        assert p.dtype == optimizer.state[p]["momentum_buffer"].dtype == torch.float32
        moved[dtype] = p.detach() - start
    assert torch.equal(moved[None], moved[torch.float32])
    error = (moved[torch.bfloat16] - moved[None]).norm() / moved[None].norm()
    assert 1e-4 < error < 0.03


def test_a_skipped_step_changes_nothing():
    p = torch.nn.Parameter(torch.randn(4, 4))
    optimizer = Muon([p], lr=0.1, weight_decay=0.5)
    p.grad = torch.randn(4, 4)
    optimizer.step(only_if=torch.tensor(True))
    before, average = p.detach().clone(), optimizer.state[p]["momentum_buffer"].clone()
    p.grad = torch.full((4, 4), torch.nan)
    optimizer.step(only_if=torch.tensor(False))
    assert torch.equal(p, before) and torch.equal(optimizer.state[p]["momentum_buffer"], average)


def test_a_momentum_that_was_put_in_is_used():
    """As a run that goes on does it: new tensors in place of those that the optimizer made."""
    params = [torch.nn.Parameter(torch.ones(3, 5)) for _ in range(2)]
    one, other = (Muon([p], lr=0.1, weight_decay=0.1) for p in params)
    gradients = torch.randn(2, 3, 5)
    for p, optimizer in zip(params, (one, other), strict=True):
        p.grad = gradients[0].clone() if optimizer is one else torch.randn(3, 5)
        optimizer.step()
    with torch.no_grad():
        params[1].copy_(params[0])
    other.state[params[1]] = {n: t.clone() for n, t in one.state[params[0]].items()}
    assert other.state[params[1]].keys() == other.blank_state(params[1]).keys()
    for p, optimizer in zip(params, (one, other), strict=True):
        p.grad = gradients[1].clone()
        optimizer.step()
    assert torch.equal(*params)


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"lr": -1}, "out of range"),
        ({"weight_decay": -1}, "out of range"),
        ({"momentum": 1.0}, "out of range"),
        ({"params": [torch.ones(3)]}, "is not 1 matrices"),
        ({"params": [{"params": [torch.ones(4, 2)], "pieces": 3}]}, "is not 3 matrices"),
    ],
    ids=str,
)
def test_mistakes(bad, words):
    with pytest.raises(ValueError, match=words):
        Muon(**{"params": [torch.ones(2, 2)], "lr": 0.1} | bad)


def test_it_learns_a_matrix_that_plain_descent_does_not():
    """Of a regression with inputs of very different sizes."""
    inputs = torch.randn(64, 8) * torch.logspace(0, -1.25, 8)
    target = torch.randn(8, 8)

    def distance(optimizer: torch.optim.Optimizer, p: Tensor, lr: float) -> float:
        for number in range(200):
            optimizer.param_groups[0]["lr"] = lr * (1 - number / 200)
            optimizer.zero_grad()
            (inputs @ (p - target).T).square().mean().backward()
            optimizer.step()
        return (p - target).norm().item() / target.norm().item()

    p, plain = (torch.nn.Parameter(torch.zeros(8, 8)) for _ in range(2))
    ours = distance(Muon([p], lr=0.1), p, 0.1)
    theirs = distance(torch.optim.SGD([plain], lr=2.0), plain, 2.0)
    assert ours < 0.02 and theirs > 0.2, (ours, theirs)
