"""The vote over the versions of an ARC task."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.ranks import Ranks
from hrm.rollout import RolloutStep
from hrm.tasks.arc import Evaluator
from hrm.tasks.arc.versions import Version
from tests.conftest import ROOT

from .making import (
    Batch,
    Made,
    joined,
    padding,
    plain_result,
    predictions_of,
    puzzles_of,
    ranking,
    take,
    tokens_of,
    versions_of,
    write_files,
)

PUBLIC = ROOT.parent / "shared/data/arc-tiny-public"
CASES = sorted(path.stem for path in (PUBLIC / "eval").glob("*.npz"))
needs_public = pytest.mark.skipif(not CASES, reason="../shared is absent")
MODES = {"separate": False, "aggregated": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("arc") / "data"
    return write_files(folder, puzzles_of(rng), versions_of(rng, 9))


def result(made: Made, *batches: Batch, **options: Any) -> tuple[dict[str, float], dict[str, Any]]:
    evaluator = Evaluator(made.path, **options)
    for batch in batches:
        evaluator.add(batch)
    return evaluator.result()


def passed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in ("ARC/pass@1", "ARC/pass@2")}


def on_ranks(
    run_script, folder: Path, predictions: Path, data: Path, ranks: int, aggregated: bool = False
) -> list[dict[str, Any]]:
    """The outcome of every round."""
    output = folder / "outcome.json"
    arguments = map(str, (predictions, data, output, aggregated))
    worker, env = "tests/tasks/arc/voting_worker.py", {"PYTHONPATH": str(ROOT)}
    done = run_script(worker, *arguments, ranks=ranks, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


def assert_as_expected(outcomes: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(outcomes) == len(expected) > 0
    for outcome, reference in zip(outcomes, expected, strict=True):
        metrics = outcome["metrics"]
        assert {name: metrics[name] for name in reference["metrics"]} == reference["metrics"]
        assert outcome["submission"] == reference["submission"]


# ---- what the original evaluator makes of the same predictions ----


@needs_public
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_it_scores_and_submits_as_the_original(case, mode, tmp_path, run_script):
    expected = json.loads((PUBLIC / f"eval/{case}.json").read_text())
    given_to = PUBLIC / f"eval/{case}.npz", PUBLIC / "built", expected["world_size"]
    outcomes = on_ranks(run_script, tmp_path, *given_to, aggregated=MODES[mode])
    assert_as_expected(outcomes, expected[mode])


@needs_public
@pytest.mark.parametrize("case", [case for case in CASES if case != "ties"])
def test_ranks_change_no_score_where_there_are_no_ties(case, tmp_path, run_script):
    """All rounds by three ranks, each with every third batch; the aggregated outcome is known."""
    expected = json.loads((PUBLIC / f"eval/{case}.json").read_text())
    predictions = dict(np.load(PUBLIC / f"eval/{case}.npz"))
    for key in predictions:
        if key.endswith("/rank"):
            predictions[key] = np.int64(key.split("/")[1]) % 3
    np.savez(tmp_path / "thirds.npz", **predictions)
    given_to = tmp_path / "thirds.npz", PUBLIC / "built", 3
    outcomes = on_ranks(run_script, tmp_path, *given_to, aggregated=True)
    assert_as_expected(outcomes, expected["aggregated"])


# ---- what a plain evaluator makes of made-up predictions ----


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_it_scores_and_submits_as_a_plain_evaluator(made, seed):
    rng = np.random.default_rng(seed)
    batch = predictions_of(made, rng)
    metrics, submission = result(made, batch)
    expected, expected_submission = plain_result(made, [batch])
    assert passed(metrics) == expected
    assert submission == expected_submission


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 54), max_size=6))
def test_batches_and_padding_change_nothing(made, seed, cuts):
    rng = np.random.default_rng(seed)
    batch = predictions_of(made, rng)
    bounds = [0, *sorted(cuts), len(batch["preds"])]
    parts = [
        joined(take(batch, slice(a, b)), padding(int(rng.integers(3))))
        for a, b in zip(bounds, bounds[1:], strict=False)
    ]
    assert result(made, *parts) == result(made, batch)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_the_order_decides_among_equals_alone(made, seed):
    """Counts and means of the answers in their order stay the same, however the rows come."""
    rng = np.random.default_rng(seed)
    batch = predictions_of(made, rng)
    mixed = take(batch, rng.permutation(len(batch["preds"])))
    before, after = ranking(made, [batch]), ranking(made, [mixed])
    submissions = result(made, batch, submission_k=3)[1], result(made, mixed, submission_k=3)[1]
    for (task, asked), answers in before.items():
        again = after[task, asked]
        assert [weight for weight, _ in again] == [weight for weight, _ in answers]
        [place] = [
            n for n, pair in enumerate(made.puzzles[task]["test"]) if asked[1] == _cells(pair)
        ]
        weights = {json.dumps(grid or [[0]]): weight for weight, grid in answers}
        for submission in submissions:
            given_in = [json.dumps(grid) for grid in submission[task][place].values()]
            shown = [weights[grid] for grid in given_in[: len(answers)]]
            assert shown == [weight for weight, _ in answers[:3]]


def _cells(pair: dict[str, Any]) -> bytes:
    return np.array(pair["input"], np.uint8).tobytes()


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_vote_together(made, tmp_path, run_script, ranks):
    """Rank 0's votes come first, then rank 1's, and so on: as one process that is given them so.

    In the second round the last rank has nothing.
    """
    rng = np.random.default_rng(ranks)
    predictions, expected = {}, []
    for number in range(2):
        batch = predictions_of(made, rng)
        owner = rng.integers(ranks - number, size=len(batch["preds"]))
        shares = [take(batch, owner == rank) for rank in range(ranks - number)]
        expected.append(result(made, *shares))
        for place, rank in enumerate(rng.permutation(ranks - number).tolist()):
            for name, values in (shares[rank] | {"rank": np.array(rank)}).items():
                predictions[f"{number}/{place}/{name}"] = values
    np.savez(tmp_path / "made.npz", **predictions)
    outcomes = on_ranks(run_script, tmp_path, tmp_path / "made.npz", made.path, ranks)
    assert [tuple(outcome.values()) for outcome in outcomes] == expected


# ---- the measures, the ties, and what the original does oddly ----


def rows(made: Made, *answers: tuple[str, int, Any, float]) -> Batch:
    """Predictions for a task's test pairs as they stand: (task, pair, grid, q_halt)."""
    tokens = [
        (
            tokens_of(np.array(made.puzzles[task]["test"][pair]["input"], np.uint8)),
            made.names.index(task),
            np.zeros(900, int) if grid == [] else tokens_of(np.array(grid, np.uint8)),
            q_halt,
        )
        for task, pair, grid, q_halt in answers
    ]
    inputs, identifiers, preds, q_halts = zip(*tokens, strict=True)
    return {
        "inputs": np.stack(inputs).astype(np.int32),
        "puzzle_identifiers": np.array(identifiers),
        "preds": np.stack(preds).astype(np.int64),
        "q_halt_logits": np.array(q_halts, np.float32),
    }


def solution(made: Made, task: str, pair: int) -> Any:
    return made.puzzles[task]["test"][pair]["output"]


def test_three_measures(made, capsys):
    """Of tasks with 1, 2 and 3 test pairs, 0, 2 and 1 are solved at the second try or before."""
    asked = [("task0001", 0), ("task0001", 1), ("task0002", 0)]
    right = [(task, pair, solution(made, task, pair), 0.0) for task, pair in asked]
    wrong = [("task0001", 1, [[9] * 9], 1.0)]
    metrics, submission = result(made, rows(made, *right, *wrong), pass_ks=(1, 2))
    assert metrics == {
        "ARC/pass@1": pytest.approx((0 + 1 / 2 + 1 / 3) / 3),
        "ARC/pass@2": pytest.approx((0 + 1 + 1 / 3) / 3),
        "ARC/tasks_solved@1": 0,
        "ARC/tasks_solved@2": pytest.approx(1 / 3),
        "ARC/pairs_solved@1": pytest.approx(2 / 6),
        "ARC/pairs_solved@2": pytest.approx(3 / 6),
    }
    assert capsys.readouterr().err.splitlines() == [
        "note: ARC: 3 of 6 test pairs have no prediction, and count as failed"
    ]
    assert [len(pairs) for pairs in submission.values()] == [1, 2, 3]
    assert submission["task0001"][1]["attempt_1"] == [[9] * 9]
    first = solution(made, "task0002", 0)
    nothing = {"attempt_1": [[0]], "attempt_2": [[0]]}
    assert submission["task0002"] == [{"attempt_1": first, "attempt_2": first}, nothing, nothing]


@pytest.mark.parametrize("later, expected", [(-9.0, 1), (0.5, 1), (0.6, 2)])
def test_count_then_mean_then_first(made, later, expected):
    """[[1]] and [[2]] have two votes each; [[3]] has one, and is the surest."""
    task = ("task0000", 0)
    votes = [([[3]], 9.0), ([[1]], 0.0), ([[2]], later), ([[1]], 0.5), ([[2]], 0.0)]
    submission = result(made, rows(made, *((*task, *vote) for vote in votes)), submission_k=4)[1]
    shown = list(submission["task0000"][0].values())
    assert shown == [[[expected]], [[3 - expected]], [[3]], [[expected]]]


def test_means_do_not_depend_on_the_order_of_votes(made):
    """0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in floating point."""
    q_halts = torch.logit(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)).tolist()
    votes = [([[1]], q) for q in q_halts] + [([[2]], q) for q in reversed(q_halts)]
    for order in (votes, votes[::-1]):
        batch = rows(made, *(("task0000", 0, *vote) for vote in order))
        batch["q_halt_logits"] = np.array([q for _, q in order])
        assert result(made, batch)[1]["task0000"][0]["attempt_1"] == order[0][0]


def test_an_empty_answer_takes_a_place_and_is_submitted_as_one_cell(made):
    right = solution(made, "task0000", 0)
    votes = [([], 0.0)] * 2 + [([[9] * 9], 1.0), (right, 0.0)]
    metrics, submission = result(made, rows(made, *(("task0000", 0, *vote) for vote in votes)))
    assert metrics["ARC/pass@2"] == 0 and metrics["ARC/pass@5"] == pytest.approx(1 / 3)
    assert submission["task0000"] == [{"attempt_1": [[0]], "attempt_2": [[9] * 9]}]


def test_what_is_no_number_is_not_sure(made):
    votes = [([[1]], np.nan), ([[2]], -30.0), ([[3]], -np.inf)]
    batch = rows(made, *(("task0000", 0, *vote) for vote in votes))
    shown = result(made, batch, submission_k=3)[1]["task0000"][0]
    assert list(shown.values()) == [[[2]], [[1]], [[3]]]


def test_pairs_without_a_solution_are_not_scored(made, tmp_path):
    """Whether the solution is missing, or [[0]] as the published builders write it."""
    puzzles = deepcopy(made.puzzles)
    puzzles["task0000"]["test"][0]["output"] = [[0]]
    del puzzles["task0002"]["test"][1]["output"]
    some = write_files(tmp_path / "some", puzzles, [Version()])
    votes = [("task0000", 0, [[0]], 0.0), *((("task0002", n, [[7]], 0.0)) for n in range(3))]
    votes.append(("task0001", 0, solution(made, "task0001", 0), 0.0))
    votes.append(("task0002", 0, solution(made, "task0002", 0), 1.0))
    metrics, submission = result(some, rows(some, *votes), pass_ks=(1,))
    assert metrics == {
        "ARC/pass@1": (1 / 2 + 1 / 2) / 2,
        "ARC/tasks_solved@1": 0,
        "ARC/pairs_solved@1": 2 / 4,
    }
    assert submission["task0000"] == [{"attempt_1": [[0]], "attempt_2": [[0]]}]

    for puzzle in puzzles.values():
        for pair in puzzle["test"]:
            pair["output"] = None
    none = write_files(tmp_path / "none", puzzles, [Version()])
    metrics, submission = result(none, rows(none, *votes))
    assert metrics == {} and submission["task0002"][1]["attempt_1"] == [[7]]


def test_pairs_with_the_same_input_share_their_answers(made, tmp_path):
    puzzles = deepcopy(made.puzzles)
    pairs = puzzles["task0001"]["test"]
    pairs[1]["input"] = pairs[0]["input"]
    pairs[0]["output"], pairs[1]["output"] = [[1]], [[2]]
    twins = write_files(tmp_path, puzzles, [Version()])
    votes = [("task0001", 0, [[1]], 0.0), ("task0001", 1, [[2]], -1.0)]
    metrics, submission = result(twins, rows(twins, *votes))
    assert metrics["ARC/pairs_solved@1"] == 1 / 6 and metrics["ARC/pairs_solved@2"] == 2 / 6
    assert submission["task0001"] == [{"attempt_1": [[1]], "attempt_2": [[2]]}] * 2


def test_votes_are_forgotten_unless_they_add_up(made):
    rng = np.random.default_rng(5)
    first, second = predictions_of(made, rng), predictions_of(made, rng)
    for aggregated, expected in (
        (False, result(made, second)),
        (True, result(made, first, second)),
    ):
        evaluator = Evaluator(made.path, aggregated_voting=aggregated)
        evaluator.add(first)
        assert evaluator.result() == result(made, first)
        evaluator.add(second)
        assert evaluator.result() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_step_of_a_rollout_is_taken_in(made, dtype):
    """The answer is the surest token of each cell; nothing else of the logits is kept."""
    batch = predictions_of(made, np.random.default_rng(6))
    size = len(batch["preds"])
    every, tensors = torch.ones(size, dtype=torch.bool), {n: torch.tensor(batch[n]) for n in batch}
    tensors["q_halt_logits"] = tensors["q_halt_logits"].to(dtype)
    logits = torch.nn.functional.one_hot(tensors["preds"], 12).to(dtype)
    step = RolloutStep(
        index=torch.arange(size),
        running=every,
        halting=every,
        steps=torch.ones(size, dtype=torch.int32),
        data={name: tensors[name] for name in ("inputs", "puzzle_identifiers")},
        outputs={"logits": logits, "q_halt_logits": tensors["q_halt_logits"]},
    )
    evaluator = Evaluator(made.path)
    evaluator.update(step)
    metrics, files = evaluator.reduce(Ranks(0, 1, 0))
    rounded = batch | {"q_halt_logits": tensors["q_halt_logits"].double().numpy()}
    expected = result(made, rounded)
    assert (metrics, json.loads(files["ARC/submission.json"])) == expected


# ---- wrong input ----


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"preds": None}, "preds is missing; give inputs, puzzle_identifiers, preds"),
        ({"preds": np.zeros((2, 81), int)}, r"preds is of shape \[2, 81\], expected B rows"),
        ({"inputs": np.zeros((3, 900), int)}, r"inputs is of shape \[3, 900\]"),
        ({"q_halt_logits": np.zeros((2, 1))}, r"q_halt_logits is of shape \[2, 1\]"),
        (
            {"puzzle_identifiers": np.array([1, 99])},
            "identifiers.json: names 28 identifiers of 100; name the",
        ),
    ],
    ids=str,
)
def test_wrong_predictions_are_refused(made, changes, reason):
    batch = {name: v for name, v in (padding(2) | changes).items() if v is not None}
    with pytest.raises(UserError, match=reason):
        Evaluator(made.path).add(batch)


def test_rows_without_a_name_and_of_no_test_pair_are_left_out(made):
    batch = predictions_of(made, np.random.default_rng(7))
    nameless = batch | {"puzzle_identifiers": np.full(len(batch["preds"]), -1000)}
    elsewhere = batch | {"inputs": np.full_like(batch["inputs"], 2)}
    assert result(made, nameless, batch, elsewhere) == result(made, batch)


GOOD = {"t": {"train": [], "test": [{"input": [[1]], "output": [[2]]}]}}


@pytest.mark.parametrize(
    "text, reason",
    [
        (None, "not found, and ARC's evaluation needs it; build the data set again"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "holds no tasks by name"),
        ("{}", "holds no tasks by name"),
        ('{"t": []}', "task t: has no list of test pairs"),
        ('{"t": {"test": [1]}}', "task t: has no list of test pairs"),
        ('{"t": {"test": [{"output": [[1]]}]}}', "task t, test pair 0, input: not a grid"),
        *(
            (f'{{"t": {{"test": [{{"input": [[1]], "output": {grid}}}]}}}}', "output: not a grid")
            for grid in (
                ("[]", "[[]]", "[1]", "[[1], [1, 2]]", "[[10]]", "[[-1]]", "[[true]]", "[[1.0]]")
                + (str([[1] * 31]), str([[1]] * 31), '"x"')
            )
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_damaged_test_puzzles_are_named(tmp_path, text, reason):
    write_files(tmp_path, GOOD, [Version()])
    file = tmp_path / "test_puzzles.json"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(UserError, match=f"^{file}: .*{reason}"):
        Evaluator(tmp_path)


@pytest.mark.parametrize(
    "text, reason",
    [
        (None, "not found"),
        ("nothing", "cannot be read as JSON"),
        ('{"t": 1}', "is no list of names"),
        ("[1]", "is no list of names"),
        *(
            (f'["<blank>", "t|||{name}"]', r"entry 1, 't\|\|\|.*', is not the name of a version")
            for name in ("t8|||0123456789", "t1", "t1|||0123456788", "1|||0123456789", "t1|||x")
        ),
    ],
)
def test_damaged_identifiers_are_named(tmp_path, text, reason):
    write_files(tmp_path, GOOD, [Version()])
    file = tmp_path / "identifiers.json"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(UserError, match=f"^{file}: .*{reason}"):
        Evaluator(tmp_path)
