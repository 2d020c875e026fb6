"""Every flag of `hrm export` acts."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import onnx
from PIL import Image
from safetensors.torch import load_file

from hrm import pretrained
from hrm.checkpoint import find_checkpoint, step_graph
from hrm.data.split import Split
from hrm.plain_yaml import read_yaml
from hrm.tasks import task_of
from hrm.web.runtime import FILES

from ..conftest import ROOT
from ..exporting import PUZZLE
from .commands import KEYS, command, done
from .registry import Registry

acts = Registry()


def weights(folder):
    return load_file(folder / "model.safetensors")


@acts("checkpoint", "output_dir")
def test_the_checkpoint_that_is_named_goes_where_asked(patient, moody, tmp_path):
    for run in (patient, moody):
        target = tmp_path / f"{run.name}-alone"
        assert f"{target}: " in done("export", run, "--output-dir", target)
        assert f"# {run.name}-alone\n" in (target / "README.md").read_text()
    code, _, err = command("export", patient)
    assert code == 2 and "--output-dir" in err


@acts("data_path")
def test_the_data_set_is_where_it_is_told_to_be(patient, plain, data, other_data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "moved")
    done("export", patient, "--output-dir", tmp_path / "mine", "--data-path", moved)
    assert read_yaml(tmp_path / "mine/all_config.yaml")["data_path"] == "moved"
    assert Split.open(tmp_path / "mine/test")
    for wrong, message in ((tmp_path / "absent", "absent"), (other_data, "trained on other data")):
        words = "--output-dir", tmp_path / "no", "--data-path", wrong
        code, _, err = command("export", plain.path, *words)
        assert code == 2 and message in err and not (tmp_path / "no").exists()


@acts("onnx", "torch_export", "page")
def test_what_other_programs_run_is_written(exported):
    for name, least, most in (("model.onnx", 0.4e6, 1e6), ("model.pt2", 0.8e6, 2.5e6)):
        assert least < (exported.folder / name).stat().st_size < most
        assert f"{exported.folder / name}: " in exported.told
    assert f"{exported.folder / 'page'}: 0." in exported.told
    names = {path.name for path in (exported.folder / "page").iterdir()}
    assert names == {"index.html", "model", "runtime", "static"}


def test_twenty_lines_of_numpy_solve_a_puzzle(exported, monkeypatch, capsys):
    model = str(exported.folder / "model.onnx")
    monkeypatch.setattr(sys, "argv", ["onnx_numpy.py", model, PUZZLE])
    runpy.run_path(str(ROOT / "examples/onnx_numpy.py"))
    last = capsys.readouterr().out.splitlines()[-1]
    [solution] = pretrained("sudoku-9x9", "cpu").solve([PUZZLE])
    assert solution.valid
    assert last == f"step {solution.steps:2}, halt 100%: {solution.answer}"


@acts("examples", "runtime")
def test_the_page_has_the_examples_and_the_runtime_that_are_named(exported):
    page = json.loads((exported.folder / "page/model/page.json").read_text())
    split = Split.open(find_checkpoint(Path("sudoku-9x9")) / "test")
    grid = task_of(split.metadata).grid
    known = [grid.text(split.example(number).inputs) for number in range(len(split))]
    shown = [example["puzzle"] for example in page["examples"]]
    assert len(shown) == 3 and set(shown) < set(known)
    for name in FILES:
        assert (exported.folder / "page/runtime" / name).read_text() == f"// {name}"
    wrong = ("--page", exported.folder / "b", "--runtime", exported.folder / "page")
    code, _, err = command("export", "sudoku-9x9", *wrong)
    assert code == 2 and "page: ort.wasm.min.mjs and the others" in err
    assert not (exported.folder / "b").exists()


@acts("dtype")
def test_weights_of_graphs_are_stored_as_asked(exported, tmp_path, monkeypatch):
    """An export is traced once here; the flag acts after that."""
    plain = onnx.load(exported.folder / "model.onnx")
    monkeypatch.setattr(step_graph, "trace_step", lambda _: None)
    monkeypatch.setattr(step_graph, "as_onnx", lambda *_: plain)
    in_page = exported.folder / "page/model/model.onnx"
    for words, path in (((), in_page), (("--dtype", "int8"), tmp_path / "small.onnx")):
        if words:
            done("export", "sudoku-9x9", "--onnx", path, *words)
        stored = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
        assert onnx.TensorProto.INT8 in stored and path.stat().st_size < 1.2e6
    assert onnx.TensorProto.INT8 not in {tensor.data_type for tensor in plain.graph.initializer}


def test_what_hosts_keep_beside_a_page_is_not_lost(patient, tmp_path):
    (tmp_path / "page/model").mkdir(parents=True)
    (tmp_path / "page/model/page.json").touch()
    for name in ".nojekyll", "robots.txt":
        (tmp_path / "page" / name).touch()
        code, _, err = command("export", patient, "--page", tmp_path / "page")
        assert code == 2 and f"{name} would be lost; name another folder" in err
        (tmp_path / "page" / name).unlink()


def test_what_does_not_go_together_is_said_before_anything_is_written(patient, tmp_path):
    for words, message in (
        ((), "name what to write by one of --output-dir, --onnx, --torch-export, --page"),
        (("--output-dir", "a", "--dtype", "int8"), "--output-dir stores float32 or float16 or"),
        (("--onnx", "a", "--dtype", "float16"), "dtype=float16: --onnx stores float32 or int8"),
        (("--torch-export", "a.pt2", "--dtype", "int8"), "--torch-export stores float32"),
        (("--page", patient), "is there already, and is no exported page"),
        (("--torch-export", "a.pt"), "torch_export=a.pt: must end in .pt2"),
    ):
        code, _, err = command("export", patient, *words)
        assert code == 2 and message in err and err.count("\n") == 1


@acts("dtype")
def test_weights_are_stored_as_asked(patient, tmp_path):
    done("export", patient, "--output-dir", tmp_path / "half", "--dtype", "float16")
    assert {str(t.dtype) for t in weights(tmp_path / "half").values()} == {"torch.float16"}


@acts("weights")
def test_the_weights_are_those_that_are_named(patient, tmp_path):
    for name in ("raw", "ema", "auto"):
        done("export", patient, "--output-dir", tmp_path / name, "--weights", name)
    raw, ema, auto = (weights(tmp_path / name) for name in ("raw", "ema", "auto"))
    assert any(not raw[name].equal(ema[name]) for name in raw)
    assert all(auto[name].equal(ema[name]) for name in ema)


@acts("notes")
def test_notes_are_in_the_card(patient, tmp_path):
    (tmp_path / "notes.md").write_text("Made on a Sunday.\n")
    done("export", patient, "--output-dir", tmp_path / "mine", "--notes", tmp_path / "notes.md")
    assert "Made on a Sunday.\n" in (tmp_path / "mine/README.md").read_text()
    code, _, err = command("export", patient, "--output-dir", tmp_path / "b", "--notes", "nowhere")
    assert code == 2 and "notes=nowhere: cannot be read" in err


@acts("examples")
def test_so_many_examples_go_with_it(patient, tmp_path):
    done("export", patient, "--output-dir", tmp_path / "three", "--examples", "3")
    assert len(Split.open(tmp_path / "three/test")) == 3
    done("export", patient, "--output-dir", tmp_path / "none", "--examples", "0")
    assert not (tmp_path / "none/test").exists()


@acts("picture")
def test_a_picture_of_the_first_example_is_in_the_card(patient, tmp_path):
    done("export", patient, "--output-dir", tmp_path / "drawn", "--picture")
    with Image.open(tmp_path / "drawn/thinking.gif") as picture:
        assert picture.n_frames == 2  # the puzzle and one ACT step
    assert "](thinking.gif)\n\n|" in (tmp_path / "drawn/README.md").read_text()
    done("export", patient, "--output-dir", tmp_path / "none", "--picture", "--examples", "0")
    assert not (tmp_path / "none/thinking.gif").exists()
    assert "thinking.gif" not in (tmp_path / "none/README.md").read_text()


def test_every_flag_has_a_test():
    acts.check(KEYS["export"])
