"""The symbol-equivariant model against a plain float64 reference, and its symmetries."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import hrm
from hrm.device import compile_model
from hrm.errors import UserError
from hrm.models.flops import act_step_flops
from hrm.models.layers import UnitBlock

from .reference_symbols import SymbolReference
from .test_reference import assert_bfloat16_is_near, compare_with, covering, doubled

SMALL = {
    "name": "symbol_equivariant",
    "seq_len": 16,
    "vocab_size": 7,
    "num_puzzle_identifiers": 4,
    "first_digit": 2,
    "grid_shape": [4, 4],
    "box_shape": [2, 2],
    "hidden_size": 8,
    "message_size": 3,
    "expansion": 2,
    "L_layers": 1,
    "H_cycles": 2,
    "L_cycles": 2,
    "halt_max_steps": 3,
    "halt_exploration_prob": 0.0,
    "forward_dtype": "float32",
}
LOSS = {"loss_type": "softmax_cross_entropy"}
NINE = {"seq_len": 81, "vocab_size": 11, "grid_shape": [9, 9], "box_shape": [3, 3]}
SWITCHES = {
    "box_shape": [(2, 2), (1, 4), None],
    "first_symbol": [None, 1, 4],
    "q_continue": [False, True],
    "H_cycles": [2, 1],
    "L_cycles": [3, 1],
    "L_layers": [1, 2],
    "halt_max_steps": [3, 1],
    "backprop": ["last_cycle", "one_step"],
    "loss_type": ["stablemax_cross_entropy", "softmax_cross_entropy"],
}


def build(**changes) -> torch.nn.Module:
    return hrm.build_model(SMALL | changes, LOSS)


def shaken(**changes) -> torch.nn.Module:
    """Halting values that depend on the puzzle."""
    model = build(**changes)
    with torch.no_grad():
        model.model.inner.q_head.weight.normal_()
        model.model.inner.q_head.bias.zero_()
    return model


def make_batch(rows: int, vocab: int = 7, length: int = 16) -> dict[str, torch.Tensor]:
    return {
        "inputs": torch.randint(vocab, (rows, length), dtype=torch.int32),
        "labels": torch.randint(vocab, (rows, length), dtype=torch.int32),
        "puzzle_identifiers": torch.zeros(rows, dtype=torch.int32),
    }


@pytest.fixture
def float_means_double(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def test_every_pair_of_switches(float_means_double):
    product = itertools.product(*SWITCHES.values())
    cases = [dict(zip(SWITCHES, values, strict=True)) for values in product]
    for case in covering(cases, 2):
        loss = {"loss_type": case["loss_type"]}
        arch = SMALL | {key: value for key, value in case.items() if key != "loss_type"}
        try:
            compare_with(SymbolReference, arch, loss, seed=0, batch_length=16)
        except AssertionError as error:
            raise AssertionError(case) from error


def test_gradients_of_a_block_against_finite_differences(float_means_double):
    torch.manual_seed(0)
    block = UnitBlock((4, 4), (2, 2), hidden_size=4, message_size=2, expansion=1).double()
    h = torch.randn(1, 16, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = tuple(w.detach().requires_grad_() for w in block.cast(torch.float64))
    kind = type(block.cast(torch.float64))

    def called(h, *weights):
        return block(h, torch.nn.Identity(), kind(*weights))

    assert torch.autograd.gradcheck(called, (h, *weights), eps=1e-6, atol=1e-4, fast_mode=True)


def test_names_are_frozen_and_know_no_size():
    names = {"H_init", "L_init", "embed_cell.embedding_weight", "lm_head.weight"}
    names |= {"token_head.weight", "q_head.weight", "q_head.bias"}
    parts = ("message_proj", "o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    names |= {f"L_level.layers.{i}.{part}.weight" for i in range(2) for part in parts}
    six = build(L_layers=2).state_dict()
    assert six.keys() == {f"model.inner.{name}" for name in names}
    nine = build(L_layers=2, **NINE)
    nine.load_state_dict(six)


def test_the_recipes_model_is_as_small_as_its_card_says():
    arch = {"hidden_size": 64, "message_size": 32, "expansion": 3, "L_layers": 2}
    arch |= NINE | {"vocab_size": 10, "first_digit": 1}
    assert sum(p.numel() for p in build(**arch).parameters()) == 82_498


@pytest.mark.parametrize(
    "change, words",
    [
        ({"first_symbol": 7}, "first_symbol 7 leaves no symbols of 7 tokens"),
        ({"first_symbol": -1}, "first_symbol"),
        ({"first_digit": None}, "^model: arch.name .* grids of digits, .*arch.first_symbol"),
        ({"message_size": 0}, "message_size"),
        ({"seq_len": 7}, r"grid_shape \(4, 4\) and box_shape \(2, 2\) do not fit seq_len 7"),
        ({"box_shape": [2, 3]}, "box_shape"),
        ({"seq_len": 7, "grid_shape": None}, "arch.name symbol_equivariant needs grid_shape"),
        ({"num_heads": 2}, "num_heads: unknown key"),
        ({"puzzle_emb_ndim": 16}, "puzzle_emb_ndim: unknown key"),
    ],
    ids=str,
)
def test_impossible_architectures_are_named(change, words):
    with pytest.raises(UserError, match=words) as caught:
        build(**change)
    assert "\n" not in str(caught.value)


# -- symmetries ----------------------------------------------------------------------------------


def answers(model, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and halting values after three steps."""
    batch = {
        "inputs": inputs,
        "labels": inputs,
        "puzzle_identifiers": torch.zeros(len(inputs), dtype=torch.int32),
    }
    carry = model.initial_carry(batch)
    with torch.no_grad():
        for _ in range(3):
            carry, outputs = model.model.step(model.model.take_new_data(carry, batch))
            carry.halted.zero_()
    return outputs["logits"], outputs["q_halt_logits"]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), data=st.data())
def test_no_symbol_band_row_or_column_is_special(seed, data):
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        model = doubled(shaken(**NINE, H_cycles=1)).eval()
        inputs = torch.randint(11, (2, 81), dtype=torch.int32)
        logits, q = answers(model, inputs)
        symbols = torch.tensor([0, 1, *(2 + n for n in data.draw(st.permutations(range(9))))])
        renamed, same_q = answers(model, symbols[inputs.long()].int())
        torch.testing.assert_close(renamed[:, :, symbols], logits, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(same_q, q, rtol=1e-9, atol=1e-9)

        def lines() -> list[int]:
            bands = data.draw(st.permutations(range(3)))
            return [3 * b + n for b in bands for n in data.draw(st.permutations(range(3)))]

        rows, columns = lines(), lines()
        cells = torch.tensor([9 * r + c for r in rows for c in columns])
        moved, same_q = answers(model, inputs[:, cells])
        torch.testing.assert_close(moved, logits[:, cells], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(same_q, q, rtol=1e-9, atol=1e-9)


def test_a_row_is_no_column_and_a_blank_no_padding():
    """What is not a symmetry does change the answer."""
    torch.manual_seed(0)
    model = shaken(**NINE).eval()
    inputs = torch.randint(1, 11, (1, 81), dtype=torch.int32)
    logits, _ = answers(model, inputs)
    cells = torch.arange(81).view(9, 9).T.flatten()
    assert (answers(model, inputs[:, cells])[0] - logits[:, cells]).abs().max() > 1e-3
    padded = torch.where(inputs == 1, 0, inputs)
    assert (answers(model, padded)[0] - logits).abs().max() > 1e-3
    swapped = torch.tensor([8, *range(1, 8), 0, *range(9, 81)])  # the first and the last of a row
    other = torch.tensor([9 * 4, *range(1, 36), 0, *range(37, 81)])  # of two bands
    for cells in (swapped, other):
        assert (answers(model, inputs[:, cells])[0] - logits[:, cells]).abs().max() > 1e-3


def test_one_wrong_cell_moves_the_halting_value():
    """The maximum sees what a mean over 729 states would drown."""
    model = shaken(**NINE).model.inner
    z = torch.zeros(1, 81, 9, 8)
    z[0, 40, 4, 0] = 3
    with torch.no_grad():
        model.q_head.weight.zero_()
        model.q_head.weight[0, 8] = 1  # of the maximum of the first number
    assert model.q_values(z)[0].item() == pytest.approx(3)


def test_order_of_the_batch_and_padding_rows():
    torch.manual_seed(0)
    model = shaken().train()
    order = torch.tensor([4, 0, 3, 1, 2])
    first = make_batch(5)
    padded = {name: torch.cat([value[order], value[:2]]) for name, value in first.items()}
    padded["labels"][5:] = -100
    keys = ("logits", "q_halt_logits")
    carry, _, sums, outputs, _ = model(
        carry=model.initial_carry(first), batch=first, return_keys=keys
    )
    other, _, more, shuffled, _ = model(
        carry=model.initial_carry(padded), batch=padded, return_keys=keys
    )
    assert torch.equal(other.halted[:5], carry.halted[order])
    assert more["count"] == sums["count"]
    for key in keys:
        torch.testing.assert_close(shuffled[key][:5], outputs[key][order])


@pytest.mark.filterwarnings("ignore")  # torch warns of its own doings while compiling
def test_compiled_models_compute_the_same():
    torch.manual_seed(0)
    eager, compiled = shaken(L_cycles=1), shaken(L_cycles=1)
    assert compile_model(compiled, "auto", torch.device("cpu")), "no compiler to try"
    compiled.load_state_dict(eager.state_dict())
    batch, ran = make_batch(4), []
    for model in (eager, compiled):
        carry, loss, *_ = model(carry=model.initial_carry(batch), batch=batch)
        loss.backward()
        ran.append((carry.states["z_H"], loss))
    torch.testing.assert_close(ran[1], ran[0], rtol=1e-4, atol=1e-4)
    for (name, p), p2 in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        assert (p2.grad - p.grad).abs().max() <= 1e-4 * p.grad.abs().max() + 1e-7, name


def test_bfloat16_is_near_float32():
    torch.manual_seed(0)
    exact, low = shaken(), build(forward_dtype="bfloat16")
    low.load_state_dict(exact.state_dict())
    assert_bfloat16_is_near(exact, low, make_batch(6))


@pytest.mark.parametrize("changes", [NINE, {}, {"box_shape": None}], ids=str)
def test_flops_are_those_of_the_products(changes):
    """But for the halting value's, as of all cores."""
    model = shaken(**changes).eval()
    core = model.model.inner
    carry = model.initial_carry(model.model.blank_batch(1, "cpu"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        prepared = core.prepare(carry.current_data["inputs"], None)
        core.step(carry.states, prepared)
    halting = 2 * 2 * core.config.hidden_size * 2
    others = 2 * core.config.seq_len * core.config.hidden_size * core.config.others
    assert others > 0
    assert counter.get_total_flops() - halting == act_step_flops(core.config)
