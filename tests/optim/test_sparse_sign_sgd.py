"""Sparse sign-SGD by numbers, over micro-batches and over ranks."""

import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from hrm.models.sparse_embedding import CastedSparseEmbedding
from hrm.optim import SparseSignSGD

from ..forked_ranks import CONTEXT
from ..watching import LONG

LR, DECAY, DIM = 0.1, 0.5, 3
KEEP = 1 - LR * DECAY


def make_table(rows: int = 6) -> CastedSparseEmbedding:
    table = CastedSparseEmbedding(rows, DIM, torch.float32).train()
    table.weights.copy_(torch.arange(rows * DIM).view(rows, DIM) / 10 + 1)
    return table


def look_up(table, identifiers: list[int], gradients: list[list[float]]) -> None:
    """A forward and a backward pass that gives each looked-up row its gradient."""
    rows = table(torch.tensor(identifiers, dtype=torch.int32))
    (rows * torch.tensor(gradients)).sum().backward()


def step(table, **options) -> None:
    optimizer = SparseSignSGD(table, LR, DECAY, **options)
    optimizer.step()
    optimizer.zero_grad()


def test_gradients_of_equal_identifiers_are_summed_before_the_sign():
    table = make_table()
    before = table.weights.clone()
    look_up(
        table,
        [4, 1, 4, 4],
        [[1.0, 3.0, -1.0], [0.5, -0.5, 0.0], [1.0, -2.0, 0.0], [-3.0, -2.0, 1.0]],
    )
    step(table)
    expected = before.clone()
    expected[4] = before[4] * KEEP - LR * torch.tensor([-1.0, -1.0, 0.0])
    expected[1] = before[1] * KEEP - LR * torch.tensor([1.0, -1.0, 0.0])
    torch.testing.assert_close(table.weights, expected)
    assert torch.equal(table.weights[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


def test_a_row_with_zero_gradient_still_decays_when_present():
    table = make_table()
    before = table.weights.clone()
    look_up(table, [2], [[0.0, 0.0, 0.0]])
    step(table)
    torch.testing.assert_close(table.weights[2], before[2] * KEEP)


def test_a_row_looked_up_without_a_backward_pass_stays():
    table = make_table()
    before = table.weights.clone()
    table(torch.tensor([2]))
    step(table)
    assert torch.equal(table.weights, before)
    assert not table.lookups


def test_zero_grad_between_forward_and_backward_keeps_the_pending_lookup():
    table = make_table()
    optimizer = SparseSignSGD(table, LR, DECAY)
    before = table.weights.clone()
    look_up(table, [1], [[1.0, 1.0, 1.0]])
    rows = table(torch.tensor([2]))
    optimizer.zero_grad()
    rows.sum().backward()
    optimizer.step()
    assert torch.equal(table.weights[1], before[1])
    torch.testing.assert_close(table.weights[2], before[2] * KEEP - LR)


def test_negative_identifiers_touch_nothing():
    table = make_table()
    before = table.weights.clone()
    look_up(table, [-1, -3], [[1.0, 1.0, 1.0]] * 2)
    step(table)
    assert torch.equal(table.weights, before)
    look_up(table, [-1, 5], [[1.0, 1.0, 1.0], [0.0, 0.0, -1.0]])
    step(table)
    assert torch.equal(table.weights[:5], before[:5])  # neither row 0 nor the last by wrap-around
    expected = before[5] * KEEP - LR * torch.tensor([0.0, 0.0, -1.0])
    torch.testing.assert_close(table.weights[5], expected)


@pytest.mark.parametrize("only_if", [None, torch.tensor(True)])
def test_a_batch_without_any_identity_changes_nothing(only_if):
    table = make_table()
    before = table.weights.clone()
    look_up(table, [-1, -1], [[1.0, 1.0, 1.0]] * 2)
    SparseSignSGD(table, lr=0.5, weight_decay=0.5).step(only_if=only_if)
    assert torch.equal(table.weights, before)


def test_negative_identifiers_give_zero_rows_without_gradient_to_row_0():
    table = make_table()
    rows = table(torch.tensor([-1, 0]))
    assert torch.equal(rows[0], torch.zeros(DIM)) and torch.equal(rows[1], table.weights[0])


def test_micro_batches_equal_one_batch():
    torch.manual_seed(0)
    identifiers, gradients = torch.randint(-1, 6, (12,)).tolist(), torch.randn(12, DIM).tolist()
    whole, parts = make_table(), make_table()
    look_up(whole, identifiers, gradients)
    for start in (0, 5, 6):
        end = {0: 5, 5: 6, 6: 12}[start]
        look_up(parts, identifiers[start:end], gradients[start:end])
    assert len(parts.lookups) == 3
    step(whole)
    step(parts)
    torch.testing.assert_close(parts.weights, whole.weights)


def test_a_step_uses_up_its_lookups_and_an_empty_step_does_nothing():
    table = make_table()
    optimizer = SparseSignSGD(table, LR, DECAY)
    look_up(table, [1], [[1.0, 1.0, 1.0]])
    optimizer.step()
    assert not table.lookups
    before = table.weights.clone()
    optimizer.step()
    assert torch.equal(table.weights, before)


def test_no_dense_gradient_and_in_place():
    table = make_table()
    weights = table.weights
    look_up(table, [1], [[1.0, 1.0, 1.0]])
    assert weights.grad is None
    step(table)
    assert table.weights is weights and weights.grad is None


def test_learning_rate_changes_between_steps():
    table = make_table()
    optimizer = SparseSignSGD(table, 5.0, 0.0)
    for lr in (0.0, 0.25):
        before = table.weights.clone()
        optimizer.param_groups[0]["lr"] = lr
        look_up(table, [3], [[2.0, -2.0, 0.0]])
        optimizer.step()
        optimizer.zero_grad()
        expected = before[3] - lr * torch.tensor([1.0, -1.0, 0.0])
        torch.testing.assert_close(table.weights[3], expected)


def test_bfloat16_rows_have_float32_gradients():
    table = CastedSparseEmbedding(3, DIM, torch.bfloat16).train()
    rows = table(torch.tensor([1]))
    assert rows.dtype == torch.bfloat16
    rows.sum().backward()
    assert table.lookups[0][1].grad.dtype == torch.float32
    step(table)
    torch.testing.assert_close(table.weights[1], torch.full((DIM,), -LR))


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"lr": 0.1, "weight_decay": -1.0}], ids=str)
def test_values_out_of_range(bad):
    with pytest.raises(ValueError, match="out of range"):
        SparseSignSGD(make_table(), **bad)


# -- two ranks -----------------------------------------------------------------------------------

STEPS, LOCAL, RANKS = 3, 4, 2


def make_steps() -> list[tuple[list[int], list[list[float]]]]:
    """Identifiers and gradients of a global batch; some rows occur on both ranks."""
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randint(-1, 5, (LOCAL * RANKS,), generator=generator).tolist(),
            torch.randn(LOCAL * RANKS, DIM, generator=generator).tolist(),
        )
        for _ in range(STEPS)
    ]


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    table = make_table()
    for identifiers, gradients in make_steps():
        for start in range(rank * LOCAL, (rank + 1) * LOCAL, 2):  # micro-batches of two
            look_up(table, identifiers[start : start + 2], gradients[start : start + 2])
        step(table)
    torch.save(table.weights, Path(folder) / f"{rank}.pt")
    alone = dist.new_group([0]), dist.new_group([1])
    look_up(table, [rank], [[1.0, 1.0, 1.0]])
    step(table, process_group=alone[rank])  # a group of its own: nothing is shared
    torch.save(table.weights, Path(folder) / f"{rank}-alone.pt")
    dist.barrier()  # nobody leaves while another still needs the store
    dist.destroy_process_group()


def test_two_ranks_equal_one_process():
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            CONTEXT.Process(target=run_rank, args=(rank, folder), daemon=True)
            for rank in range(RANKS)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(LONG)
        assert [process.exitcode for process in processes] == [0, 0]
        shared = [torch.load(Path(folder) / f"{r}.pt") for r in range(RANKS)]
        alone = [torch.load(Path(folder) / f"{r}-alone.pt") for r in range(RANKS)]
    table = make_table()
    for identifiers, gradients in make_steps():
        look_up(table, identifiers, gradients)
        step(table)
    assert torch.equal(shared[0], shared[1])
    torch.testing.assert_close(shared[0], table.weights, rtol=1e-6, atol=1e-6)
    for rank, weights in enumerate(alone):
        changed = (weights != shared[0]).any(dim=1).nonzero().flatten().tolist()
        assert changed == [rank]
