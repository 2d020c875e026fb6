"""Rollouts: all steps as the model itself would take them, and learned halting in a stream."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import hrm
from hrm.models.act import add_noise
from hrm.rollout import FEWEST_SLOTS, Noise, RolloutStep, rollout
from tests.watching import rows_of_steps

ARCH = {
    "seq_len": 4,
    "vocab_size": 5,
    "num_puzzle_identifiers": 6,
    "hidden_size": 8,
    "num_heads": 2,
    "expansion": 1,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 1,
    "L_cycles": 1,
    "halt_max_steps": 5,
    "halt_exploration_prob": 1.0,  # must play no part
    "pos_encodings": "learned",
    "puzzle_emb_ndim": 8,
    "forward_dtype": "float32",
}
ROWS = 24
KEYS = ("logits", "q_halt_logits", "q_continue_logits")


@pytest.fixture(autouse=True)
def _small():
    torch.manual_seed(0)


def build(**arch) -> torch.nn.Module:
    model = hrm.build_model(ARCH | arch, {"loss_type": "softmax_cross_entropy"}).eval()
    inner = model.model.inner
    with torch.no_grad():
        inner.q_head.weight.normal_()
        inner.q_head.bias.zero_()
        inner.puzzle_emb.weights.normal_()
    return model


def make_batch(rows: int = ROWS) -> dict[str, torch.Tensor]:
    return {
        "inputs": torch.randint(5, (rows, 4), dtype=torch.int32),
        "labels": torch.randint(5, (rows, 4), dtype=torch.int32),
        "puzzle_identifiers": torch.randint(-1, 6, (rows,), dtype=torch.int32),
    }


def all_steps(model, batch) -> list[dict[str, torch.Tensor]]:
    """The outputs of every step, by calling the model again and again."""
    carry, outputs = model.initial_carry(batch), []
    for _ in range(model.model.config.halt_max_steps):
        carry, _, _, out, _ = model(carry=carry, batch=batch, return_keys=KEYS)
        outputs.append(out)
    return outputs


class WithoutIndexCopy(TorchDispatchMode):
    """As on MPS before torch 2.8."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "index_copy" in func.name():
            raise NotImplementedError(f"{func.name()} on MPS")
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_slots_are_filled_without_what_mps_lacks():
    with WithoutIndexCopy(), pytest.raises(NotImplementedError):
        torch.zeros(2).index_copy(0, torch.tensor([1]), torch.ones(1))
    model, batches = build(), [make_batch() for _ in range(3)]
    with WithoutIndexCopy():
        halted = [s.index[s.halting] for s in rollout(model, batches, "learned")]
    assert torch.cat(halted).sort().values.tolist() == list(range(3 * ROWS))
    assert len(halted) < 3 * model.model.config.halt_max_steps  # slots were taken again


@torch.no_grad()
@pytest.mark.parametrize("maximum", [1, 5])
def test_max_steps_equals_repeated_calls(maximum):
    model, batch = build(halt_max_steps=maximum), make_batch()
    expected = all_steps(model, batch)
    steps = list(rollout(model, [batch]))
    assert len(steps) == maximum
    for number, (step, outputs) in enumerate(zip(steps, expected, strict=True), start=1):
        for key in KEYS:
            assert torch.equal(step.outputs[key], outputs[key]), key
        assert (step.steps == number).all() and step.running.all()
        assert step.halting.all() == step.halting.any() == (number == maximum)


def first_halting(model, outputs, probability: float = 0.0) -> torch.Tensor:
    """The step of the training rule without exploration, one puzzle at a time."""
    maximum, rows = len(outputs), len(outputs[0]["logits"])
    result = []
    for row in range(rows):
        for number, out in enumerate(outputs, start=1):
            q_halt, q_continue = out["q_halt_logits"][row], out["q_continue_logits"][row]
            wants = q_halt > q_continue if model.model.config.q_continue else q_halt > 0
            sure = torch.sigmoid(q_halt) >= probability
            if number == maximum or (wants and sure):
                result.append(number)
                break
    return torch.tensor(result)


@torch.no_grad()
@pytest.mark.parametrize("probability", [0.0, 0.7])
@pytest.mark.parametrize("q_continue", [True, False])
def test_learned_halting_takes_the_first_step_at_which_the_rule_fires(q_continue, probability):
    model, batch = build(q_continue=q_continue), make_batch()
    expected = all_steps(model, batch)
    halts_at = first_halting(model, expected, probability)
    assert 5 in halts_at and len(halts_at.unique()) >= 3
    assert (probability > 0) == (halts_at > first_halting(model, expected)).any()
    for number, step in enumerate(rollout(model, [batch], "learned", probability), start=1):
        running = step.select(step.running)
        assert sorted(running.index.tolist()) == (halts_at >= number).nonzero().flatten().tolist()
        assert torch.equal(running.halting, halts_at[running.index] == number)
        for key in KEYS:  # neighbours disturb nobody
            values = expected[number - 1][key][running.index]
            torch.testing.assert_close(running.outputs[key], values)


@torch.no_grad()
def test_learned_halting_alone_and_in_a_batch():
    model, batch = build(), make_batch(12)
    together = {}
    for number, step in enumerate(rollout(model, [batch], "learned"), start=1):
        for row in step.halting.nonzero().flatten().tolist():
            assert row not in together
            together[row] = number, step.outputs["logits"][row]
    assert sorted(together) == list(range(12))
    for row, (number, logits) in together.items():
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        steps = list(rollout(model, [alone], "learned"))
        assert len(steps) == number and steps[-1].halting.all()
        torch.testing.assert_close(steps[-1].outputs["logits"][0], logits, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_rollout_ends_when_all_have_halted():
    model, batch = build(), make_batch()
    model.model.inner.q_head.bias.copy_(torch.tensor([100.0, -100.0]))
    (only,) = rollout(model, [batch], "learned")
    assert only.halting.all()


def trace(model, batches, halting) -> dict[int, list[RolloutStep]]:
    """What every puzzle of a stream was given, step by step; checks what must hold of any step."""
    taken, halted = {}, set()
    for step in rollout(model, batches, halting):
        assert not (step.halting & ~step.running).any()
        for slot in step.running.nonzero().flatten().tolist():
            mine = torch.arange(len(step.running)) == slot
            one = step.select(mine)
            puzzle = int(one.index)
            assert puzzle not in halted
            taken.setdefault(puzzle, []).append(one)
            assert int(one.steps) == len(taken[puzzle])
            if one.halting:
                halted.add(puzzle)
    assert halted == taken.keys()
    return taken


def in_batches(puzzles, sizes) -> Iterator[dict[str, torch.Tensor]]:
    parts = {name: tensor.split(sizes) for name, tensor in puzzles.items()}
    return ({name: parts[name][i] for name in parts} for i in range(len(sizes)))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch_size=st.sampled_from([1, 2, 3, 7, 16, 17, 40]),
    puzzles=st.integers(1, 90),
    bias=st.floats(-3, 3),
    q_continue=st.booleans(),
)
@torch.no_grad()
def test_a_stream_gives_what_each_puzzle_gives_alone(seed, batch_size, puzzles, bias, q_continue):
    torch.manual_seed(seed)
    model, data = build(q_continue=q_continue), make_batch(puzzles)
    model.model.inner.q_head.bias[0] = bias
    expected = all_steps(model, data)
    halts_at = first_halting(model, expected)
    margins = torch.stack(
        [out["q_halt_logits"] - q_continue * out["q_continue_logits"] for out in expected]
    )
    assume(margins.abs().min() > 1e-4)  # else rounding decides

    rows = rows_of_steps(model.model)
    sizes = [len(part) for part in torch.arange(puzzles).split(batch_size)]
    taken = trace(model, in_batches(data, sizes), "learned")

    assert sorted(taken) == list(range(puzzles))
    for puzzle, steps in taken.items():
        assert len(steps) == halts_at[puzzle]
        for step, outputs in zip(steps, expected, strict=False):
            for name in data:
                assert torch.equal(step.data[name][0], data[name][puzzle])
            for key in KEYS:
                # 2.9e-5 on an Intel Xeon with AVX-512, whose kernels depend on the batch size
                ours, alone = step.outputs[key][0], outputs[key][puzzle]
                torch.testing.assert_close(ours, alone, rtol=1e-4, atol=1e-4)

    slots, maximum = sizes[0], ARCH["halt_max_steps"]
    tail = maximum * max(slots // 2, 2 * FEWEST_SLOTS)
    assert halts_at.sum() <= sum(rows) <= halts_at.sum() + tail
    shapes = {slots >> n for n in range(slots.bit_length())} | {sizes[-1] >> n for n in range(6)}
    assert set(rows) <= shapes


@torch.no_grad()
def test_a_long_stream_costs_its_mean_number_of_steps():
    model, data = build(), make_batch(1600)
    halts_at = first_halting(model, all_steps(model, data))
    rows = rows_of_steps(model.model)
    for _ in rollout(model, in_batches(data, [64] * 25), "learned"):
        pass
    assert halts_at.float().mean() < 4
    assert sum(rows) <= 1.02 * halts_at.sum()
    assert set(rows) <= {64, 32, 16, 8}


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[24], [8, 8, 8], [10, 10, 4], [3, 0, 20, 1], [0, 24]])
def test_max_steps_runs_every_batch_as_it_is(sizes):
    model, data = build(), make_batch()
    expected = [all_steps(model, batch) for batch in in_batches(data, sizes)]
    rows = rows_of_steps(model.model)
    steps = list(rollout(model, in_batches(data, sizes)))
    assert rows == [size for size in sizes if size for _ in range(5)]
    flat = [
        outputs for size, batch in zip(sizes, expected, strict=True) if size for outputs in batch
    ]
    for step, outputs in zip(steps, flat, strict=True):
        assert all(torch.equal(step.outputs[key], outputs[key]) for key in KEYS)
    assert torch.cat([s.index for s in steps if s.halting.any()]).tolist() == list(range(ROWS))


@torch.no_grad()
@pytest.mark.parametrize("halting", ["max_steps", "learned"])
def test_a_batch_is_read_when_a_slot_is_free_for_it(halting):
    model, data = build(), make_batch(60)
    read = 0

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        nonlocal read
        for batch in in_batches(data, [12] * 5):
            read += 12
            yield batch

    begun: set[int] = set()
    for step in rollout(model, batches(), halting):
        begun |= set(step.index[step.running].tolist())
        assert read - 12 < len(begun) <= read
    assert len(begun) == 60


@torch.no_grad()
@pytest.mark.parametrize("halting", ["max_steps", "learned"])
def test_a_stream_without_puzzles(halting):
    empty = {name: tensor[:0] for name, tensor in make_batch().items()}
    assert list(rollout(build(), [], halting)) == list(rollout(build(), [empty], halting)) == []


def noisy_alone(model, batch, noise: Noise, steps: int = 5) -> list[dict[str, torch.Tensor]]:
    """Outputs of all steps of all rows at once, by the inner model."""
    inner, rows = model.model.inner, len(noise.scale)
    shape = inner.blank_states(rows, torch.device("cpu"))
    states = {n: s.expand_as(shape[n]) for n, s in inner.initial_states().items()}
    prepared, outputs = (
        inner.prepare(batch["inputs"], inner.look_up(batch["puzzle_identifiers"])),
        [],
    )
    for step in range(steps):
        counters = noise.puzzle, noise.rollout, torch.full((rows,), step)
        states = add_noise(states, noise.scale, noise.seed, *counters)
        states, logits, q_halt, q_continue = inner.step(states, prepared)
        outputs.append(dict(zip(KEYS, (logits, q_halt, q_continue), strict=True)))
    return outputs


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch_size=st.sampled_from([1, 3, 16, 40]),
    puzzles=st.integers(1, 40),
    unwanted=st.integers(2, 9),
)
@torch.no_grad()
def test_noise_and_puzzles_that_are_given_up_disturb_nobody(seed, batch_size, puzzles, unwanted):
    torch.manual_seed(seed)
    model, data = build(), make_batch(puzzles)
    kinds = torch.arange(puzzles)
    noise = Noise(kinds % 3 / 2, kinds % 2 + seed, kinds // 2, kinds % 4)
    expected = noisy_alone(model, data, noise)
    halts_at = first_halting(model, expected)
    margins = torch.stack([out["q_halt_logits"] - out["q_continue_logits"] for out in expected])
    assume(margins.abs().min() > 1e-4)
    taken = [0] * puzzles
    sizes = [len(part) for part in kinds.split(batch_size)]
    steps = rollout(
        model,
        in_batches(data, sizes),
        "learned",
        noise=lambda n: Noise(*(values[n] for values in vars(noise).values())),
        is_wanted=lambda n: (n + taken[n]) % unwanted > 0,
    )
    for step in steps:
        for place in step.running.nonzero().flatten().tolist():
            n = int(step.index[place])
            for key in KEYS:
                values = expected[taken[n]][key][n]
                torch.testing.assert_close(step.outputs[key][place], values, rtol=1e-4, atol=1e-4)
            taken[n] += 1
            assert int(step.steps[place]) == taken[n] <= halts_at[n]
            assert bool(step.halting[place]) == (taken[n] == halts_at[n])
    for n, (count, end) in enumerate(zip(taken, halts_at.tolist(), strict=True)):
        left = [k for k in range(end) if (n + k) % unwanted == 0]  # steps before which it may go
        assert count == end or count in left


@torch.no_grad()
def test_labels_are_not_needed_and_a_rollout_starts_afresh():
    model, batch = build(), make_batch()
    first = [step.outputs["logits"] for step in rollout(model, [batch])]
    del batch["labels"]
    again = [step.outputs["logits"] for step in rollout(model, [batch])]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(AssertionError):
        next(rollout(build().train(), [make_batch()]))
