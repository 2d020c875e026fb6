"""Evaluation of a stream: metrics, outputs and steps are those of a plain loop over puzzles."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hrm
from hrm import evaluation
from hrm.attempts import Plan, plan_attempts
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.format import DatasetMetadata, PuzzleArrays, write_arrays, write_metadata
from hrm.evaluation import EvaluationResult, evaluate
from hrm.inference import Solver
from hrm.ranks import Ranks
from hrm.tasks import Task
from tests.conftest import ROOT
from tests.watching import rows_of_steps

SETS = {"easy": 45, "hard": 21}
ALONE, CPU = Ranks(0, 1, 0), torch.device("cpu")
KEYS = ("inputs", "labels", "puzzle_identifiers", "predictions", "logits", "q_halt_logits", "steps")
MAXIMUM = 6
ARCH = {
    "seq_len": 4,
    "vocab_size": 5,
    "num_puzzle_identifiers": 8,
    "hidden_size": 8,
    "num_heads": 2,
    "expansion": 1,
    "H_layers": 1,
    "L_layers": 1,
    "H_cycles": 1,
    "L_cycles": 1,
    "halt_max_steps": MAXIMUM,
    "halt_exploration_prob": 0.0,
    "pos_encodings": "learned",
    "puzzle_emb_ndim": 8,
    "forward_dtype": "float32",
}


# Batches of other sizes are multiplied by other kernels: 2.2e-5 on an Intel Xeon with AVX-512.
BUT_FOR_ROUNDING = {"rtol": 1e-4, "atol": 1e-4}


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    model = hrm.build_model(ARCH, {"loss_type": "softmax_cross_entropy"}).eval()
    with torch.no_grad():
        model.model.inner.q_head.weight.normal_()
        model.model.inner.q_head.bias.zero_()
        model.model.inner.puzzle_emb.weights.normal_()
    return model


def write_data(folder: Path) -> None:
    """Two sets; the label 0 is ignored, and puzzle 3 of each set has no other."""
    split, rng = folder / "test", np.random.default_rng(0)
    split.mkdir(parents=True)
    for name, puzzles in SETS.items():
        labels = rng.integers(5, size=(puzzles, 4), dtype=np.uint8)
        labels[3] = 0
        arrays = PuzzleArrays(
            inputs=rng.integers(5, size=(puzzles, 4), dtype=np.uint8),
            labels=labels,
            puzzle_identifiers=rng.integers(8, size=puzzles, dtype=np.int32),
            puzzle_indices=np.arange(puzzles + 1, dtype=np.int32),
            group_indices=np.arange(puzzles + 1, dtype=np.int32),
        )
        write_arrays(split, name, arrays)
    metadata = DatasetMetadata(
        vocab_size=5,
        seq_len=4,
        num_puzzle_identifiers=8,
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=-1,
        total_groups=sum(SETS.values()),
        mean_puzzle_examples=1.0,
        sets=tuple(SETS),
    )
    write_metadata(split, metadata)


def open_data(folder: Path, batch_size: int, ranks: Ranks = ALONE) -> PuzzleDataset:
    config = PuzzleDatasetConfig(
        seed=0,
        dataset_path=folder,
        global_batch_size=batch_size,
        test_set_mode=True,
        epochs_per_iter=1,
        rank=ranks.rank,
        num_replicas=ranks.size,
    )
    return PuzzleDataset(config, split="test")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@torch.inference_mode()
def plain(data: Path, halting: str) -> EvaluationResult:
    """One puzzle after another, by calling the model again and again."""
    model, per_set = make_model(), {}
    outputs: dict[str, list[torch.Tensor]] = {key: [] for key in KEYS}
    for set_name, batch, _ in open_data(data, 1):
        carry = model.initial_carry(batch)
        for number in range(1, MAXIMUM + 1):
            carry, out = model.model(carry, batch)
            wants = (out["q_halt_logits"] > out["q_continue_logits"]).item()
            if number == MAXIMUM or (wants and halting == "learned"):
                break
        labels = batch["labels"]
        if (labels >= 0).any():
            values = model.sequence_metrics(out, labels, carry.steps)
            values |= model.sequence_losses(out, labels)
            per_set.setdefault(set_name, []).append({n: v.item() for n, v in values.items()})
        out |= batch | {"predictions": out["logits"].argmax(-1).int(), "steps": carry.steps}
        for key in KEYS:
            outputs[key].append(out[key])

    def mean(values: list[dict[str, float]]) -> dict[str, float]:
        means = {n: float(np.mean([v[n] for v in values])) for n in values[0]}
        return means | {"count": len(values)}

    return EvaluationResult(
        overall=mean([values for of_set in per_set.values() for values in of_set]),
        per_set={name: mean(values) for name, values in per_set.items()},
        outputs={key: torch.cat(parts) for key, parts in outputs.items()},
    )


def assert_same(result: EvaluationResult, expected: EvaluationResult) -> None:
    assert result.overall == pytest.approx(expected.overall, rel=1e-5)
    assert result.per_set.keys() == expected.per_set.keys()
    for name, metrics in result.per_set.items():
        assert metrics == pytest.approx(expected.per_set[name], rel=1e-5)
    for key, rows in result.outputs.items():
        assert rows.dtype == expected.outputs[key].dtype
        torch.testing.assert_close(rows, expected.outputs[key], **BUT_FOR_ROUNDING)


@pytest.mark.parametrize("batch_size", [1, 4, 16, 45, 64])
@pytest.mark.parametrize("halting", ["max_steps", "learned"])
def test_a_stream_equals_one_puzzle_after_another(data, halting, batch_size):
    expected = plain(data, halting)
    assert expected.per_set["easy"]["count"] == SETS["easy"] - 1  # one is without labels
    assert len(set(expected.outputs["steps"].tolist())) == (1 if halting == "max_steps" else 6)
    model = make_model()
    result = evaluate(model, open_data(data, batch_size), CPU, ALONE, halting, KEYS)
    assert_same(result, expected)


class ThirdsAreValid(Task):
    """Its answers are valid where the tokens' sum is a multiple of three."""

    judges = True

    def are_valid(self, answers: np.ndarray, inputs: np.ndarray) -> list[bool | None]:
        return (answers.sum(axis=1) % 3 == 0).tolist()


class OnlyTheFirstCount(ThirdsAreValid):
    """Its last cell means nothing."""

    def tidied(self, answers: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        return np.where(np.arange(4) == 3, 0, answers).astype(answers.dtype)


def plan_of(select: str) -> Plan:
    task = ThirdsAreValid(DatasetMetadata.model_construct(vocab_size=5, seq_len=4))
    return plan_attempts(task, restarts=1, noise=0.7, rollouts=6, select=select, seed=3)  # type: ignore[arg-type]


@pytest.fixture
def judged(monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "task_of", ThirdsAreValid)


def solved(
    data: Path, halting: str, select: str, steps: int, kind: type[Task] = ThirdsAreValid
) -> EvaluationResult:
    """What the solver answers, as an evaluation."""
    model, tries = make_model(), {"restarts": 1, "noise": 0.7, "rollouts": 6, "seed": 3}
    dataset = open_data(data, 1)
    solver = Solver(model, dataset.metadata, CPU)
    solver.task = kind(dataset.metadata)
    rows = [{name: values[0] for name, values in batch.items()} for _, batch, _ in dataset]
    inputs, labels, names = (
        np.stack([row[name].numpy() for row in rows])
        for name in ("inputs", "labels", "puzzle_identifiers")
    )
    given = {"halting": halting, "select": select, "steps": steps, "puzzle_identifiers": names}
    solutions = solver.solve(inputs, **given, **tries)
    tokens = np.stack([solution.tokens for solution in solutions])
    costs = np.array([solution.total_steps for solution in solutions])
    known = (labels >= 0).any(1)
    right = ((tokens == labels) | (labels < 0)).all(1)
    logits = [np.log(s.halt_probability / (1 - s.halt_probability)) for s in solutions]
    overall = {
        "exact_accuracy": float(right[known].mean()),
        "q_halt": float(np.mean(np.array(logits)[known])),
        "steps": float(costs[known].mean()),
        "count": known.sum(),
    }
    outputs = {"predictions": torch.from_numpy(tokens), "steps": torch.from_numpy(costs).int()}
    return EvaluationResult(overall, {}, outputs)


def assert_like_solver(result: EvaluationResult, expected: EvaluationResult) -> None:
    for name, value in expected.overall.items():
        assert result.overall[name] == pytest.approx(value, rel=1e-4), name
    for name, values in expected.outputs.items():
        assert torch.equal(result.outputs[name], values), name


@pytest.mark.parametrize(
    ("select", "halting", "batch_size"),
    [
        ("valid", "learned", 5),
        ("valid", "max_steps", 64),
        ("q_halt", "learned", 64),
        ("majority", "learned", 5),
    ],
)
def test_answers_that_count_are_those_of_the_solver(data, judged, select, halting, batch_size):
    expected = solved(data, halting, select, steps=9)
    assert len(expected.outputs["steps"].unique()) > (select == "valid" or halting == "learned")
    more = {"max_steps": 9, "plan": plan_of(select)}
    keys = ("predictions", "steps")
    model = make_model()
    result = evaluate(model, open_data(data, batch_size), CPU, ALONE, halting, keys, **more)
    assert_like_solver(result, expected)
    assert {"lm_loss", "accuracy", "q_halt_loss"} <= result.overall.keys()


@pytest.mark.parametrize("select", ["valid", "majority"])
def test_answers_are_judged_and_compared_as_tidied(data, monkeypatch, select):
    monkeypatch.setattr(evaluation, "task_of", OnlyTheFirstCount)
    expected = solved(data, "learned", select, 9, OnlyTheFirstCount)
    more = {"max_steps": 9, "plan": plan_of(select)}
    keys = ("predictions", "steps")
    result = evaluate(make_model(), open_data(data, 64), CPU, ALONE, "learned", keys, **more)
    found, outputs = result.outputs, expected.outputs
    assert torch.equal(found["steps"], outputs["steps"])
    assert torch.equal(found["predictions"][:, :3], outputs["predictions"][:, :3])
    assert not outputs["predictions"][:, 3].any() and found["predictions"][:, 3].any()
    assert result.overall["q_halt"] == pytest.approx(expected.overall["q_halt"], rel=1e-4)


def test_more_steps_than_in_training(data):
    result = evaluate(make_model(), open_data(data, 64), CPU, ALONE, max_steps=9)
    assert result.overall["steps"] == 9
    longer = hrm.build_model(ARCH | {"halt_max_steps": 9}, {"loss_type": "softmax_cross_entropy"})
    longer.load_state_dict(make_model().state_dict())
    expected = evaluate(longer, open_data(data, 64), CPU, ALONE)
    assert result.overall == expected.overall


@pytest.mark.parametrize(
    "halting, compiled, batch_size, rows",
    [
        ("learned", False, 32, 45 + 21),
        ("learned", False, 128, 45 + 21),
        ("max_steps", False, 32, (32 + 16) + 32),
        ("max_steps", False, 128, 64 + 32),
        ("max_steps", False, 3000, 46 + 23),
        ("max_steps", True, 32, (32 + 32) + 32),
        ("max_steps", True, 3000, 46 + 23),
    ],
)
def test_little_padding_is_computed_on(data, monkeypatch, halting, compiled, batch_size, rows):
    monkeypatch.setattr(evaluation, "is_compiled", lambda model: compiled)
    model = make_model()
    with torch.no_grad():
        model.model.inner.q_head.bias.copy_(torch.tensor([100.0, -100.0]))
    computed = rows_of_steps(model.model)
    result = evaluate(model, open_data(data, batch_size), CPU, ALONE, halting)
    assert sum(computed) == rows * (MAXIMUM if halting == "max_steps" else 1)
    assert result.overall["count"] == sum(SETS.values()) - 2


@pytest.mark.parametrize("halting", ["max_steps", "learned"])
def test_it_ends_when_told_and_leaves_the_model_as_it_was(data, halting):
    model, answers = make_model().train(), iter([False, False, True])
    result = evaluate(
        model, open_data(data, 16), CPU, ALONE, halting, must_stop=lambda: next(answers)
    )
    assert result is None and model.training and next(answers, None) is None


def test_two_ranks(data, tmp_path, run_script):
    """Batches of 64 leave rank 1 little in the first set and nothing but padding in the second."""
    output, batch_sizes = tmp_path / "outcome.pt", (8, 32, 64)
    result = run_script(
        "tests/evaluation_worker.py",
        *map(str, (data, output, *batch_sizes)),
        ranks=2,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    outcomes = torch.load(output, weights_only=True)
    assert list(outcomes) == list(batch_sizes)
    expected = {halting: solved(data, halting, "valid", 9) for halting in ("max_steps", "learned")}
    for outcome in outcomes.values():
        for halting in ("max_steps", "learned"):
            assert_same(EvaluationResult(**outcome[halting]["result"]), plain(data, halting))
            steps = outcome[halting]["act_steps"]  # of each rank
            assert (steps[0] == steps[1]) == (halting == "max_steps"), steps
            assert outcome[halting]["asked_until_stop"] == [2, 2]
            tried = EvaluationResult(**outcome[halting]["tried"])
            assert_like_solver(tried, expected[halting])
