"""Weights & Biases: a run that is resumed goes on under its id there, without a step twice."""

import sys
from types import SimpleNamespace

import pytest

from tests.keys.training import run


@pytest.fixture
def wandb(monkeypatch):
    """Stands in for the package: notes how each run was begun, its steps, and its end."""
    begun, steps, ended = [], [], []

    def init(**more):
        begun.append(more)
        steps.append([])
        return SimpleNamespace(
            id=more.get("id", "fresh"),
            log_code=lambda folder: None,
            log=lambda metrics, step: steps[-1].append(step),
            finish=lambda: ended.append(len(begun)),
        )

    package = SimpleNamespace(
        init=init, Settings=lambda **_: None, begun=begun, steps=steps, ended=ended, __spec__=True
    )
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


def test_a_resumed_run_goes_on_under_its_id(data_4x4, tmp_path, wandb):
    keys = ("logger=wandb", "run_name=mine", "global_batch_size=32", "eval_interval=1")
    run(data_4x4, tmp_path / "run", *keys, "epochs=1")
    first = run(data_4x4, tmp_path / "run", *keys, "epochs=2", "resume=auto")
    assert [(b.get("id"), b.get("resume")) for b in wandb.begun] == [
        (None, None),
        ("fresh", "allow"),
    ]
    logged = [sorted(set(steps)) for steps in wandb.steps]
    assert logged[0] and logged[1] and logged[0] + logged[1] == first.steps
    assert wandb.ended == [1, 2]


def test_another_run_begins_anew(data_4x4, tmp_path, wandb):
    keys = ("logger=wandb", "global_batch_size=32", "epochs=1")
    run(data_4x4, tmp_path / "one", *keys, "run_name=one")
    run(data_4x4, tmp_path / "two", *keys, "run_name=two")
    assert ["id" in b for b in wandb.begun] == [False, False]
    assert [b["name"] for b in wandb.begun] == ["one", "two"]
