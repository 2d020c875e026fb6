"""The solver gives what a rollout by hand gives; puzzles are read and judged rightly."""

import weakref

import numpy as np
import pytest
import torch

from hrm.data.format import DatasetMetadata
from hrm.errors import UserError
from hrm.inference import Solver
from hrm.inference.solver import contradiction, is_valid_sudoku, parse_puzzle
from hrm.models import build_model
from hrm.viz import GridLook

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
def by_hand(solver: Solver, puzzles: np.ndarray, identifier: int) -> tuple[np.ndarray, ...]:
    """Four ACT steps of the inner model: answers [S, N, T], q_halt and q_continue [S, N]."""
    inner = solver.model.model.inner
    inputs = torch.from_numpy(puzzles).int()
    shape = (len(puzzles), ARCH["seq_len"] + 1, ARCH["hidden_size"])
    z_H, z_L = inner.H_init.expand(shape), inner.L_init.expand(shape)
    puzzle = inner.puzzle_emb(torch.full((len(puzzles),), identifier, dtype=torch.int32))
    e, weights, steps = inner.embed(inputs, puzzle), inner.cast_weights(), []
    for _ in range(4):
        z_H, z_L, logits, q_halt, q_continue = inner(z_H, z_L, e, weights)
        steps.append((logits.argmax(-1), q_halt, q_continue))
    return tuple(torch.stack(values).numpy() for values in zip(*steps, strict=True))


def test_every_step_equals_the_inner_model(solver, puzzles):
    answers, q_halt, q_continue = by_hand(solver, puzzles, identifier=0)
    solutions = solver.solve(puzzles, batch_size=3)
    assert len(solutions) == 7
    for row, solution in enumerate(solutions):
        np.testing.assert_array_equal(solution.inputs, puzzles[row])
        np.testing.assert_array_equal(solution.steps, answers[:, row])
        np.testing.assert_array_equal(solution.tokens, answers[-1, row])
        np.testing.assert_allclose(solution.q_halt, q_halt[:, row], atol=1e-5)
        np.testing.assert_allclose(solution.q_continue, q_continue[:, row], atol=1e-5)
        confidence = 1 / (1 + np.exp(-q_halt[:, row]))
        np.testing.assert_allclose(solution.halt_confidence, confidence, atol=1e-5)


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


def test_learned_halting_stops_each_puzzle_by_its_own_value(puzzles):
    solver = halting_solver(puzzles)
    answers, q_halt, q_continue = by_hand(solver, puzzles, identifier=0)
    solutions = solver.solve(puzzles, halting="learned")
    expected = steps_taken(q_halt, q_continue)
    assert [s.halted_at for s in solutions] == expected.tolist()
    assert len(set(expected)) > 1
    for row, solution in enumerate(solutions):
        np.testing.assert_array_equal(solution.steps, answers[: expected[row], row])


@pytest.mark.parametrize("batch_size", [1, 16, 30, 384])
def test_a_stream_of_puzzles_keeps_their_order_and_their_steps(batch_size):
    puzzles = np.random.default_rng(1).integers(5, size=(90, 16))
    solver = halting_solver(puzzles)
    answers, q_halt, q_continue = by_hand(solver, puzzles, identifier=0)
    expected = steps_taken(q_halt, q_continue)
    assert set(expected) >= {1, 4}
    rows, logits = [], []

    def note(_module, _arguments, result) -> None:
        rows.append(len(result[0].halted))
        logits.append(weakref.ref(result[1]["logits"]))
        assert sum(reference() is not None for reference in logits) <= 2

    solver.model.model.register_forward_hook(note)
    solutions = solver.solve(puzzles, halting="learned", batch_size=batch_size)
    for row, (solution, taken) in enumerate(zip(solutions, expected, strict=True)):
        np.testing.assert_array_equal(solution.inputs, puzzles[row])
        np.testing.assert_array_equal(solution.steps, answers[:taken, row])
        np.testing.assert_allclose(solution.q_halt, q_halt[:taken, row], atol=1e-5)
        np.testing.assert_allclose(solution.q_continue, q_continue[:taken, row], atol=1e-5)
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
        solutions = solver.solve(puzzles, puzzle_identifiers=identifiers)
        np.testing.assert_allclose([s.q_halt for s in solutions], q_halt.T, atol=1e-5)


def test_strings_are_read_like_tokens(solver):
    [from_text] = solver.solve(["1..4\n....\n....\n...1\n"])
    tokens = np.array([[1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]])
    [from_tokens] = solver.solve(tokens)
    np.testing.assert_array_equal(from_text.steps, from_tokens.steps)
    assert solver.solve([]) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 15), int), r"shape \[2, 15\], expected integers of shape \[puzzles, 16\]"),
        (np.zeros((1, 16)), "float64"),
        (np.full((1, 16), 5), r"0\.\.4"),
        (np.full((1, 16), -1), r"0\.\.4"),
        (["1234"], r"4 characters, expected 16 \(4x4\)"),
        (["12345678........"], "character '5' is not one of '.1234'"),
        (SOLVED, "list of puzzles"),
    ],
)
def test_what_does_not_fit_is_refused(solver, inputs, message):
    with pytest.raises(UserError, match=message):
        solver.solve(inputs)


def test_identifiers_must_match_the_puzzles(solver):
    with pytest.raises(UserError, match="1 puzzles, but 2 puzzle identifiers"):
        solver.solve([SOLVED], puzzle_identifiers=np.zeros(2, int))


def test_blanks_of_a_sudoku_may_be_dots_zeros_or_underscores():
    for data, blank in ((metadata(), 0), (metadata(vocab_size=6, blank_identifier_id=0), 1)):
        parsed = parse_puzzle("1.0_" * 4, data)
        np.testing.assert_array_equal(parsed, [1 + blank, blank, blank, blank] * 4)


def test_mazes_are_read_by_their_characters():
    parsed = parse_puzzle("# SGo#", metadata(vocab_size=6, seq_len=6))
    np.testing.assert_array_equal(parsed, [1, 2, 3, 4, 5, 1])


@pytest.mark.parametrize("symbols", [".1234", "_.1234"])
def test_validity_needs_the_rules_and_the_givens(symbols):
    look = GridLook((4, 4), (2, 2), symbols)
    answer = np.array([symbols.index(c) for c in SOLVED])
    blank = np.full(16, symbols.index("."))
    given = blank.copy()
    given[0] = symbols.index("2")
    assert is_valid_sudoku(answer, blank, look)
    assert not is_valid_sudoku(answer, given, look)
    assert not is_valid_sudoku(np.full(16, answer[0]), blank, look)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SOLVED, None),
        ("." * 16, None),
        ("1..1" + "." * 12, "1 is given 2 times in row 1"),
        ("..3.......3....." + "", "3 is given 2 times in column 3"),
        ("." * 10 + "4....4", "4 is given 2 times in box 4"),
    ],
)
def test_contradicting_givens_are_named(text, expected):
    look = GridLook((4, 4), (2, 2), ".1234")
    assert contradiction(parse_puzzle(text, metadata()), look) == expected
