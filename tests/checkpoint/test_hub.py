"""Models on the Hugging Face Hub: a server on this machine speaks its protocol."""

import json

import pytest
import torch

from hrm.checkpoint import export_checkpoint, find_checkpoint, load_checkpoint
from hrm.errors import UserError
from hrm.hub import Repository
from hrm.inference import Solver

from ..conftest import saved_run
from ..hub import TOKEN, UPLOAD_WARNING, FakeHub
from ..keys.commands import command

pytestmark = pytest.mark.filterwarnings(UPLOAD_WARNING)
PUZZLE = "1" + "." * 15


@pytest.fixture
def run(data_4x4, tmp_path):
    return saved_run(data_4x4, tmp_path / "run")


def files_of(folder) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def shared(hub, run, tmp_path) -> FakeHub:
    """me/tiny: an exported model with files of no use to us, two revisions; me/runs: three runs."""
    mine = files_of(export_checkpoint(load_checkpoint(run), tmp_path / "mine"))
    other = files_of(export_checkpoint(load_checkpoint(run), tmp_path / "other", "float16"))
    hub.repositories["me/tiny"] = {"main": mine | {"steal.py": b"1/0"}, "half": other}
    whole = files_of(run)
    hub.repositories["me/runs"] = {
        "main": {f"a/{name}": data for name, data in whole.items()}
        | {f"a/{name}".replace("step_7", "step_12"): data for name, data in whole.items()}
        | {f"b/{name}": data for name, data in mine.items()}
    }
    return hub


def state(path):
    return load_checkpoint(path).model.state_dict()


def equal(ours, theirs):
    return all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_model_is_loaded_by_its_name(shared, run):
    ours = Solver.from_checkpoint(run, "cpu").solve([PUZZLE])[0]
    for solver in (
        Solver.from_pretrained("me/tiny", device="cpu"),
        Solver.from_pretrained("hf://me/tiny", device="cpu"),
        Solver.from_checkpoint("hf://me/tiny@main", "cpu"),
    ):
        theirs = solver.solve([PUZZLE])[0]
        assert (theirs.answer, theirs.halt_probability) == (ours.answer, ours.halt_probability)


def test_only_what_is_needed_is_downloaded(shared):
    folder = find_checkpoint("hf://me/tiny")
    assert not any("steal.py" in line or "README" in line for line in shared.asked)
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "all_config.yaml",
        "dataset.json",
        "training.json",
        "manifest.json",
    }


def test_names_come_with_the_model_that_knows_them(shared):
    shared.repositories["me/tiny"]["main"]["identifiers.json"] = b'["<blank>"]'
    assert (find_checkpoint("hf://me/tiny") / "identifiers.json").read_bytes() == b'["<blank>"]'


def test_a_revision_is_a_branch_or_a_commit(shared):
    half = state("hf://me/tiny@half")
    assert not equal(half, state("hf://me/tiny"))
    commit = shared.commit_of("me/tiny", "half")
    assert equal(half, state(f"hf://me/tiny@{commit}"))
    pinned = Solver.from_pretrained("me/tiny", revision="half", device="cpu")
    assert equal(half, pinned.model.state_dict())


def test_a_branch_with_a_slash_is_written_as_in_addresses(shared):
    shared.repositories["me/tiny"]["refs/pr/1"] = shared.repositories["me/tiny"]["half"]
    assert equal(state("hf://me/tiny@refs%2Fpr%2F1"), state("hf://me/tiny@half"))
    assert str(Repository.parse("me/tiny@refs%2Fpr%2F1/a")) == "hf://me/tiny@refs%2Fpr%2F1/a"


def test_the_newest_step_of_a_run_and_a_folder(shared):
    assert find_checkpoint("hf://me/runs/a").name == "step_12"
    assert find_checkpoint("hf://me/runs/a/step_7").name == "step_7"
    assert load_checkpoint("hf://me/runs/a").step == 12
    assert find_checkpoint("hf://me/runs/b").name == "b"
    assert not any("training.safetensors" in line for line in shared.asked)


def test_published_runs_are_single_files(hub, run, data_4x4, tmp_path):
    """As the authors' repositories hold them: a pickle `checkpoint` or `step_<n>`, and code."""
    weights = {f"_orig_mod.{name}": tensor for name, tensor in state(run).items()}
    torch.save(weights, run.parent / "pickled")
    pickled, config = (run.parent / "pickled").read_bytes(), (run / "step_7/all_config.yaml")
    published = {"all_config.yaml": config.read_bytes(), "hrm_act_v1.py": b"1/0"}
    hub.repositories["them/hrm"] = {"main": published | {"checkpoint": pickled}}
    hub.repositories["them/trm"] = {
        "main": {f"v1/{n}": b for n, b in (published | {"step_518071": pickled}).items()}
        | {f"v2/{n}": b for n, b in (published | {"step_723914": pickled}).items()}
    }
    for name in ("hf://them/hrm", "hf://them/trm/v2", "hf://them/trm/v1/step_518071"):
        assert equal(load_checkpoint(name, data_path=data_4x4).model.state_dict(), state(run))
    assert load_checkpoint("hf://them/trm/v2", data_path=data_4x4).step == 723914
    theirs = load_checkpoint("hf://them/hrm", data_path=data_4x4)
    assert equal(state(export_checkpoint(theirs, tmp_path / "slim")), state(run))
    assert not any(".py" in line for line in hub.asked)
    with pytest.raises(UserError, match=r"holds several checkpoints; .*v1/step_518071"):
        find_checkpoint("hf://them/trm")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf://me/absent", "no such repository, or a private one; check the name, or log in"),
        ("hf://me/tiny@never", "me/tiny has no revision never"),
        ("hf://me/tiny/deeper", "is not there"),
        ("hf://me/runs", "holds several checkpoints; .*such as a/step_12"),
        ("hf://me/empty", "neither model.safetensors nor step_<n> is in it"),
        ("hf://me", "expected hf://user/name"),
        ("hf://me/ti ny", "expected hf://user/name"),
    ],
)
def test_what_is_wrong_is_one_line(shared, name, reason):
    shared.repositories["me/empty"] = {"main": {"README.md": b"soon"}}
    code, out, err = command("solve", name, PUZZLE)
    assert (code, out) == (2, "") and err.count("\n") == 1
    with pytest.raises(UserError, match=reason):
        find_checkpoint(name)


def test_without_connection_the_cache_serves(shared, monkeypatch):
    from huggingface_hub import constants

    there = state("hf://me/tiny"), state("hf://me/tiny@half")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert equal(there[0], state("hf://me/tiny")) and equal(there[1], state("hf://me/tiny@half"))
    with pytest.raises(UserError, match="checkpoint=hf://me/runs/a: cannot be downloaded"):
        find_checkpoint("hf://me/runs/a")


def test_a_private_model_needs_a_token(shared, monkeypatch):
    shared.private.add("me/tiny")
    with pytest.raises(UserError, match="log in"):
        find_checkpoint("hf://me/tiny")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find_checkpoint("hf://me/tiny").is_dir()


def test_a_damaged_download_is_found(shared):
    files = shared.repositories["me/tiny"]["main"]
    files["model.safetensors"] = files["model.safetensors"][:-4] + b"\0\0\0\1"
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_checkpoint("hf://me/tiny")


def test_push_and_load(hub, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, out, err = command("push", run, "me/first")
    assert (code, out) == (0, f"{hub.url}/me/first: named hf://me/first wherever a checkpoint is\n")
    card = hub.repositories["me/first"]["main"]["README.md"].decode()
    assert "\n# first\n" in card and "hrm solve hf://me/first PUZZLE" in card
    assert equal(state("hf://me/first"), state(run)) and hub.private == set()
    files = hub.repositories["me/first"]["main"]
    assert "](thinking.gif)" in card and files["thinking.gif"].startswith(b"GIF89a")
    assert "test/dataset.json" in files
    code, _, err = command("solve", "hf://me/first", "--index", "11", "--format", "line")
    assert code in (0, 1) and "1 puzzle" in err
    code, out, err = command("solve", "hf://me/first", PUZZLE, "--format", "json")
    assert json.loads(out)["answer"] == Solver.from_checkpoint(run).solve([PUZZLE])[0].answer


def test_nobody_pushes_without_a_login_or_elsewhere(hub, run, monkeypatch):
    code, out, err = command("push", run, "me/first")
    assert (code, out) == (2, "") and "hf auth login" in err and err.count("\n") == 1
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, out, err = command("push", run, "them/first")
    assert (code, out) == (2, "") and "them/first: cannot be pushed" in err
    assert hub.repositories == {}
