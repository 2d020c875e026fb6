"""What is said where there is no checkpoint sends people the right way."""

import os
from pathlib import Path

import pytest

from hrm.checkpoint import find_checkpoint
from hrm.errors import UserError
from hrm.records import read_records

from ..conftest import saved_run


@pytest.fixture(scope="module")
def run_dir(data_4x4, tmp_path_factory) -> Path:
    folder = saved_run(data_4x4, tmp_path_factory.mktemp("layout") / "project" / "run")
    (folder / "metrics.jsonl").write_text('{"step": 7}\n')
    return folder


def said(path: Path) -> str:
    with pytest.raises(UserError) as error:
        find_checkpoint(path)
    return str(error.value)


def test_a_run_or_a_checkpoint_is_found(run_dir):
    assert find_checkpoint(run_dir) == find_checkpoint(run_dir / "step_7") == run_dir / "step_7"


@pytest.mark.parametrize("name", ["model.safetensors", "dataset.json", "manifest.json"])
def test_a_file_of_a_checkpoint_names_its_folder(run_dir, name):
    checkpoint = run_dir / "step_7"
    assert f"is a file; name its folder, {checkpoint}" in said(checkpoint / name)


@pytest.mark.parametrize("name", ["run.zip", "run.tar.gz", "RUN.TGZ"])
def test_an_archive_is_to_be_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"packed")
    assert "is an archive; unpack it and name the folder of a run" in said(tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match="not found"):
        find_checkpoint(tmp_path / name)


def test_folders_without_checkpoints(run_dir, data_4x4, tmp_path):
    assert f"it holds runs; name one of them, such as {run_dir}" in said(run_dir.parent)
    assert "this is a data set; name the folder of a run" in said(data_4x4)
    (tmp_path / "all_config.yaml").write_text("lr: 1\n")
    assert "this run has no checkpoint yet" in said(tmp_path)


@pytest.mark.parametrize("path", ["/dev/null", "x" * 300])
def test_what_cannot_be_looked_at_is_told(path):
    assert f"checkpoint={path}: cannot be read (" in said(Path(path))


def test_another_working_directory_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"checkpoint=checkpoints/x: not found in {tmp_path}; " in said(Path("checkpoints/x"))


def test_metrics_are_those_of_a_run(run_dir, tmp_path):
    for path, words in (
        (run_dir / "step_7", f"name the folder of a run, here {run_dir}"),
        (run_dir / "metrics.jsonl", f"is a file; name the folder of a run, here {run_dir}"),
        (tmp_path, "not found; name the folder of a run"),
    ):
        with pytest.raises(UserError) as error:
            read_records(path / "metrics.jsonl")
        assert words in str(error.value)


def test_what_a_failed_write_left_is_in_nobodys_way(data_4x4, tmp_path):
    (tmp_path / "run" / f".step_7-{os.getpid()}").mkdir(parents=True)
    folder = saved_run(data_4x4, tmp_path / "run")
    assert [path.name for path in folder.iterdir()] == ["step_7"]
