"""Every flag of `hrm push` acts."""

import shutil

import pytest
from safetensors.torch import load

from ..hub import TOKEN, UPLOAD_WARNING
from .commands import KEYS, command, done
from .registry import Registry

pytestmark = pytest.mark.filterwarnings(UPLOAD_WARNING)
acts = Registry()


@pytest.fixture(autouse=True)
def _logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def weights(hub, name, branch="main"):
    return load(hub.repositories[name][branch]["model.safetensors"])


@acts("checkpoint", "repository")
def test_the_checkpoint_that_is_named_goes_where_asked(hub, patient, moody):
    done("push", patient, "me/patient")
    done("push", moody, "me/patient@moody")
    branches = hub.repositories["me/patient"]
    assert set(branches) == {"main", "moody"}
    assert branches["main"]["model.safetensors"] != branches["moody"]["model.safetensors"]
    for wrong in ("me", "me/a/folder", "hf://datasets/me/patient"):
        code, _, err = command("push", patient, wrong)
        assert code == 2 and "repository" in err and "expected" in err


@acts("data_path")
def test_the_data_set_is_where_it_is_told_to_be(hub, patient, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "moved")
    done("push", patient, "me/moved", "--data-path", moved)
    assert b"data_path: moved" in hub.repositories["me/moved"]["main"]["all_config.yaml"]


@acts("private", "message")
def test_a_repository_is_made_as_asked(hub, patient):
    done("push", patient, "me/open")
    done("push", patient, "me/closed", "--private", "--message", "at last")
    assert hub.private == {"me/closed"} and hub.messages == ["Upload model", "at last"]


@acts("dtype", "weights")
def test_weights_are_those_asked_for(hub, patient):
    done("push", patient, "me/raw", "--weights", "raw")
    done("push", patient, "me/ema", "--weights", "ema", "--dtype", "float16")
    raw, ema = weights(hub, "me/raw"), weights(hub, "me/ema")
    assert {str(t.dtype) for t in ema.values()} == {"torch.float16"}
    assert any(not raw[name].half().equal(ema[name]) for name in raw)


@acts("notes")
def test_notes_are_in_the_card(hub, patient, tmp_path):
    (tmp_path / "notes.md").write_text("Made on a Sunday.\n")
    done("push", patient, "me/noted", "--notes", tmp_path / "notes.md")
    assert b"Made on a Sunday.\n" in hub.repositories["me/noted"]["main"]["README.md"]


@acts("examples")
def test_so_many_examples_go_with_it(hub, patient):
    done("push", patient, "me/none", "--examples", "0")
    done("push", patient, "me/some", "--examples", "3")
    none, some = (hub.repositories[name]["main"] for name in ("me/none", "me/some"))
    assert "test/dataset.json" in some and "test/dataset.json" not in none


def test_what_an_earlier_model_had_does_not_stay(hub, patient):
    done("push", patient, "me/again", "--examples", "3")
    assert any(name.startswith("test/") for name in hub.repositories["me/again"]["main"])
    by_hand = {"notes.txt": b"by hand", "test/test_model.py": b"assert True"}
    hub.repositories["me/again"]["main"] |= by_hand
    done("push", patient, "me/again", "--examples", "0")
    left = hub.repositories["me/again"]["main"]
    assert [name for name in left if name.startswith("test/")] == ["test/test_model.py"]
    assert by_hand.items() <= left.items()


def test_every_flag_has_a_test():
    acts.check(KEYS["push"])
