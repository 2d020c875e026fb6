"""Files and folders that are either whole or as they were before."""

from pathlib import Path

import pytest

from hrm.files import atomic_folder, replace_folder


def folder_with(path: Path, name: str) -> Path:
    path.mkdir()
    (path / name).touch()
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_replaced(tmp_path):
    new, target = folder_with(tmp_path / "new", "b"), folder_with(tmp_path / "target", "a")
    replace_folder(new, target)
    assert names(tmp_path) == ["target"] and names(target) == ["b"]


def test_one_that_cannot_be_replaced_stays(tmp_path):
    target = folder_with(tmp_path / "target", "a")
    with pytest.raises(OSError):
        replace_folder(tmp_path / "never made", target)
    assert names(tmp_path) == ["target"] and names(target) == ["a"]


def test_an_interruption_leaves_what_was_there(tmp_path):
    target = folder_with(tmp_path / "target", "a")
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as folder:
        (folder / "b").touch()
        raise KeyboardInterrupt
    assert names(tmp_path) == ["target"] and names(target) == ["a"]


def test_a_link_leads_to_what_is_replaced(tmp_path):
    target, link = folder_with(tmp_path / "target", "a"), tmp_path / "link"
    link.symlink_to(target)
    with atomic_folder(link) as folder:
        (folder / "b").touch()
    assert names(tmp_path) == ["link", "target"] and link.is_symlink() and names(target) == ["b"]


def test_the_present_folder_has_a_name_as_well(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with atomic_folder(Path(".")) as folder:
        (folder / "a").touch()
    assert names(tmp_path) == ["here"] and names(here) == ["a"]
