"""`hrm check` reads the data set that it is given, and finds what is wrong with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hrm.data import format as data_format
from hrm.data.format import array_path

from .commands import KEYS, command, done
from .registry import Registry

acts = Registry()


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data, tmp_path / "copy")


@acts("folder")
def test_what_a_data_set_holds_is_told(data: Path, other_data: Path) -> None:
    assert "16 groups" in done("check", other_data) and "16 groups" not in done("check", data)
    told = done("check", f"folder={data}").splitlines()
    assert [line.split(":")[0] for line in told] == [f"{data}/test", f"{data}/train"]
    assert all(line.endswith("of 16 tokens; checksums agree") for line in told)


def refused(data: Path) -> str:
    code, _, err = command("check", data)
    assert code == 2 and err.count("\n") == 1
    return err


def test_a_changed_token_is_found_however_large_the_data_are(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_format, "CHECKED_AT_ONCE", 0)
    path = array_path(copy / "test", "test", "inputs")
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert f"{path}: damaged (checksum differs)" in refused(copy)


def test_without_checksums_every_token_is_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_format, "CHECKED_AT_ONCE", 0)
    metadata_file = copy / "test" / "dataset.json"
    metadata = json.loads(metadata_file.read_text())
    del metadata["sha256"], metadata["metadata_sha256"]
    metadata_file.write_text(json.dumps(metadata))
    assert "no checksums, tokens in range" in done("check", copy)
    path = array_path(copy / "test", "test", "labels")
    labels = np.load(path)
    labels[-1, -1] = 99
    np.save(path, labels)
    assert "token 99 in row" in refused(copy)


def test_names_of_identifiers_are_counted(copy: Path) -> None:
    (copy / "identifiers.json").write_text('["one"]')
    assert "identifiers.json: 1 names, but" in refused(copy)
    (copy / "identifiers.json").write_text('{"one": 1}')
    assert "cannot be read (no list of names)" in refused(copy)


def test_what_is_no_data_set_is_said(tmp_path: Path) -> None:
    assert "this is no data set" in refused(tmp_path)


def test_every_key_is_tried() -> None:
    acts.check(KEYS["check"])
