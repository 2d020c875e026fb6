"""Exported models: what others need, in one folder that is whole or not there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hrm.checkpoint import export_checkpoint, find_checkpoint, load_checkpoint
from hrm.checkpoint.manifest import Damaged, verify, write_manifest
from hrm.data.format import fingerprint, read_metadata
from hrm.data.split import Split
from hrm.errors import UserError
from hrm.inference import Solver
from hrm.tasks import task_of
from hrm.tasks.examples import choose_examples

from ..conftest import saved_run

PUZZLES = ["1" + "." * 15, "." * 14 + "2."]


@pytest.fixture
def run(data_4x4, tmp_path):
    return saved_run(data_4x4, tmp_path / "run")


def exported(run, tmp_path, *more):
    return export_checkpoint(load_checkpoint(run), tmp_path / "mine", *more)


def test_it_computes_what_the_checkpoint_does(run, tmp_path):
    folder = exported(run, tmp_path)
    theirs, ours = (Solver.from_checkpoint(path, "cpu").solve(PUZZLES) for path in (folder, run))
    for a, b in zip(theirs, ours, strict=True):
        assert (a.answer, a.steps, a.halt_probability) == (b.answer, b.steps, b.halt_probability)
    assert not any(path.name.startswith(("training.s", "source")) for path in folder.iterdir())
    verify(folder)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_stored_in_the_dtype_that_is_named(run, tmp_path, dtype):
    folder = exported(run, tmp_path, dtype)
    stored = load_file(folder / "model.safetensors")
    assert {str(t.dtype) for t in stored.values()} == {f"torch.{dtype}"}
    source, model = load_checkpoint(run).model, load_checkpoint(folder).model
    for name, tensor in source.state_dict().items():
        loaded = model.state_dict()[name]
        assert loaded.dtype == tensor.dtype
        assert torch.equal(loaded, tensor.to(stored[name].dtype).to(tensor.dtype))


def test_it_knows_the_data_of_training(run, tmp_path):
    step = find_checkpoint(run)
    record = {"step": 7, "data": "d" * 64, "identifiers": "e" * 64}
    (step / "training.json").write_text(json.dumps(record))
    (step / "manifest.json").unlink()
    write_manifest(step)
    origin = load_checkpoint(exported(run, tmp_path)).origin
    assert (origin.data, origin.identifiers) == ("d" * 64, "e" * 64)


def test_it_does_not_say_where_data_lie_on_this_machine(run, tmp_path, data_4x4):
    folder = exported(run, tmp_path)
    written = "".join(p.read_text() for p in folder.iterdir() if p.suffix != ".safetensors")
    assert data_4x4.is_absolute() and str(data_4x4.parent) not in written
    assert load_checkpoint(folder).config.data_path.name == data_4x4.name


def test_the_card_says_what_the_model_is(run, tmp_path):
    line = {"step": 7, "eval/exact_accuracy": 0.25, "eval/steps": 4.0}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert "| exact_accuracy | 0.25 |" in (exported(run, tmp_path) / "README.md").read_text()
    (run / "metrics.jsonl").write_text('{"step": 7, "train/accuracy": 0.5}\n')
    assert "Last evaluation" not in (exported(run, tmp_path) / "README.md").read_text()
    card = (
        exported(run, tmp_path, "float32", "Solves all.\n\n## Mine\n\nas I like it") / "README.md"
    ).read_text()
    weights = sum(p.numel() for p in load_checkpoint(run).model.parameters())
    assert card.startswith("---\nlicense: apache-2.0\n") and "\n# mine\n" in card
    assert f"{weights:,} weights for sudoku 4x4, which thinks in loops. Solves all.\n" in card
    assert "7 steps of 384 puzzles" in card and "exact_accuracy" not in card
    assert card.endswith("## Mine\n\nas I like it\n")


def test_examples_go_with_it_from_easy_to_hard(run, tmp_path, data_4x4, call, monkeypatch):
    code, out, err = call("export", str(run), "--output-dir", str(tmp_path / "mine"))
    assert (code, err) == (0, "")
    own, source = Split.open(tmp_path / "mine/test"), Split.open(data_4x4 / "test")
    numbers = choose_examples(source, 12)
    assert len(set(numbers)) == len(own) == 12
    for place, number in enumerate(numbers):
        assert np.array_equal(own.example(place).inputs, source.example(number).inputs)
        assert np.array_equal(own.example(place).labels, source.example(number).labels)
        assert own.example(place).identifier == source.example(number).identifier
    hardness = task_of(own.metadata).difficulty(np.stack([own.row(n).inputs for n in range(12)]))
    assert sorted(hardness.values) == hardness.values.tolist()
    assert not list((tmp_path / "mine").glob(".*"))
    verify(tmp_path / "mine")
    size = sum(p.stat().st_size for p in (tmp_path / "mine").rglob("*") if p.is_file())
    assert f"{size / 1e6:.2f} MB" in out

    monkeypatch.chdir(tmp_path)
    assert call("export", "mine", "--output-dir", "again")[0] == 0
    assert fingerprint(Path("again/test"), read_metadata(Path("again/test"))) == (
        fingerprint(Path("mine/test"), read_metadata(Path("mine/test")))
    )
    code, out, err = call("solve", "mine", "--index", "11", "--format", "line")
    assert code == 1 and len(out.strip()) == 16 and "mine/test" not in err
    code, _, err = call("solve", "mine", "--index", "12")
    assert code == 2 and "has 12 puzzles" in err


def test_test_puzzles_of_other_data_do_not_go_with_it(run, tmp_path, call):
    step = find_checkpoint(run)
    (step / "training.json").write_text(json.dumps({"step": 7, "data": "d" * 64}))
    (step / "manifest.json").unlink()
    write_manifest(step)
    code, _, err = call("export", str(run), "--output-dir", str(tmp_path / "mine"))
    assert code == 0 and "so no examples go with it" in err
    assert not (tmp_path / "mine/test").exists()


def test_it_replaces_an_exported_model_and_nothing_else(run, tmp_path):
    folder = exported(run, tmp_path)
    before = (folder / "model.safetensors").stat().st_size
    assert (exported(run, tmp_path, "float16") / "model.safetensors").stat().st_size < before
    shutil.rmtree(folder)
    folder.mkdir()
    exported(run, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    for target in (tmp_path / "other", run):
        with pytest.raises(UserError, match="is no exported model"):
            export_checkpoint(load_checkpoint(run), target)
    for name in "tokenizer.json", ".git":
        (folder / name).touch()
        with pytest.raises(UserError, match=f"{name} in it would be lost"):
            exported(run, tmp_path)
        (folder / name).unlink()
    exported(run, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "other", "run"]


def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hrm.checkpoint.export.save_tensors", full)
    with pytest.raises(UserError, match="mine: could not be written .*No space left"):
        exported(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_one_is_refused(run, tmp_path):
    folder = exported(run, tmp_path)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(Damaged, match="checksum differs"):
        load_checkpoint(folder)


def test_it_cannot_be_resumed(run, tmp_path, data_4x4, call):
    folder = exported(run, tmp_path)
    code, _, err = call("train", str(data_4x4), f"resume={folder}", "arch=quickstart")
    assert code == 2 and "training.safetensors is missing" in err
