"""Every command says where a data set is not the one that its model was trained on."""

import shutil
from pathlib import Path

import pytest

from hrm.checkpoint import load_checkpoint
from hrm.errors import UserError
from hrm.tasks.sudoku.builder import BuildOptions, build

from ..conftest import Call, saved_run
from ..keys.training import BATCH, run


def data_set(folder: Path, seed: int, **options) -> Path:
    sizes = {"num_train": 24, "num_test": 6} | options
    build(BuildOptions(output_dir=folder, generate=(2, 2), seed=seed, overwrite=True, **sizes))
    return folder


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> tuple[Path, Path]:
    """A run's folder, and its data, which were built again after training."""
    folder = tmp_path_factory.mktemp("rebuilt")
    data = data_set(folder / "data", 0)
    trained = run(data, folder / "run", "epochs=1").path
    return trained, data_set(data, 1)


def test_solving_says_so(call: Call, rebuilt):
    trained, data = rebuilt
    code, out, err = call("solve", str(trained), "--index", "0", "--device", "cpu")
    assert code in (0, 1) and out
    seen, names, *_ = err.splitlines()
    assert seen.startswith(f"note: {data}: its training split is not the one")
    assert "count as unseen (identifier -1)" in names


def test_a_report_says_so(call: Call, rebuilt, tmp_path):
    trained, data = rebuilt
    path = tmp_path / "report.html"
    code, _, err = call("report", str(trained), "--output", str(path), "--device", "cpu")
    assert code == 0 and "training split is not the one" in err
    assert "training split is not the one" in path.read_text()


def test_a_model_card_names_the_data_where_they_are_recorded(call: Call, rebuilt, tmp_path):
    trained, data = rebuilt
    unrecorded = saved_run(data, tmp_path / "unrecorded")
    cards = []
    for number, run_dir in enumerate((trained, unrecorded)):
        target = tmp_path / f"exported-{number}"
        code, _, err = call("export", str(run_dir), "--output-dir", str(target))
        assert code == 0, err
        cards.append((target / "README.md").read_text())
    named, unnamed = cards
    assert f"(fingerprint {load_checkpoint(trained).origin.data[:8]})" in named
    assert "puzzles and versions of them |" in unnamed
    assert "fingerprint" not in unnamed and "None" not in unnamed


def test_resuming_is_refused(rebuilt):
    trained, data = rebuilt
    with pytest.raises(UserError, match=r"not the data that .* \(fingerprint \w{8}, not \w{8}\)"):
        run(data, trained, "epochs=1", "run_name=run", "resume=auto")


def test_what_does_not_fit_is_refused_with_both_values(call: Call, rebuilt, tmp_path):
    trained, _ = rebuilt
    original = data_set(tmp_path / "original", 2, format="original")
    for words in (
        ["evaluate", str(trained), "--data-path", str(original), "--device", "cpu"],
        ["solve", str(trained), "--data", str(original), "--device", "cpu"],
    ):
        code, out, err = call(*words)
        assert (code, out) == (2, "") and err.count("\n") == 1
        assert "vocab_size is 6, but the model was trained with 5" in err
    with pytest.raises(UserError, match="vocab_size is 6, but the model was trained with 5"):
        run(original, trained, "epochs=1", "run_name=run", "resume=auto")
    whole = data_set(tmp_path / "whole", 3, num_train=BATCH)
    shutil.rmtree(whole / "test")
    shutil.move(original / "test", whole / "test")
    with pytest.raises(UserError, match=f"{whole}/test: vocab_size is 6"):
        run(whole, tmp_path / "run", "epochs=1")


def test_other_puzzles_are_solved_with_a_word(call: Call, rebuilt, tmp_path):
    trained, data = rebuilt
    other = data_set(tmp_path / "other", 4)
    code, _, err = call("evaluate", str(trained), "--data-path", str(other), "--device", "cpu")
    assert code == 0
    assert f"note: {other}: not the data that the model was trained on, which is not here" in err


def test_another_working_directory(call: Call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_set(Path("data"), 0)
    run(Path("data"), tmp_path / "run", "epochs=1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for words, flag in ((["evaluate", "../run"], "--data-path"), (["solve", "../run"], "--data")):
        code, _, err = call(*words, *(["--index", "0"] if flag == "--data" else []))
        assert code == 2 and err.count("\n") == 1
        assert f"data_path=data: the data of training are not there in {Path.cwd()}" in err
        assert err.endswith(f"name a data set by {flag}\n")
