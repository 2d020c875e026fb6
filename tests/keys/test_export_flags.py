"""Every flag of `hrm export` acts."""

import runpy
import sys

from safetensors.torch import load_file

from hrm import pretrained

from ..conftest import ROOT
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


@acts("onnx", "torch_export", "dtype")
def test_graphs_are_written_and_solve_a_puzzle(tmp_path, monkeypatch, capsys):
    onnx_file, program = tmp_path / "model.onnx", tmp_path / "model.pt2"
    paths = ("--onnx", onnx_file, "--torch-export", program)
    told = done("export", "sudoku-4x4", *paths, "--dtype", "int8")
    assert f"{onnx_file}: 0.3" in told and f"{program}: 1." in told
    assert program.stat().st_size > 1e6
    puzzle = "1....2....3....4"
    monkeypatch.setattr(sys, "argv", ["onnx_numpy.py", str(onnx_file), puzzle])
    runpy.run_path(str(ROOT / "examples/onnx_numpy.py"))
    last = capsys.readouterr().out.splitlines()[-1]
    [solution] = pretrained("sudoku-4x4", "cpu").solve([puzzle])
    assert solution.valid
    assert last == f"step {solution.steps:2}, halt 100%: {solution.answer}"


def test_what_does_not_go_together_is_said_before_anything_is_written(patient, tmp_path):
    for words, message in (
        ((), "name what to write by one of --output-dir, --onnx, --torch-export"),
        (("--output-dir", "a", "--dtype", "int8"), "--output-dir stores float32 or float16 or"),
        (("--onnx", "a", "--dtype", "float16"), "dtype=float16: --onnx stores float32 or int8"),
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


def test_every_flag_has_a_test():
    acts.check(KEYS["export"])
