"""Which optimizer owns what."""

import pytest
import torch

import hrm
from hrm.optim import AdamATan2, Muon, SparseSignSGD, build_optimizers
from hrm.optim.groups import OptimConfig

ARCH = {
    "seq_len": 4,
    "vocab_size": 5,
    "num_puzzle_identifiers": 3,
    "hidden_size": 8,
    "num_heads": 2,
    "expansion": 1,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 2,
    "L_cycles": 2,
    "halt_max_steps": 3,
    "halt_exploration_prob": 0.0,
    "pos_encodings": "grid",
    "grid_shape": [2, 2],
    "box_shape": [1, 2],
    "puzzle_emb_ndim": 8,
    "forward_dtype": "float32",
}
RATES = OptimConfig(
    lr=0.01,
    weight_decay=0.3,
    beta1=0.8,
    beta2=0.9,
    puzzle_emb_lr=0.02,
    puzzle_emb_weight_decay=0.4,
    muon_lr=0.05,
    muon_weight_decay=0.6,
    muon_momentum=0.7,
)
MUON = RATES.model_copy(update={"optimizer": "muon"})


def build(**arch) -> torch.nn.Module:
    return hrm.build_model(ARCH | arch, {"loss_type": "softmax_cross_entropy"}).train()


@pytest.mark.parametrize("positions", ["rope", "learned", "grid"])
@pytest.mark.parametrize("mode", ["prefix", "add"])
def test_every_parameter_is_in_exactly_one_optimizer(positions, mode):
    model = build(pos_encodings=positions, puzzle_emb_mode=mode)
    optimizers = build_optimizers(model, RATES)
    held = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    wanted = [*model.parameters(), model.model.inner.puzzle_emb.weights]
    assert sorted(map(id, held)) == sorted(map(id, wanted))
    dense, sparse = optimizers
    assert isinstance(dense, AdamATan2) and isinstance(sparse, SparseSignSGD)
    (group,) = dense.param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.01, 0.3, (0.8, 0.9))
    (group,) = sparse.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.4)


@pytest.mark.parametrize(
    "arch",
    [
        {"attention_bias": "grid"},
        {"name": "trm", "H_layers": None, "mlp_t": True, "pos_encodings": "learned"},
        {
            "name": "symbol_equivariant",
            "message_size": 4,
            "first_symbol": 1,
            **dict.fromkeys(("H_layers", "num_heads", "pos_encodings", "puzzle_emb_ndim")),
        },
    ],
    ids=["hrm", "trm", "symbols"],
)
def test_muon_has_the_matrices_of_the_blocks_and_nothing_else(arch):
    """By name: whatever is added to a model, this says whose it is."""
    given = {key: value for key, value in (ARCH | arch).items() if value is not None}
    model = hrm.build_model(given, {"loss_type": "softmax_cross_entropy"})
    dense, muon, *sparse = build_optimizers(model, MUON)
    kinds = [AdamATan2, Muon, *([SparseSignSGD] if "puzzle_emb_ndim" in given else [])]
    assert [type(o) for o in (dense, muon, *sparse)] == kinds
    names = {id(p): name for name, p in model.named_parameters()}
    pieces = {"qkv_proj": 3, "gate_up_proj": 2, "o_proj": 1, "down_proj": 1, "message_proj": 1}
    held = {}
    for group in muon.param_groups:
        assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.05, 0.6, 0.7)
        assert group["role"] == "matrices" and group["base_lr"] == 0.05
        held |= {names[id(p)]: group["pieces"] for p in group["params"]}
    wanted = {n: n.split(".")[-2] for n in names.values() if "_level.layers." in n}
    wanted = {n: pieces[kind] for n, kind in wanted.items() if kind in pieces}
    assert held == wanted and len(held) in (4, 8)
    (group,) = dense.param_groups
    rest = {names[id(p)] for p in group["params"]}
    assert rest == set(names.values()) - held.keys() and group["lr"] == 0.01
    assert any("lm_head" in name for name in rest) and any("embed_" in name for name in rest)


def test_no_sparse_optimizer_without_puzzle_embedding():
    (only,) = build_optimizers(build(puzzle_emb_ndim=0), RATES)
    assert isinstance(only, AdamATan2)


@pytest.mark.parametrize("rates", [RATES, MUON], ids=["adam_atan2", "muon"])
@pytest.mark.parametrize("identifiers", [0, 3])
def test_ready_to_step(identifiers, rates):
    model = build(num_puzzle_identifiers=identifiers)
    optimizers = build_optimizers(model, rates)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    batch = {
        "inputs": torch.randint(5, (4, 4), dtype=torch.int32),
        "labels": torch.randint(5, (4, 4), dtype=torch.int32),
        "puzzle_identifiers": torch.tensor([-1, -1, 0, 1] if identifiers else [-1] * 4),
    }
    carry = model.initial_carry(batch)
    for _ in range(2):
        carry, loss, *_ = model(carry=carry, batch=batch)
        (loss / 4).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    unchanged = {n for n, t in model.state_dict().items() if torch.equal(t, before[n])}
    initial = {"model.inner.H_init", "model.inner.L_init"}
    table = "model.inner.puzzle_emb.weights"
    assert unchanged == (initial if identifiers else initial | {table})
    if identifiers:
        rows = model.state_dict()[table]
        assert rows[:2].any(dim=1).all() and not rows[2].any()
