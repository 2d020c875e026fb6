"""The ACT wrapper: carry, halting, exploration, and what must not change the result."""

import pytest
import torch

import hrm
from hrm.models import act
from hrm.models.act import add_noise, uniform_hash

LOSS = {"loss_type": "softmax_cross_entropy"}
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
    "halt_max_steps": 4,
    "halt_exploration_prob": 0.0,
    "pos_encodings": "learned",
    "puzzle_emb_ndim": 8,
    "forward_dtype": "float32",
}
KEYS = ("logits", "q_halt_logits", "q_continue_logits", "target_q_continue")


def build(q_bias: tuple[float, float] | None = None, **arch) -> torch.nn.Module:
    """`q_bias` fixes both halting values; without it they depend on the data."""
    model = hrm.build_model(ARCH | arch, LOSS).train()
    inner = model.model.inner
    with torch.no_grad():
        if q_bias is None:
            inner.q_head.weight.normal_()
            inner.q_head.bias.zero_()
        else:
            inner.q_head.bias.copy_(torch.tensor(q_bias))
        if inner.puzzle_emb is not None:
            inner.puzzle_emb.weights.normal_()
    return model


def make_batch(rows: int, length: int = 4) -> dict[str, torch.Tensor]:
    return {
        "inputs": torch.randint(5, (rows, length), dtype=torch.int32),
        "labels": torch.randint(5, (rows, length), dtype=torch.int32),
        "puzzle_identifiers": torch.randint(-1, 6, (rows,), dtype=torch.int32),
    }


def rows_of(batch: dict[str, torch.Tensor], index) -> dict[str, torch.Tensor]:
    return {name: value[index] for name, value in batch.items()}


def step(model, carry, batch):
    return model(carry=carry, batch=batch, return_keys=KEYS)


# -- halting and fresh data ----------------------------------------------------------------------


def test_halted_sequences_take_new_data_and_the_others_keep_theirs():
    model = build(halt_max_steps=3)
    carry = model.initial_carry(make_batch(32))
    assert carry.halted.all() and not carry.steps.any()
    seen = set()
    for _ in range(6):
        batch, before = make_batch(32), carry
        carry, *_ = step(model, carry, batch)
        for name, value in carry.current_data.items():
            old, new, halted = before.current_data[name], batch[name], before.halted
            assert torch.equal(value[halted], new[halted]), name
            assert torch.equal(value[~halted], old[~halted]), name
        assert torch.equal(carry.steps, torch.where(before.halted, 1, before.steps + 1))
        assert carry.steps.max() <= 3 and carry.halted[carry.steps == 3].all()
        seen |= set(carry.steps[carry.halted].tolist())
    assert seen == {1, 2, 3}  # both kinds of halting occurred


def test_a_halted_sequence_starts_from_the_initial_states():
    """Its next answer is that of a fresh carry on the same data."""
    model = build(halt_max_steps=3)
    carry = model.initial_carry(make_batch(32))
    for _ in range(3):
        carry, *_ = step(model, carry, make_batch(32))
    halted, batch = carry.halted.clone(), make_batch(32)
    assert halted.any() and not halted.all()
    _, _, _, continued, _ = step(model, carry, batch)
    _, _, _, fresh, _ = step(model, model.initial_carry(batch), batch)
    for key in ("logits", "q_halt_logits"):
        assert torch.equal(continued[key][halted], fresh[key][halted])
        assert not torch.equal(continued[key][~halted], fresh[key][~halted])


def test_the_initial_states_are_used():
    model = build()
    batch = make_batch(3)
    _, _, _, before, _ = step(model, model.initial_carry(batch), batch)
    for name in ("H_init", "L_init"):
        model.model.inner.get_buffer(name).normal_()
        _, _, _, after, _ = step(model, model.initial_carry(batch), batch)
        assert not torch.equal(before["logits"], after["logits"]), name
        before = after


@pytest.mark.parametrize(
    "q_continue, q_bias, halts",
    [
        (True, (1.0, 0.5), True),
        (True, (0.5, 1.0), False),
        (True, (0.5, 0.5), False),
        (True, (-1.0, -2.0), True),
        (False, (0.5, 1.0), True),
        (False, (0.0, -1.0), False),
        (False, (-1.0, -2.0), False),
    ],
)
def test_halting_rule(q_continue, q_bias, halts):
    model = build(q_bias, q_continue=q_continue)
    batch = make_batch(3)
    carry = model.initial_carry(batch)
    steps = []
    while not steps or not carry.halted.all():
        carry, *_ = step(model, carry, batch)
        steps.append(carry.halted.tolist())
    assert len(steps) == (1 if halts else 4)
    model.eval()
    carry, *_, all_halted = step(model, model.initial_carry(batch), batch)
    assert not carry.halted.any() and not all_halted  # evaluation takes all steps


@pytest.mark.parametrize("change", [{"halt_max_steps": 1}, {"q_continue": False}], ids=str)
def test_without_a_target(change):
    model = build(**change)
    batch = make_batch(3)
    calls = []
    model.model.inner.H_level.register_forward_hook(lambda *_: calls.append(1))
    _, _, metrics, outputs, _ = step(model, model.initial_carry(batch), batch)
    assert "target_q_continue" not in outputs and "q_continue_loss" not in metrics
    assert len(calls) == 1  # no second pass


def test_target_is_the_next_step_of_the_same_weights():
    model = build((-5.0, -5.0), halt_max_steps=2)
    with torch.no_grad():
        model.model.inner.q_head.weight.copy_(torch.randn(2, 8) * 0.1)
        model.model.inner.q_head.bias.copy_(torch.tensor([-1.0, 1.0]))
    batch = make_batch(16)
    carry, _, _, first, _ = step(model, model.initial_carry(batch), batch)
    assert not carry.halted.any()
    carry, _, _, second, _ = step(model, carry, batch)
    best = torch.maximum(second["q_halt_logits"], second["q_continue_logits"])
    torch.testing.assert_close(first["target_q_continue"], torch.sigmoid(best))
    # on the last step only q_halt counts: run a model with one step more, past the last
    longer = build(halt_max_steps=3)
    longer.load_state_dict(model.state_dict())
    _, _, _, third, _ = step(longer, carry_on(carry), batch)
    expected = torch.sigmoid(third["q_halt_logits"])
    torch.testing.assert_close(second["target_q_continue"], expected)
    assert not torch.allclose(expected, torch.sigmoid(third["q_continue_logits"]))


def carry_on(carry):
    """The carry with nothing halted, so that the next step goes on."""
    carry.halted = torch.zeros_like(carry.halted)
    return carry


# -- the carry -----------------------------------------------------------------------------------


def test_carry_is_detached_and_gradients_stay_within_a_step():
    model = build()
    batch = make_batch(4)
    carry = model.initial_carry(batch)
    for _ in range(3):
        carry, loss, *_ = step(model, carry, batch)
        for name in ("z_H", "z_L"):
            value = carry.states[name]
            assert not value.requires_grad and value.grad_fn is None, name
        loss.backward()  # would fail the second time if the graph reached back


def test_step_leaves_the_carry_it_was_given_alone():
    model = build()
    batch = make_batch(4)
    before, *_ = step(model, model.initial_carry(batch), batch)
    kept = before.select(slice(None))
    copies = {name: tensor.clone() for name, tensor in kept.named().items()}
    assert {"z_H", "z_L", "steps", "halted", "tick", "current_data/inputs"} <= copies.keys()
    step(model, before, make_batch(4))
    for name, copy in copies.items():
        assert torch.equal(before.named()[name], copy), name


@pytest.mark.parametrize(
    "index", [slice(1, 4), torch.tensor([5, 0, 2]), torch.arange(6) % 2 == 0], ids=str
)
def test_select(index):
    model = build(halt_exploration_prob=0.5)
    batch = make_batch(6)
    carry = model.initial_carry(batch, first_row=10)
    for _ in range(2):
        carry, *_ = step(model, carry, make_batch(6))
    part = carry.select(index)
    names = {"z_H", "z_L", "steps", "halted", "row", "tick"}
    assert part.named().keys() == names | {f"current_data/{name}" for name in batch}
    for name, value in carry.named().items():
        assert torch.equal(part.named()[name], value[index]), name
    batch = make_batch(6)
    whole, _, _, outputs, _ = step(model, carry, batch)
    piece, _, _, selected, _ = step(model, part, rows_of(batch, index))
    torch.testing.assert_close(selected["logits"], outputs["logits"][index])
    assert torch.equal(piece.halted, whole.halted[index])


# -- what must not matter ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["prefix", "add"])
def test_order_of_the_batch(mode):
    model = build(puzzle_emb_mode=mode)
    order = torch.randperm(8)
    batches = [make_batch(8) for _ in range(3)]
    carry = model.initial_carry(batches[0])
    shuffled = model.initial_carry(rows_of(batches[0], order))
    for batch in batches:
        carry, loss, metrics, outputs, _ = step(model, carry, batch)
        shuffled, loss2, metrics2, outputs2, _ = step(model, shuffled, rows_of(batch, order))
        assert torch.equal(shuffled.halted, carry.halted[order])
        for key in KEYS:
            torch.testing.assert_close(outputs2[key], outputs[key][order])
        torch.testing.assert_close(loss2, loss)
        for name in metrics:
            torch.testing.assert_close(metrics2[name], metrics[name])


def test_padding_rows_leave_the_others_untouched():
    model = build(halt_max_steps=2)
    batch = make_batch(5)
    padding = {
        "inputs": torch.zeros(3, 4, dtype=torch.int32),
        "labels": torch.full((3, 4), -100, dtype=torch.int32),
        "puzzle_identifiers": torch.full((3,), -1, dtype=torch.int32),
    }
    padded = {name: torch.cat([value, padding[name]]) for name, value in batch.items()}
    carry, with_padding = model.initial_carry(batch), model.initial_carry(padded)
    for _ in range(3):
        carry, loss, metrics, outputs, _ = step(model, carry, batch)
        with_padding, loss2, metrics2, outputs2, _ = step(model, with_padding, padded)
        for key in KEYS:
            torch.testing.assert_close(outputs2[key][:5], outputs[key])
        for name, value in metrics.items():
            if "q_" not in name or "loss" not in name:
                torch.testing.assert_close(metrics2[name], value)
        # a padding row counts as exactly right in the halting loss, and has no token loss
        extra = torch.nn.functional.softplus(-outputs2["q_halt_logits"][5:]).sum()
        torch.testing.assert_close(metrics2["q_halt_loss"], metrics["q_halt_loss"] + extra)
        assert loss2 > loss


def test_negative_identifiers_are_a_zero_row():
    model = build()
    batch = make_batch(4)
    batch["puzzle_identifiers"] = torch.tensor([-1, -7, 0, 5], dtype=torch.int32)
    model.model.inner.puzzle_emb.weights[3] = 0
    _, loss, _, outputs, _ = step(model, model.initial_carry(batch), batch)
    batch["puzzle_identifiers"] = torch.tensor([3, 3, 0, 5], dtype=torch.int32)
    _, loss2, _, outputs2, _ = step(model, model.initial_carry(batch), batch)
    assert torch.equal(outputs["logits"], outputs2["logits"]) and torch.equal(loss, loss2)


def test_a_data_set_without_identifiers():
    model = build(num_puzzle_identifiers=0)
    batch = make_batch(4)
    batch["puzzle_identifiers"] = torch.full((4,), -1, dtype=torch.int32)
    carry, loss, *_ = step(model, model.initial_carry(batch), batch)
    assert loss.isfinite()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_integer_dtypes_of_tokens(dtype):
    model = build().eval()
    batch = make_batch(4)
    _, loss, *_ = step(model, model.initial_carry(batch), batch)
    other = batch | {"inputs": batch["inputs"].to(dtype), "labels": batch["labels"].long()}
    _, same, *_ = step(model, model.initial_carry(other), other)
    assert torch.equal(loss, same)


def test_lookups_are_kept_in_training_only():
    model = build()
    table, batch = model.model.inner.puzzle_emb, make_batch(4)
    step(model.eval(), model.initial_carry(batch), batch)
    with torch.no_grad():
        step(model.train(), model.initial_carry(batch), batch)
    assert not table.lookups
    step(model, model.initial_carry(batch), batch)
    ((identifiers, rows),) = table.lookups
    assert torch.equal(identifiers, batch["puzzle_identifiers"]) and rows.shape == (4, 8)
    assert table.weights.grad is None and not table.weights.requires_grad


# -- exploration ---------------------------------------------------------------------------------


def test_hash_is_a_pure_function_of_seed_tick_row_and_stream():
    rows = torch.arange(1000)
    first = uniform_hash(3, torch.full((1000,), 7), rows, 0)
    again = uniform_hash(3, torch.full((1000,), 7), rows, 0)
    assert first.dtype == torch.float32 and torch.equal(first, again)
    part = uniform_hash(3, torch.full((10,), 7), rows[500:510], 0)
    assert torch.equal(part, first[500:510])
    for other in (
        uniform_hash(4, torch.full((1000,), 7), rows, 0),
        uniform_hash(3, torch.full((1000,), 8), rows, 0),
        uniform_hash(3, torch.full((1000,), 7), rows + 1000, 0),
        uniform_hash(3, torch.full((1000,), 7), rows, 1),
    ):
        correlation = torch.corrcoef(torch.stack([first, other]))[0, 1]
        assert abs(correlation) < 0.15 and not (first == other).any()
    for seed in (0, -1, 2**31, 2**40 + 1):  # any seed, and no shift by one between neighbours
        values = uniform_hash(seed, torch.zeros_like(rows), rows, 0)
        assert 0 <= values.min() and values.max() < 1
        assert values.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("axis", ["row", "tick", "seed"])
def test_hash_is_uniform_along_each_argument(axis):
    n = 4096 if axis != "seed" else 512
    counter, constant = torch.arange(n), torch.full((n,), 5)
    if axis == "seed":
        one = torch.zeros(1, dtype=torch.int64)
        values = torch.cat([uniform_hash(seed, one, one, 0) for seed in range(n)])
    else:
        tick, row = (counter, constant) if axis == "tick" else (constant, counter)
        values = uniform_hash(11, tick, row, 0)
    counts = torch.histc(values, 16, 0, 1)
    chi_square = ((counts - n / 16) ** 2 / (n / 16)).sum()
    assert chi_square < 45  # 15 degrees of freedom: exceeded with probability 1e-4
    serial = torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1]
    assert abs(serial) < 4 / n**0.5


# -- noise ---------------------------------------------------------------------------------------


def noise(rows: int = 6, step: int = 0, seed: int = 0, **shapes: tuple[int, ...]):
    """Of zeros; every row with its number as a counter."""
    states = {n: torch.zeros(rows, *shape) for n, shape in (shapes or {"z": (5, 7)}).items()}
    number = torch.arange(rows)
    args = torch.ones(rows), torch.full((rows,), seed), number, torch.full((rows,), step)
    return add_noise(states, *args)


def test_noise_is_normal_and_of_any_two_states_independent():
    drawn = noise(4, z_H=(100, 64), z_L=(100, 64))
    rows = torch.cat(
        [drawn["z_H"].flatten(1), drawn["z_L"].flatten(1), noise(4, 1, z=(6400,))["z"]]
    )
    values = rows.double().flatten()  # 76,800 of them
    assert values.mean().abs() < 4 / len(values) ** 0.5
    assert values.std() == pytest.approx(1, abs=0.011)
    within = [(values.abs() < bound).double().mean().item() for bound in (0.5, 1, 2, 3)]
    assert within == pytest.approx([0.3829, 0.6827, 0.9545, 0.9973], abs=0.007)
    correlations = torch.corrcoef(rows.double()) - torch.eye(len(rows))
    assert correlations.abs().max() < 4.5 / 6400**0.5
    serial = torch.corrcoef(torch.stack([rows[:, :-1].flatten(), rows[:, 1:].flatten()]))[0, 1]
    assert serial.abs() < 4 / len(values) ** 0.5


def test_noise_is_a_pure_function_of_seed_counters_state_and_element():
    first = noise()["z"]
    assert torch.equal(first, noise()["z"])
    assert torch.equal(first[:2], noise(2)["z"])  # whatever shares the batch
    for other in (noise(seed=1), noise(seed=2**40), noise(step=1)):
        assert not (first == other["z"]).any()
    odd = noise(z=(35,))["z"]
    assert torch.equal(odd, first.flatten(1))  # 35 elements, whatever their shape
    reordered = noise(b=(3,), a=(3,))
    assert torch.equal(noise(a=(3,), b=(3,))["b"], reordered["b"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_has_the_scale_of_each_row_and_the_dtype_of_the_states(dtype):
    states, rows = {"z": torch.randn(3, 40).to(dtype)}, torch.arange(3)
    noisy = add_noise(states, torch.tensor([0.0, 0.5, 1.0]), torch.zeros_like(rows), rows)["z"]
    assert noisy.dtype == dtype and torch.equal(noisy[0], states["z"][0])
    added = (noisy - states["z"]).float()
    assert added[1].std() == pytest.approx(0.5, abs=0.2) and added[2].std() > added[1].std()


def halting_steps(model, rows: int) -> torch.Tensor:
    """At which step each row of a fresh batch halts."""
    batch = make_batch(rows, model.model.config.seq_len)
    carry = model.initial_carry(batch)
    at = torch.zeros(rows, dtype=torch.int32)
    with torch.no_grad():
        for number in range(1, model.model.config.halt_max_steps + 1):
            carry, *_ = step(model, carry, batch)
            at[carry.halted & (at == 0)] = number
            carry = carry_on(carry)
    return at


WANTS_TO_HALT, WANTS_TO_GO_ON = (5.0, -5.0), (-5.0, 5.0)


def test_frequency_of_exploration():
    model = build(WANTS_TO_HALT, halt_exploration_prob=0.3, seq_len=1, puzzle_emb_ndim=0)
    at = halting_steps(model, 6000)
    assert (at > 1).double().mean().item() == pytest.approx(0.3, abs=0.025)


def test_minimum_is_drawn_anew_each_step_uniformly_from_2_to_the_maximum():
    model = build(WANTS_TO_HALT, halt_exploration_prob=1.0, seq_len=1, puzzle_emb_ndim=0)
    at = halting_steps(model, 6000)
    going = 6000
    for number, chance in ((1, 0), (2, 1 / 3), (3, 2 / 3), (4, 1)):
        halted = int((at == number).sum())
        assert halted / going == pytest.approx(chance, abs=0.04 if 0 < chance < 1 else 0)
        going -= halted


def test_exploration_never_halts_a_sequence_and_ends_at_the_maximum():
    model = build(WANTS_TO_GO_ON, halt_exploration_prob=1.0)
    assert (halting_steps(model, 50) == 4).all()


@pytest.mark.parametrize("maximum", [2, 3, 8, 16, 17, 100])
def test_largest_draw_still_halts_at_the_maximum(maximum, monkeypatch):
    def largest(seed, tick, row, stream):
        return torch.full(tick.shape, 0.0 if stream == 0 else 1 - 2.0**-24)

    monkeypatch.setattr(act, "uniform_hash", largest)
    model = build(WANTS_TO_HALT, halt_exploration_prob=1.0, halt_max_steps=maximum)
    assert (halting_steps(model, 2) == maximum).all()


def test_exploration_depends_on_the_global_row_only():
    """Micro-batches and ranks, each with its slice of the carry, explore as one batch does."""
    model = build(WANTS_TO_HALT, halt_exploration_prob=0.5, seed=9)
    batches = [make_batch(12) for _ in range(5)]
    carry = model.initial_carry(batches[0])
    slices = [slice(0, 4), slice(4, 5), slice(5, 12)]
    parts = [model.initial_carry(rows_of(batches[0], s), first_row=s.start) for s in slices]
    for batch in batches:
        carry, *_ = step(model, carry, batch)
        parts = [
            step(model, part, rows_of(batch, s))[0] for part, s in zip(parts, slices, strict=True)
        ]
        assert torch.equal(torch.cat([part.halted for part in parts]), carry.halted)
        assert torch.equal(torch.cat([part.steps for part in parts]), carry.steps)
        assert torch.equal(torch.cat([part.row for part in parts]), torch.arange(12))


def test_a_staggered_carry_changes_step_counts_only():
    """Of the first sequence of each row, whatever the cut; what comes after begins at 0."""
    model = build((-1.0, 1.0), halt_max_steps=4)
    batches, rows = [make_batch(12) for _ in range(9)], torch.arange(12)
    plain, whole = model.initial_carry(batches[0]), model.staggered_carry(batches[0])
    slices = [slice(0, 5), slice(5, 12)]
    parts = [model.staggered_carry(rows_of(batches[0], s), first_row=s.start) for s in slices]
    assert torch.equal(whole.steps, (rows % 4).int()) and not whole.halted.any()
    _, _, _, expected, _ = step(model, plain, batches[0])
    for number, batch in enumerate(batches):
        begins = whole.halted
        whole, _, _, outputs, _ = step(model, whole, batch)
        parts = [
            step(model, part, rows_of(batch, s))[0] for part, s in zip(parts, slices, strict=True)
        ]
        if number == 0:
            torch.testing.assert_close(outputs["logits"], expected["logits"])
        assert torch.equal(whole.steps, ((rows + number) % 4 + 1).int())
        assert torch.equal(whole.halted, whole.steps == 4)
        taken = whole.current_data["inputs"][begins]
        assert torch.equal(taken, batch["inputs"][begins])
        for name, tensor in whole.named().items():
            torch.testing.assert_close(torch.cat([p.named()[name] for p in parts]), tensor)


def test_exploration_follows_the_seed_and_nothing_else():
    def history(seed: int) -> torch.Tensor:
        model = build(WANTS_TO_HALT, halt_exploration_prob=0.5, seed=seed)
        torch.rand(int(torch.randint(100, ())))  # the global generator plays no part
        batch = make_batch(64)
        carry, halted = model.initial_carry(batch), []
        for _ in range(4):
            carry, *_ = step(model, carry, batch)
            halted.append(carry.halted)
        return torch.stack(halted)

    assert torch.equal(history(1), history(1))
    assert not torch.equal(history(1), history(2))


def test_no_exploration_in_evaluation():
    batch = make_batch(8)
    explorer = build(halt_exploration_prob=1.0).eval()
    carry = explorer.initial_carry(batch)
    for number in range(1, 5):
        carry, *_ = step(explorer, carry, batch)
        assert carry.halted.all() == (number == 4) and carry.halted.any() == (number == 4)
