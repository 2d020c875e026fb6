"""What is said where there is no data set sends people the right way."""

import shutil
from pathlib import Path

import pytest

from hrm.data.format import read_metadata
from hrm.data.missing import training_data
from hrm.errors import UserError


def said(data_path: Path, split: str = "test") -> str:
    with pytest.raises(UserError) as error:
        read_metadata(data_path / split)
    return str(error.value)


def test_one_level_too_deep_or_too_high(data_4x4):
    assert "is one split of a data set; name the folder above it" in said(data_4x4 / "test")
    assert f"holds data sets; name one of them, such as {data_4x4}" in said(data_4x4.parent)


def test_a_split_that_is_not_there(data_4x4):
    assert "no split 'valid', only test, train" in said(data_4x4, "valid")


@pytest.mark.parametrize("name", ["d.zip", "d.tar.gz", "d.tgz", "D.ZIP", "d.7z"])
def test_an_archive_is_to_be_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"packed")
    assert f"{name} is an archive; unpack it and name the folder" in said(tmp_path / name)


def test_a_file_is_no_folder(data_4x4):
    file = data_4x4 / "test" / "dataset.json"
    assert "dataset.json is a file; name the folder of a data set" in said(file)


def test_csv_files_are_to_be_built(tmp_path):
    (tmp_path / "train.csv").write_text("source,question,answer,rating\n")
    assert f"--source-dir {tmp_path}" in said(tmp_path)


def test_another_working_directory_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"there is no data/x in {tmp_path}; build a data set, e.g. " in said(Path("data/x"))
    with pytest.raises(UserError, match=f"data_path=data/x: .* in {tmp_path}; .*--data-path"):
        training_data(Path("data/x"), "--data-path")
    (tmp_path / "data/x").mkdir(parents=True)
    assert training_data(Path("data/x"), "--data") == Path("data/x")


def test_the_way_out_can_be_pasted(tmp_path):
    empty = tmp_path / "my data"
    empty.mkdir()
    assert said(empty).endswith(f"--output-dir '{empty}'")
    shutil.rmtree(empty)
    assert said(empty).endswith(f"--output-dir '{empty}'")
