"""A look inside: attention as the model computes it, states as it has them, thinking unchanged."""

from queue import SimpleQueue

import numpy as np
import torch

import hrm
from hrm.inference.batcher import Batcher, Question
from hrm.inference.inside import attention_of, look_inside, path_of
from hrm.models.layers import Attention

PUZZLE = "....12......3..4"


def test_shares_weigh_the_values_as_attention_does():
    torch.manual_seed(0)
    bias = torch.randn(4, 6, 6)
    attention = Attention(32, 4, qk_norm=True)
    x = torch.randn(2, 6, 32)
    eye = torch.nn.Identity()
    weights = torch.nn.Linear(1, 1)
    weights.qkv, weights.o, weights.bias = (
        attention.qkv_proj.weight,
        attention.o_proj.weight,
        torch.nn.Parameter(bias),
    )
    shares = attention.shares(x, eye, weights)
    assert torch.allclose(shares.sum(-1), torch.ones(2, 4, 6))
    values = (x @ weights.qkv[64:].T).view(2, 6, 4, 8).transpose(1, 2)
    expected = (shares @ values).transpose(1, 2).reshape(2, 6, 32) @ weights.o.T
    assert torch.allclose(attention(x, eye, weights), expected, atol=1e-5)


def test_a_path_is_that_of_the_principal_components():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(50, 2)))[0].T
    places = np.stack([np.arange(6.0) * 3, [0, 1, 0, -1, 0, 1]], 1)
    path = path_of("z_H", (places @ axes + 5).astype(np.float32))
    assert np.isclose(sum(path.explained), 1) and path.explained[0] > 0.9
    apart = np.linalg.norm(path.places[:, None] - path.places[None], axis=-1) * 50**0.5
    expected = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.testing.assert_allclose(apart, expected, atol=1e-4)
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1) / 50**0.5
    np.testing.assert_allclose(path.moved, steps, rtol=1e-4)
    still = path_of("z_L", np.ones((2, 4), np.float32))
    assert not still.places.any() and still.moved.tolist() == [0]
    diverged = path_of("z_L", np.full((3, 4), np.nan, np.float32))
    assert np.isfinite(diverged.places).all() and diverged.explained == (0, 0)


def test_a_question_is_looked_into_and_answered_as_ever():
    solver = hrm.pretrained("sudoku-4x4", "cpu")
    tokens = solver.task.read(PUZZLE)
    name = solver.unseen_identifier
    plain = Question(tokens, name, 3, "max_steps")
    asked = [plain, Question(tokens, name, 3, "max_steps", look_at=5), plain]
    told: SimpleQueue = SimpleQueue()
    batcher = Batcher(solver)
    batcher.submit(asked, lambda number, step: told.put((number, step)))
    steps = dict(told.get(timeout=60) for _ in asked)
    batcher.close()
    assert steps[0].inside is steps[2].inside is None
    assert np.array_equal(steps[0].tokens, steps[1].tokens)
    assert np.allclose(steps[0].confidence, steps[1].confidence, atol=1e-5)
    inside = steps[1].inside
    assert [path.name for path in inside.paths] == ["z_H", "z_L"]
    assert all(path.places.shape == (4, 2) for path in inside.paths)

    act = solver.model.model
    batch = {
        "inputs": torch.from_numpy(tokens)[None],
        "puzzle_identifiers": torch.tensor([name], dtype=torch.int32),
    }
    carry = act.take_new_data(act.initial_carry(batch), batch)
    moved = []
    with torch.inference_mode():
        for _ in range(3):
            before = carry
            carry, _ = act.step(carry)
            moved.append((carry.states["z_H"] - before.states["z_H"]).square().mean().sqrt())
        with attention_of(solver.model) as seen:
            act.step(before)
    np.testing.assert_allclose(inside.paths[0].moved, torch.stack(moved).numpy(), rtol=1e-3)
    assert list(inside.attention) == list(seen) and len(seen) > 1
    for block, rows in inside.attention.items():
        np.testing.assert_allclose(rows, seen[block][0, :, 5].numpy(), atol=1e-4)
    assert not any(module._forward_pre_hooks for module in act.modules())

    alone = look_inside(solver.model, batch, 3, cell=5)
    for path, other in zip(alone.paths, inside.paths, strict=True):
        np.testing.assert_allclose(path.places, other.places, atol=1e-3)
    for block, rows in inside.attention.items():
        np.testing.assert_allclose(alone.attention[block], rows, atol=1e-4)
