"""FLOPs are those of the products that a step really makes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import hrm
from hrm.models.flops import act_step_flops, training_flops

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
ATTENTION = ("num_heads", "pos_encodings", "puzzle_emb_ndim", "qk_norm", "attention_bias")
LEFT_OUT = {"trm": ("H_layers",), "symbol_equivariant": ("H_layers", *ATTENTION)}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"backprop": "last_cycle"},
        {"q_continue": False},
        {"halt_max_steps": 1},
        {"name": "trm"},
        {"name": "trm", "mlp_t": True},
        {"name": "trm", "q_continue": True, "backprop": "one_step"},
        {"name": "symbol_equivariant", "message_size": 32, "first_symbol": 1},
    ],
    ids=str,
)
def test_model_flops(change):
    arch = ARCH | change
    for key in LEFT_OUT.get(arch.get("name", ""), ()):
        arch.pop(key, None)
    head = hrm.build_model(arch, {"loss_type": "softmax_cross_entropy"}).train()
    tokens = torch.zeros(ROWS, 16, dtype=torch.int32)
    identifiers = torch.zeros(ROWS, dtype=torch.int32)
    batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": identifiers}
    for flops in (training_flops, act_step_flops):
        carry = head.initial_carry(batch)
        with FlopCounterMode(display=False) as counter:
            _, loss, *_ = head(carry=carry, batch=batch)
            if head.training:
                loss.backward()
        counted = ROWS * flops(head.model.config)
        assert counted == pytest.approx(
            counter.get_total_flops(), rel=1e-3
        )  # halting values are left out
        head.eval()
