"""Every flag of `hrm export` acts."""

from safetensors.torch import load_file

from hrm.data.split import Split

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
    assert code == 2 and "output_dir" in err


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


def test_every_flag_has_a_test():
    acts.check(KEYS["export"])
