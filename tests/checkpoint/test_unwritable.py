"""Disks that are full or read-only: one line says what could not be written."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from hrm.checkpoint import folder, save_checkpoint, save_predictions, training
from hrm.checkpoint.training import Share, write_share
from hrm.data.format import read_metadata
from hrm.errors import UserError
from hrm.files import atomic_write
from hrm.training.config import load_pretrain_config
from tests.conftest import SMALL_MODEL, saved_run

TENSORS = {"steps": torch.ones(2)}


@pytest.fixture(scope="module")
def saved(data_4x4, tmp_path_factory) -> Path:
    return saved_run(data_4x4, tmp_path_factory.mktemp("saved") / "run")


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def unwritable(request, monkeypatch) -> str:
    """No tensors can be written, and nothing deleted; why."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    def refuse_deleting(path: Path, missing_ok: bool = False) -> None:
        """As a read-only file system does, even where there is nothing to delete."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    for module in (folder, training):
        monkeypatch.setattr(module, "save_tensors", refuse)
    monkeypatch.setattr(Path, "unlink", refuse_deleting)
    return os.strerror(request.param)


def test_an_evaluation_prints_its_metrics_though_outputs_cannot_be_saved(saved, call, unwritable):
    keys = ("device=cpu", "compile=false", "eval_save_outputs=[steps]")
    code, out, err = call("evaluate", str(saved), *keys)
    assert json.loads(out)["eval/count"] == 40
    (line,) = err.splitlines()
    assert line.startswith("error: ") and "step_7/predictions.safetensors" in line
    assert code == 2 and "could not be written" in line and unwritable in line


def test_predictions_say_why_they_are_not_saved(tmp_path, unwritable):
    with pytest.raises(UserError, match=rf"predictions.*could not be written.*{unwritable}"):
        save_predictions(tmp_path, TENSORS)


def test_a_share_says_why_it_is_not_saved(tmp_path, unwritable):
    with pytest.raises(UserError, match=rf"training-1.*could not be written.*{unwritable}"):
        write_share(tmp_path, 6, 1, TENSORS)


def test_a_checkpoint_says_why_it_is_not_saved(data_4x4, tmp_path, unwritable):
    config = load_pretrain_config([f"data_path={data_4x4}", "run_name=x", *SMALL_MODEL])
    metadata, share = read_metadata(data_4x4 / "train"), Share(tmp_path / "share", {})
    with pytest.raises(UserError, match=rf"step_6: checkpoint could not.*{unwritable}"):
        save_checkpoint(tmp_path, 6, config, metadata, TENSORS, shares=[share])
    assert not list(tmp_path.iterdir())


def test_a_file_says_why_it_is_not_written(tmp_path, unwritable):
    with pytest.raises(OSError, match="disk is broken"), atomic_write(tmp_path / "file"):
        raise OSError(errno.EIO, "disk is broken")
