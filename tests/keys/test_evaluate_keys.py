"""Every key of `evaluate.py` acts."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from hrm.data.format import read_metadata, write_metadata
from hrm.inference import Solver
from tests.tasks.arc.making import plain_result, predictions_of

from .commands import KEYS, command, done
from .conftest import EAGER, PATIENT
from .registry import Registry
from .spies import compiled_modules, rows_per_pass
from .training import BATCH, PUZZLES, TEST_PUZZLES, VERSIONS, run, saved

acts = Registry()


def evaluated(checkpoint: Path, *keys: str) -> dict[str, Any]:
    return json.loads(done("evaluate", f"checkpoint={checkpoint}", "device=cpu", *keys))


@acts("checkpoint")
def test_the_checkpoint_is_the_one_that_is_named(patient, moody):
    ours, other = evaluated(patient), evaluated(moody)
    assert ours["step"] == other["step"] == 7
    assert ours["eval/q_halt"] == pytest.approx(5) and other["eval/q_halt"] != ours["eval/q_halt"]
    code, _, err = command("evaluate", "checkpoint=nowhere")
    assert code == 2 and "nowhere" in err


@acts("data_path")
def test_the_data_are_the_runs_own_unless_others_are_named(patient, other_data):
    assert evaluated(patient)["eval/count"] == TEST_PUZZLES
    assert evaluated(patient, f"data_path={other_data}")["eval/count"] == 5


@acts("allow_leakage")
def test_rebuilt_data_are_refused_unless_leakage_is_allowed(data, other_data, tmp_path):
    """Their identifiers name no rows of the table, so their puzzles count as unseen."""
    path = shutil.copytree(data, tmp_path / "data")
    path_of_run = run(path, tmp_path / "run", "puzzle_emb_lr=1").path
    own = evaluated(path_of_run, "split=train")
    shutil.rmtree(path)
    shutil.copytree(other_data, path)
    code, out, err = command("evaluate", path_of_run, "device=cpu")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "training split is not the one" in err and "--allow-leakage" in err
    code, out, err = command("evaluate", path_of_run, "device=cpu", "allow_leakage=true")
    assert code == 0 and json.loads(out)["eval/count"] == 5
    assert err.count("note: ") == 2 and "count as unseen (identifier -1)" in err
    unknown = evaluated(path_of_run, "split=train", f"data_path={other_data}")
    assert (own["eval/count"], unknown["eval/count"]) == (PUZZLES * VERSIONS, 16)


@acts("data_path")
def test_identifiers_of_other_data_do_not_index_the_table(data, tmp_path, plain):
    """The same puzzles under other names are answered as puzzles without a name."""
    renamed = shutil.copytree(data, tmp_path / "renamed")
    names = json.loads((renamed / "identifiers.json").read_text())
    (renamed / "identifiers.json").write_text(json.dumps(names[::-1]))
    nameless = shutil.copytree(data, tmp_path / "nameless")
    file = nameless / "train/train__puzzle_identifiers.npy"
    np.save(file, np.full_like(np.load(file), -1))
    write_metadata(nameless / "train", read_metadata(nameless / "train"))
    known, unknown, unnamed = (
        evaluated(plain.path, "split=train", "allow_leakage=true", f"data_path={path}")
        for path in (data, renamed, nameless)
    )
    assert unknown == unnamed != known


@acts("split")
def test_the_split_is_the_one_that_is_named(patient):
    assert evaluated(patient)["eval/count"] == TEST_PUZZLES
    assert evaluated(patient, "split=train")["eval/count"] == PUZZLES * VERSIONS


@acts("halting")
def test_puzzles_halt_as_asked(patient):
    assert evaluated(patient)["eval/steps"] == 4
    assert evaluated(patient, "halting=learned")["eval/steps"] == 1


@acts("halt_probability")
def test_learned_halting_asks_for_a_probability(data, patient, tmp_path):
    """sigmoid(5) is 0.9933; the run's own key is taken where none is given."""
    for probability, steps in ((0.99, 1), (0.999, 4)):
        keys = ("halting=learned", f"halt_probability={probability}")
        assert evaluated(patient, *keys)["eval/steps"] == steps
    careful = saved(data, tmp_path / "careful", EAGER, "eval_halt_probability=0.999")
    assert evaluated(careful, "halting=learned")["eval/steps"] == 4
    assert evaluated(careful, "halting=learned", "halt_probability=0")["eval/steps"] == 1


@acts("steps")
def test_as_many_steps_are_taken_as_asked(patient):
    assert evaluated(patient, "steps=6")["eval/steps"] == 6


def test_learned_halting_takes_as_many_as_the_run_says(data, tmp_path):
    long = saved(data, tmp_path / "long", EAGER, "eval_halt_probability=0.999", "eval_max_steps=7")
    assert evaluated(long)["eval/steps"] == 4
    assert evaluated(long, "halting=learned")["eval/steps"] == 7
    assert evaluated(long, "halting=learned", "steps=2")["eval/steps"] == 2
    [solution] = Solver.from_checkpoint(long, "cpu").solve(["." * 16])
    assert solution.steps == 7


@acts("restarts", "select")
def test_as_many_start_states_are_tried(moody):
    one, several = evaluated(moody), evaluated(moody, "restarts=3", "select=q_halt")
    assert (one["eval/steps"], several["eval/steps"]) == (4, 16)
    assert several["eval/q_halt"] > one["eval/q_halt"]  # the surest of the four
    # Rollouts with next to no noise agree with one another, other start states with nobody.
    most = evaluated(moody, "restarts=3", "select=majority", "noise=1e-5", "rollouts=2")
    assert most["eval/q_halt"] == pytest.approx(one["eval/q_halt"], abs=1e-3)


@acts("guesses")
def test_as_many_guesses_are_made(moody):
    one, more = evaluated(moody), evaluated(moody, "guesses=6")
    assert one["eval/exact_accuracy"] == 0 and (one["eval/steps"], more["eval/steps"]) == (4, 28)


@acts("noise", "rollouts", "seed")
def test_noise_acts_in_as_many_rollouts_as_asked(moody):
    def sure(*keys: str) -> float:
        found = evaluated(moody, "select=q_halt", "rollouts=3", *keys)
        assert found["eval/steps"] == 12
        return found["eval/q_halt"]

    assert sure("noise=0.5") == sure("noise=0.5", "seed=0") > evaluated(moody)["eval/q_halt"]
    assert len({sure("noise=0.5"), sure("noise=0.1"), sure("noise=0.5", "seed=1")}) == 3
    for keys in (("rollouts=3",), ("noise=0.5",)):
        code, _, err = command("evaluate", f"checkpoint={moody}", "device=cpu", *keys)
        assert code == 2 and keys[0] in err and err.count("\n") == 1


@acts("global_batch_size")
def test_as_many_puzzles_run_side_by_side(patient, monkeypatch):
    seen = rows_per_pass(monkeypatch)
    evaluated(patient, "global_batch_size=3")
    assert seen == [3] * 4 * 4
    seen.clear()
    evaluated(patient)
    assert seen == [BATCH] * 4
    monkeypatch.setattr("hrm.device.CPU_STATE", 1)
    seen.clear()
    evaluated(patient)
    assert seen == [1] * 4 * TEST_PUZZLES, "a CPU takes no more than its caches help with"


@acts("weights")
@pytest.mark.parametrize("weights, steps", [("raw", 4), ("ema", 1), ("auto", 1)])
def test_the_weights_are_those_that_are_named(patient, weights, steps):
    """Only the running average of this checkpoint halts before the last step."""
    keys = ("halting=learned", f"weights={weights}")
    assert evaluated(patient, *keys)["eval/steps"] == steps


@acts("weights")
def test_a_running_average_that_is_not_there_is_missed(data, tmp_path):
    run_dir = saved(data, tmp_path / "run", PATIENT)
    code, _, err = command("evaluate", f"checkpoint={run_dir}", "weights=ema", "device=cpu")
    assert code == 2 and "ema=false" in err
    assert evaluated(run_dir)["eval/q_halt"] == pytest.approx(-5)


@acts("eval_save_outputs")
def test_outputs_are_saved_by_name(data, tmp_path):
    run_dir = saved(data, tmp_path / "run", PATIENT)
    predictions = run_dir / "step_7/predictions.safetensors"
    evaluated(run_dir)
    assert not predictions.exists()
    evaluated(run_dir, "eval_save_outputs=[labels,steps]")
    assert load_file(predictions).keys() == {"labels", "steps"}


@acts("predictions", "artefacts_dir")
def test_saved_predictions_vote_instead_of_a_checkpoint(voted, tmp_path):
    batch = predictions_of(voted, np.random.default_rng(0))
    save_file({"predictions": batch.pop("preds"), **batch}, tmp_path / "saved.safetensors")
    saved_ones = f"predictions={tmp_path / 'saved.safetensors'}"
    keys = (saved_ones, f"data_path={voted.path}", f"artefacts_dir={tmp_path / 'out'}")
    metrics = json.loads(done("evaluate", *keys))
    batch["preds"] = load_file(tmp_path / "saved.safetensors")["predictions"].numpy()
    expected, submission = plain_result(voted, [batch])
    assert metrics["eval/ARC/pass@1"] == expected["ARC/pass@1"]
    assert json.loads((tmp_path / "out/ARC/submission.json").read_text()) == submission


@acts("device")
def test_the_device_is_the_one_that_is_named(patient, monkeypatch, no_accelerator):
    for name in ("cuda", "mps"):
        code, _, err = command("evaluate", f"checkpoint={patient}", f"device={name}")
        assert code == 2 and f"device={name}: not available" in err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    done("evaluate", f"checkpoint={patient}", "device=cpu")


@acts("compile")
def test_blocks_are_compiled_where_asked(patient, monkeypatch):
    monkeypatch.setattr("hrm.device.has_compiler", lambda device: True)
    compiled = compiled_modules(monkeypatch)
    for switched_off in ("compile=false", "compile=auto"):  # too little to do
        evaluated(patient, switched_off)
        assert compiled == {}
    evaluated(patient, "compile=true")
    assert len(compiled) == 2 and all(calls >= 8 for calls in compiled.values())


def test_every_key_has_a_test():
    acts.check(KEYS["evaluate"])
