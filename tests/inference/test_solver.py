"""The solver gives what the inner model gives step by step, whatever runs side by side."""

import weakref
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

import hrm
from hrm.checkpoint import load_checkpoint
from hrm.data.format import DatasetMetadata, read_split
from hrm.device import has_fast_bfloat16
from hrm.errors import UserError
from hrm.inference import Solution, Solver
from hrm.models import build_model

from ..conftest import saved_run
from ..watching import on_steps

ARCH = {
    "hidden_size": 32,
    "num_heads": 2,
    "H_layers": 1,
    "L_layers": 1,
    "expansion": 2,
    "H_cycles": 1,
    "L_cycles": 1,
    "halt_max_steps": 4,
    "halt_exploration_prob": 0.0,
    "pos_encodings": "rope",
    "puzzle_emb_ndim": 32,
    "forward_dtype": "float32",
    "seq_len": 16,
    "vocab_size": 5,
}
SOLVED = "1234341221434321"


def metadata(**changes: object) -> DatasetMetadata:
    values = {
        "vocab_size": 5,
        "seq_len": 16,
        "num_puzzle_identifiers": 1,
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": -1,
        "total_groups": 1,
        "mean_puzzle_examples": 1.0,
        "sets": ("test",),
    }
    return DatasetMetadata.model_validate(values | changes)


def make_solver(**changes: object) -> Solver:
    torch.manual_seed(0)
    data = metadata(**changes)
    arch = ARCH | {"num_puzzle_identifiers": data.num_puzzle_identifiers}
    model = build_model(arch, {"loss_type": "softmax_cross_entropy"})
    with torch.no_grad():
        model.model.inner.q_head.weight.normal_()
        model.model.inner.q_head.bias.zero_()
        model.model.inner.puzzle_emb.weights.normal_()
    return Solver(model, data, torch.device("cpu"))


@pytest.fixture(scope="module")
def solver() -> Solver:
    return make_solver()


@pytest.fixture(scope="module")
def puzzles() -> np.ndarray:
    return np.random.default_rng(0).integers(5, size=(7, 16))


@torch.inference_mode()
def by_hand(
    solver: Solver,
    puzzles: np.ndarray,
    identifier: int,
    steps: int = 4,
    start_seed: int | None = None,
) -> tuple[np.ndarray, ...]:
    """Some ACT steps of the inner model: answers [S, N, T], q_halt and q_continue [S, N]."""
    inner = solver.model.model.inner
    inputs = torch.from_numpy(puzzles).int()
    shape = (len(puzzles), ARCH["seq_len"] + 1, ARCH["hidden_size"])
    states = {n: start.expand(shape) for n, start in inner.initial_states(start_seed).items()}
    identifiers = torch.full((len(puzzles),), identifier, dtype=torch.int32)
    prepared = inner.prepare(inputs, inner.look_up(identifiers))
    taken = []
    for _ in range(steps):
        states, logits, q_halt, q_continue = inner.step(states, prepared)
        taken.append((logits.argmax(-1), q_halt, q_continue))
    return tuple(torch.stack(values).numpy() for values in zip(*taken, strict=True))


def assert_traces_equal(solution: Solution, answers: np.ndarray, q_halt: np.ndarray) -> None:
    """A solution's trace is what the inner model gave, [S, T] and [S]."""
    trace = solution.trace
    assert trace is not None
    np.testing.assert_array_equal(trace.tokens, answers)
    np.testing.assert_array_equal(solution.tokens, answers[-1])
    np.testing.assert_array_equal(trace.probabilities.argmax(-1), answers)
    np.testing.assert_allclose(trace.probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(solution.confidence, trace.probabilities[-1].max(-1))
    np.testing.assert_allclose(trace.q_halt, q_halt, atol=1e-5)
    sure = 1 / (1 + np.exp(-q_halt))
    np.testing.assert_allclose(trace.halt_probability, sure, atol=1e-5)
    assert solution.halt_probability == pytest.approx(sure[-1], abs=1e-5)
    assert solution.steps == solution.total_steps == len(answers)


def test_every_step_equals_the_inner_model(solver, puzzles):
    answers, q_halt, q_continue = by_hand(solver, puzzles, identifier=0)
    solutions = solver.solve(puzzles, halting="max_steps", batch_size=3, trace=True)
    assert len(solutions) == 7
    for row, solution in enumerate(solutions):
        np.testing.assert_array_equal(solution.inputs, puzzles[row])
        assert_traces_equal(solution, answers[:, row], q_halt[:, row])
        np.testing.assert_allclose(solution.trace.q_continue, q_continue[:, row], atol=1e-5)
        assert solution.answer == "".join(".1234"[token] for token in answers[-1, row])


def halting_solver(puzzles: np.ndarray) -> Solver:
    """Halts about half of the puzzles at the first step, when asked."""
    solver = make_solver()
    _, q_halt, q_continue = by_hand(solver, puzzles, identifier=0)
    with torch.no_grad():
        solver.model.model.inner.q_head.bias[0] += float(np.median((q_continue - q_halt)[0]))
    return solver


def steps_taken(q_halt: np.ndarray, q_continue: np.ndarray) -> np.ndarray:
    """Of each puzzle until it wants to halt, [N]."""
    wants = q_halt > q_continue
    wants[-1] = True
    return wants.argmax(axis=0) + 1


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_learned_halting_stops_each_puzzle_by_its_own_value(puzzles, steps):
    solver = halting_solver(puzzles)
    answers, q_halt, q_continue = by_hand(solver, puzzles, identifier=0, steps=steps)
    solutions = solver.solve(puzzles, steps=steps, trace=True)
    expected = steps_taken(q_halt, q_continue)
    assert [s.steps for s in solutions] == expected.tolist()
    for row, solution in enumerate(solutions):
        assert_traces_equal(solution, answers[: expected[row], row], q_halt[: expected[row], row])


def test_thinking_goes_on_beyond_the_steps_of_training(solver, puzzles):
    answers, q_halt, _ = by_hand(solver, puzzles, identifier=0, steps=11)
    solutions = solver.solve(puzzles, halting="max_steps", steps=11, trace=True, batch_size=2)
    for row, solution in enumerate(solutions):
        assert_traces_equal(solution, answers[:, row], q_halt[:, row])


def test_other_starts_leave_the_random_generator_as_it_was(solver, puzzles):
    before = torch.get_rng_state()
    solver.solve(puzzles, restarts=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("batch_size", [1, 16, 30, 384])
def test_a_stream_of_puzzles_keeps_their_order_and_their_steps(batch_size, trace):
    puzzles = np.random.default_rng(1).integers(5, size=(90, 16))
    solver = halting_solver(puzzles)
    answers, q_halt, q_continue = by_hand(solver, puzzles, identifier=0)
    expected = steps_taken(q_halt, q_continue)
    assert set(expected) >= {1, 4}
    rows, logits = [], []

    def look(carry, outputs) -> None:
        rows.append(len(carry.halted))
        logits.append(weakref.ref(outputs["logits"]))
        assert sum(reference() is not None for reference in logits) <= 2

    on_steps(solver.model.model, look)
    solutions = solver.solve(puzzles, batch_size=batch_size, trace=trace)
    for row, (solution, taken) in enumerate(zip(solutions, expected, strict=True)):
        np.testing.assert_array_equal(solution.inputs, puzzles[row])
        np.testing.assert_array_equal(solution.tokens, answers[taken - 1, row])
        assert solution.steps == taken
        sure = 1 / (1 + np.exp(-q_halt[taken - 1, row]))
        assert solution.halt_probability == pytest.approx(sure, abs=1e-5)
        if trace:
            assert_traces_equal(solution, answers[:taken, row], q_halt[:taken, row])
        else:
            assert solution.trace is None
    slots = min(batch_size, len(puzzles))
    assert max(rows) == slots
    assert sum(rows) <= expected.sum() + 4 * max(slots // 2, 16)


@pytest.mark.parametrize(
    ("identifiers", "blank", "expected"), [(1, -1, 0), (1, 0, 0), (9, -1, -1), (9, 0, 0)]
)
def test_unseen_puzzles_take_the_shared_identifier_else_the_blank(identifiers, blank, expected):
    solver = make_solver(num_puzzle_identifiers=identifiers, blank_identifier_id=blank)
    assert solver.unseen_identifier == expected


def test_identifiers_reach_the_model(puzzles):
    solver = make_solver(num_puzzle_identifiers=9)
    for identifiers, row in ((None, -1), (np.full(7, 3), 3)):
        _, q_halt, _ = by_hand(solver, puzzles, row)
        solutions = solver.solve(
            puzzles, halting="max_steps", trace=True, puzzle_identifiers=identifiers
        )
        np.testing.assert_allclose([s.trace.q_halt for s in solutions], q_halt.T, atol=1e-5)


def test_a_solver_needs_the_checkpoint_alone(data_4x4, tmp_path):
    folder = saved_run(data_4x4, tmp_path / "run", "arch.forward_dtype=bfloat16")
    puzzles = read_split(data_4x4 / "test")[1]["test"].inputs[:5]
    solver = hrm.Solver.from_checkpoint(folder)
    assert solver.data_path == data_4x4
    fast = has_fast_bfloat16(torch.device("cpu"))
    assert solver.model.model.inner.dtype == (torch.bfloat16 if fast else torch.float32)
    solutions = solver.solve(puzzles, trace=True)
    assert [s.valid for s in solutions] == [False] * 5
    assert "Solution(answer=" in repr(solutions[0]) and len(repr(solutions[0])) < 200
    with pytest.raises(FrozenInstanceError):
        solutions[0].steps = 3


def test_bfloat16_is_not_emulated(data_4x4, tmp_path, monkeypatch):
    folder = saved_run(data_4x4, tmp_path / "run", "arch.forward_dtype=bfloat16")
    monkeypatch.setattr("hrm.inference.solver.has_fast_bfloat16", lambda device: False)
    solver = Solver.from_checkpoint(folder)
    assert solver.model.model.inner.dtype == torch.float32
    for (name, ours), theirs in zip(
        solver.model.state_dict().items(),
        load_checkpoint(folder).model.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(ours, theirs), name


def test_kinds_of_puzzles_are_read_alike(solver):
    text = "1..4\n....\n....\n...1\n"
    flat = [1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    nested = [flat[:4], flat[4:8], flat[8:12], flat[12:]]
    array = np.array(flat, np.uint8)
    solutions = solver.solve([text, flat, nested, array, array.reshape(4, 4), torch.tensor(flat)])
    alone = solver.solve(np.stack([array.reshape(4, 4)]))
    assert {s.answer for s in solutions} == {alone[0].answer}
    assert solver.solve([]) == [] and solver.solve(np.zeros((0, 16), int)) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 15), int), r"shape \[2, 15\], expected integers of shape \[puzzles, 16\]"),
        (np.zeros((1, 16)), "float64"),
        (np.full((1, 16), 5), r"0\.\.4"),
        (np.full((1, 16), -1), r"0\.\.4"),
        ([[[1, 2], [3]]], "puzzle 0: its rows differ in length"),
        ([SOLVED, [1, 2]], r"puzzle 1: int64 of shape \[1, 2\]"),
        ([None], "puzzle 0: object of shape"),
        (["1234"], r"4 characters, expected 16 \(4x4\)"),
        (["12345678........"], "puzzle 0, column 5: character '5' is not one of '.1234'"),
        (SOLVED, "list of puzzles"),
    ],
)
def test_what_does_not_fit_is_refused(solver, inputs, message):
    with pytest.raises(UserError, match=message):
        solver.solve(inputs)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"votes": 0}, {"restarts": -1}, {"batch_size": 0}]
)
def test_numbers_out_of_range_are_refused(solver, options):
    with pytest.raises(UserError, match=f"{next(iter(options))}=.*: must be at least"):
        solver.solve([SOLVED], **options)


def test_identifiers_must_match_the_puzzles(solver):
    with pytest.raises(UserError, match="1 puzzles, but 2 puzzle identifiers"):
        solver.solve([SOLVED], puzzle_identifiers=np.zeros(2, int))
