"""The benchmark counts the products that a step really makes."""

import importlib.util

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import hrm
from tests.conftest import ROOT

ARCH = {
    "hidden_size": 32,
    "num_heads": 4,
    "expansion": 2,
    "H_layers": 1,
    "L_layers": 2,
    "H_cycles": 2,
    "L_cycles": 3,
    "halt_max_steps": 4,
    "halt_exploration_prob": 0.1,
    "pos_encodings": "rope",
    "puzzle_emb_ndim": 32,
    "seq_len": 16,
    "vocab_size": 5,
    "num_puzzle_identifiers": 1,
}
ROWS = 3


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("training", ROOT / "benchmarks" / "training.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "change",
    [{}, {"backprop": "last_cycle"}, {"q_continue": False}, {"halt_max_steps": 1}],
    ids=str,
)
def test_model_flops(benchmark, change):
    head = hrm.build_model(ARCH | change, {"loss_type": "softmax_cross_entropy"}).train()
    tokens = torch.zeros(ROWS, 16, dtype=torch.int32)
    identifiers = torch.zeros(ROWS, dtype=torch.int32)
    batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": identifiers}
    carry = head.initial_carry(batch)
    with FlopCounterMode(display=False) as counter:
        _, loss, *_ = head(carry=carry, batch=batch)
        loss.backward()
    counted = benchmark.model_flops(head.model.config, ROWS)
    assert counted == pytest.approx(
        counter.get_total_flops(), rel=1e-3
    )  # halting values are left out
