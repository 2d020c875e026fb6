"""The vote as part of evaluation: in training, in `hrm evaluate`, and on saved predictions."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from hrm.data.format import read_metadata, write_metadata
from hrm.models.act import ACT
from hrm.ranks import Ranks
from hrm.tasks import task_of
from hrm.tasks.arc.versions import Version
from hrm.training.config import load_pretrain_config
from hrm.training.loop import train
from tests.conftest import SMALL_MODEL, Call

from .making import (
    Batch,
    Made,
    plain_result,
    predictions_of,
    puzzles_of,
    take,
    versions_of,
    write_data,
)
from .test_evaluator import PUBLIC, needs_public

ALONE = Ranks(0, 1, 0)
SAVED = ("inputs", "puzzle_identifiers", "predictions", "q_halt_logits")
KEYS = (
    *SMALL_MODEL,
    "arch.hidden_size=16",
    "arch.num_heads=2",
    "arch.H_cycles=1",
    "arch.L_cycles=1",
    "arch.halt_max_steps=2",
    "global_batch_size=8",
    "eval_interval=1",
    "checkpoint_path=run",
    f"eval_save_outputs=[{','.join(SAVED)}]",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    rng = np.random.default_rng(0)
    puzzles, versions = puzzles_of(rng, (1, 2, 3, 1, 1, 1, 1, 1)), versions_of(rng, 3)
    return write_data(tmp_path_factory.mktemp("arc") / "data", puzzles, versions)


@pytest.fixture(scope="module")
def run(made, tmp_path_factory) -> Path:
    """The folder of a run that was evaluated at steps 2 and 4."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    keys = (f"data_path={made.path}", *KEYS, "epochs=2", f"checkpoint_path={folder}")
    train(load_pretrain_config(keys), ALONE, torch.device("cpu"))
    return folder


@pytest.fixture
def trained(run, tmp_path, monkeypatch) -> Path:
    """A copy of its last checkpoint."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(run, tmp_path / "run") / "step_4"


def submitted(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / f"evaluator_ARC_{checkpoint.name}/submission.json").read_text())


def saved(checkpoint: Path) -> Batch:
    """What was saved in an evaluation, by the evaluator's names."""
    outputs = load_file(checkpoint / "predictions.safetensors")
    return {name if name != "predictions" else "preds": outputs[name] for name in SAVED}


def votes_of(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith("eval/ARC/")}


def assert_as_saved(
    made: Made,
    checkpoint: Path,
    metrics: dict[str, float],
    ranks: int = 1,
    batch_size: int = 8,
    written: Path | None = None,
) -> None:
    """Metrics and submission are what a plain evaluator makes of the saved predictions."""
    batch = saved(checkpoint)
    rank = np.arange(len(batch["preds"])) % batch_size // (batch_size // ranks)
    expected, submission = plain_result(made, [take(batch, rank == r) for r in range(ranks)])
    for name, value in expected.items():
        assert metrics[f"eval/{name}"] == value
    assert (json.loads(written.read_text()) if written else submitted(checkpoint)) == submission


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_voted_at_every_evaluation(made: Made, run: Path, ranks: int = 1) -> None:
    evaluations = [line for line in lines_of(run) if "eval/count" in line]
    assert [line["step"] for line in evaluations] == [2, 4]
    for line in evaluations:
        assert len(votes_of(line)) == 3 * 6
        assert_as_saved(made, run / f"step_{line['step']}", line, ranks)
    record = json.loads((run / "step_4/training.json").read_text())
    assert record["best_ARC/pass@2"] == evaluations[0]["eval/ARC/pass@2"]


def test_training_votes_at_every_evaluation(made, run):
    assert_voted_at_every_evaluation(made, run)


def test_two_ranks_vote_together_in_training(made, tmp_path, run_script):
    done = run_script("pretrain.py", f"data_path={made.path}", *KEYS, "epochs=2", ranks=2)
    assert done.returncode == 0, done.stderr
    assert_voted_at_every_evaluation(made, tmp_path / "run", 2)
    assert "eval ARC/pass@2 0.0%, exact accuracy" in done.stdout


def evaluated(call: Call, *words: object) -> dict[str, float]:
    """The metrics that `hrm evaluate` prints."""
    code, out, err = call("evaluate", *map(str, words))
    assert code == 0, err
    return json.loads(out)


def test_a_checkpoint_is_evaluated_likewise(made, trained, call):
    at_training, before = lines_of(trained.parent)[-1], submitted(trained)
    (trained / "evaluator_ARC_step_4/submission.json").unlink()
    metrics = evaluated(call, trained, "device=cpu")
    assert votes_of(metrics) == votes_of(at_training) and submitted(trained) == before


def test_answers_of_learned_halting_are_voted_on(made, trained, call, monkeypatch):
    """Puzzles halt in another order than that of the data; files go into a folder of one's own."""
    monkeypatch.setattr(ACT, "wants_to_halt", lambda _, q_halt, __: torch.arange(len(q_halt)) < 3)
    asked = f"eval_save_outputs=[{','.join(SAVED)}]", "artefacts_dir=own"
    before = submitted(trained)
    metrics = evaluated(call, trained, "device=cpu", "halting=learned", *asked)
    assert 1 < metrics["eval/steps"] < 2
    assert_as_saved(made, trained, metrics, written=Path("own/ARC/submission.json"))
    assert submitted(trained) == before


def test_two_ranks_evaluate_together(made, trained, run_script):
    keys = ("device=cpu", "global_batch_size=16", f"eval_save_outputs=[{','.join(SAVED)}]")
    done = run_script("evaluate.py", f"checkpoint={trained}", *keys, ranks=2)
    assert done.returncode == 0, done.stderr
    assert_as_saved(made, trained, json.loads(done.stdout), 2, 16)
    assert f"written: {trained}/evaluator_ARC_step_4/submission.json" in done.stderr


def test_answers_that_count_are_voted_on(made, trained, call):
    """Of several attempts at a puzzle, one is its prediction."""
    asked = (trained, "device=cpu", "restarts=1", "select=q_halt")
    metrics = evaluated(call, *asked, f"eval_save_outputs=[{','.join(SAVED)}]")
    assert_as_saved(made, trained, metrics)


def test_demonstrations_are_not_voted_on(trained, call):
    (trained / "evaluator_ARC_step_4/submission.json").unlink()
    metrics = evaluated(call, trained, "device=cpu", "split=train")
    assert votes_of(metrics) == {} and metrics["eval/count"] > 0
    assert not (trained / "evaluator_ARC_step_4/submission.json").exists()


def test_where_identifiers_mean_nothing_there_is_no_vote(made, trained, tmp_path, call):
    """The model knows none of the versions of another data set."""
    rng = np.random.default_rng(1)
    other = write_data(tmp_path / "other", puzzles_of(rng), versions_of(rng, 2))
    code, out, err = call("evaluate", str(trained), "device=cpu", f"data_path={other.path}")
    assert code == 0 and votes_of(json.loads(out)) == {}
    assert "all of its puzzles count as unseen" in err


def test_a_submission_that_cannot_be_written_costs_no_metrics(trained, call):
    Path("file").write_text("")
    code, out, err = call("evaluate", str(trained), "device=cpu", "artefacts_dir=file/folder")
    assert code == 2 and len(votes_of(json.loads(out))) == 3 * 6
    assert err.splitlines()[-1].startswith("error: file/folder/ARC/submission.json: could not be")


# ---- saved predictions ----


def write_predictions(path: Path, batch: Batch) -> Path:
    names = {name: name for name in SAVED} | {"predictions": "preds"}
    save_file({saved: batch[name] for saved, name in names.items()}, path)
    return path


def test_saved_predictions_vote_without_a_model(made, tmp_path, call, monkeypatch):
    """Those of several files together, whatever the number of rows that are read at a time."""
    monkeypatch.setattr("hrm.cli.evaluate.ROWS", 7)
    rng = np.random.default_rng(2)
    batches = [predictions_of(made, rng) for _ in range(2)]
    files = [write_predictions(tmp_path / f"{n}.safetensors", b) for n, b in enumerate(batches)]
    for count in (1, 2):
        asked = ("--predictions", ",".join(map(str, files[:count])), "--data-path", made.path)
        metrics = evaluated(call, *asked, "--artefacts-dir", tmp_path / str(count))
        expected, submission = plain_result(made, batches[:count])
        assert len(metrics) == 3 * 6 and metrics["eval/ARC/pass@2"] > 0
        assert {name: metrics[f"eval/{name}"] for name in expected} == expected
        written = tmp_path / f"{count}/ARC/submission.json"
        assert json.loads(written.read_text()) == submission


def test_predictions_of_an_evaluation_vote_as_in_it(made, trained, call):
    metrics = evaluated(call, trained, "device=cpu")
    again = evaluated(
        call, f"predictions={trained}/predictions.safetensors", f"data_path={made.path}"
    )
    assert again == votes_of(metrics)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (("data_path=DATA", "halting=learned"), "halting does not go with predictions; leave"),
        (("data_path=DATA", "checkpoint=x"), "checkpoint does not go with predictions"),
        ((), "predictions: name the data set that they are of by data_path"),
        (("data_path=DATA", "split=train"), "predictions: nothing is voted on in"),
        (("data_path=elsewhere",), "elsewhere/test/dataset.json: not found"),
    ],
)
def test_keys_that_do_not_go_with_predictions(made, tmp_path, call, keys, reason):
    file = write_predictions(
        tmp_path / "p.safetensors", predictions_of(made, np.random.default_rng(3))
    )
    words = [key.replace("DATA", str(made.path)) for key in keys]
    code, out, err = call("evaluate", f"predictions={file}", *words)
    assert (code, out) == (2, "") and err.count("\n") == 1 and reason in err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.unlink(), "cannot be read (FileNotFoundError"),
        (
            lambda file: file.write_bytes(file.read_bytes()[:1000]),
            "cannot be read (SafetensorError",
        ),
        (
            lambda file: save_file({"inputs": np.zeros((1, 900))}, file),
            "holds no predictions; evaluate with eval_save_outputs=inputs,puzzle_identifiers,",
        ),
    ],
)
def test_damaged_predictions_are_named(made, tmp_path, call, change, reason):
    file = write_predictions(
        tmp_path / "p.safetensors", predictions_of(made, np.random.default_rng(3))
    )
    change(file)
    code, out, err = call("evaluate", f"predictions={file}", f"data_path={made.path}")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith(f"error: {file}: ") and reason in err


# ---- data that cannot be voted on ----


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("test_puzzles.json", None, 'not found, .* let its dataset.json files say "task": "grids"'),
        ("test_puzzles.json", '{"t": 1}', "task t: has no list of test pairs"),
        ("identifiers.json", '["<blank>"]', "names 1 identifiers of 25; name the data set"),
    ],
)
def test_a_run_does_not_begin_without_what_its_evaluation_needs(
    made, tmp_path, monkeypatch, call, file, text, reason
):
    monkeypatch.chdir(tmp_path)
    data = shutil.copytree(made.path, tmp_path / "data")
    (data / file).unlink() if text is None else (data / file).write_text(text)
    code, _, err = call("train", "data", *KEYS, "epochs=1")
    assert code == 2 and err.count("\n") == 1
    assert re.match(f"error: data/{file}: .*{reason}", err)
    assert not Path("run").exists()


def test_data_that_say_so_are_plain_grids(made, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    data = shutil.copytree(made.path, tmp_path / "data")
    (data / "test_puzzles.json").unlink()
    for split in ("train", "test"):
        metadata = read_metadata(data / split).model_copy(update={"task": "grids"})
        write_metadata(data / split, metadata)
    code, _, err = call("train", "data", *KEYS, "epochs=1")
    assert code == 0, err
    logged = lines_of(Path("run"))
    assert "eval/exact_accuracy" in logged[-1] and votes_of(logged[-1]) == {}
    assert [path.name for path in Path("run/step_2").glob("evaluator*")] == []


def test_without_solutions_there_is_a_submission_and_no_best(made, tmp_path, monkeypatch, call):
    """An evaluation without a score is no worse than others: `early_stop` does not count it."""
    monkeypatch.chdir(tmp_path)
    puzzles = json.loads(json.dumps(made.puzzles))
    for puzzle in puzzles.values():
        for pair in puzzle["test"]:
            pair["output"] = [[0]]
    data = write_data(tmp_path / "data", puzzles, [Version()])
    code, out, err = call("train", str(data.path), *KEYS, "epochs=3", "early_stop=1")
    assert code == 0 and "best" not in out, err
    logged = lines_of(Path("run"))
    assert [line["step"] for line in logged if "eval/count" in line] == [2, 4, 6]
    assert votes_of(logged[-1]) == {}
    assert submitted(tmp_path / "run/step_6").keys() == puzzles.keys()


@needs_public
def test_data_of_the_original_builder(tmp_path, monkeypatch, call):
    """They do not name their task; it is known by its shapes."""
    assert task_of(read_metadata(PUBLIC / "built/test")).name == "arc"
    monkeypatch.chdir(tmp_path)
    code, _, err = call("train", str(PUBLIC / "built"), *KEYS, "epochs=1", "global_batch_size=4")
    assert code == 0, err
    [checkpoint] = [path for path in Path("run").glob("step_*")]
    built = Made(
        PUBLIC / "built",
        json.loads((PUBLIC / "built/test_puzzles.json").read_text()),
        json.loads((PUBLIC / "built/identifiers.json").read_text()),
    )
    logged = lines_of(Path("run"))
    assert_as_saved(built, checkpoint, logged[-1])
