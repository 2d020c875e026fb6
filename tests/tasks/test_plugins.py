"""Tasks and builders of an installed distribution are found by name, and only then imported."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hrm.data import DatasetWriter
from hrm.data.format import DatasetMetadata, read_metadata
from hrm.errors import UserError
from hrm.tasks import Task, task_of
from hrm.tasks.registry import TASKS

from ..conftest import ROOT

MODULE = """
import numpy as np
from hrm.tasks import Symmetry, Task


class Evaluator:
    def __init__(self):
        self.count = 0

    def update(self, step):
        self.count += len(step.index)

    def reduce(self, ranks):
        return {"halted_again": float(self.count)}, {}


class MirrorTask(Task):
    name = "mirror"
    judges = True

    def are_valid(self, answers, inputs):
        rows, columns = self.shape
        turned = np.asarray(inputs).reshape(-1, rows, columns)[:, :, ::-1]
        return (np.asarray(answers) == turned.reshape(len(answers), -1)).all(1).tolist()

    @property
    def most_versions(self):
        return 2

    def symmetries(self, count, seed):
        rows, columns = self.shape
        place = np.arange(rows * columns).reshape(rows, columns)[::-1].ravel()
        return [Symmetry(place, np.arange(self.metadata.vocab_size))] * count

    def evaluators(self, data_path, split, aggregated_voting=False):
        return [Evaluator()]
"""
BUILDER = """
import numpy as np
from pathlib import Path
from pydantic import Field
from hrm.config import Config
from hrm.data import DatasetWriter

HELP = "hrm build mirror --output-dir data/mirror"


class BuildOptions(Config):
    output_dir: Path = Field(description="where it goes")
    count: int = Field(20, description="examples")


def build(options):
    rng = np.random.default_rng(0)
    with DatasetWriter(options.output_dir, symbols="_abc", task="mirror") as writer:
        for number in range(options.count):
            grid = rng.integers(1, 4, (3, 3))
            split = "train" if number % 5 else "test"
            writer.add(None, None, grid, grid[:, ::-1], split)
    return f"{options.count} examples in {options.output_dir}"
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution on sys.path, as pip would: its modules and its metadata."""

    def run(entry_points: str, name: str = "hrm-mirror", **modules: str) -> Path:
        site = tmp_path / f"site-{name}"
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        for module, code in modules.items():
            (site / f"{module}.py").write_text(code)
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(site)
        return site

    task_of.cache_clear()
    yield run
    task_of.cache_clear()
    for module in ("hrm_mirror", "hrm_mirror_builder"):
        sys.modules.pop(module, None)


def metadata(task: str) -> DatasetMetadata:
    return DatasetMetadata(
        vocab_size=4,
        seq_len=9,
        num_puzzle_identifiers=1,
        pad_id=0,
        ignore_label_id=None,
        blank_identifier_id=-1,
        total_groups=1,
        mean_puzzle_examples=1,
        sets=("all",),
        task=task,
        grid_shape=(3, 3),
        symbols="_abc",
    )


def test_a_task_is_found_by_its_name(install: Install):
    assert type(task_of(metadata("mirror"))) is Task
    task_of.cache_clear()
    install("[hrm.tasks]\nmirror = hrm_mirror:MirrorTask\n", hrm_mirror=MODULE)
    assert type(task_of(metadata("grids"))) is TASKS["grids"] and "hrm_mirror" not in sys.modules
    task = task_of(metadata("mirror"))
    assert (task.name, type(task).__module__) == ("mirror", "hrm_mirror")
    grid = np.array([[1, 2, 3] * 3])
    assert task.are_valid(np.array([[3, 2, 1] * 3]), grid) == [True]
    assert task.are_valid(grid, grid) == [False]


def test_our_own_tasks_come_first(install: Install):
    install("[hrm.tasks]\nmaze = hrm_mirror:MirrorTask\n", hrm_mirror="raise RuntimeError")
    assert type(task_of(metadata("maze"))) is Task  # which no maze fits
    assert "hrm_mirror" not in sys.modules


def test_what_is_not_installed_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    task_of.cache_clear()
    for name in ("evil", "evil:Task", "hrm.tasks"):
        assert type(task_of(metadata(name))) is Task


BROKEN = [
    ("hrm_mirror:Gone", MODULE, "cannot be loaded (AttributeError"),
    ("hrm_gone:Task", MODULE, "cannot be loaded (ModuleNotFoundError"),
    ("hrm_mirror:MirrorTask", "1 / 0", "cannot be loaded (ZeroDivisionError: division by zero)"),
    ("hrm_mirror:np", MODULE, "is no class that derives from hrm.tasks.Task"),
    ("hrm_mirror:Task", MODULE, "its `name` is 'grids', expected 'mirror'"),
]


@pytest.mark.parametrize("value, code, reason", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_task_names_its_distribution(install: Install, value, code, reason):
    install(f"[hrm.tasks]\nmirror = {value}\n", hrm_mirror=code)
    with pytest.raises(UserError) as refused:
        task_of(metadata("mirror"))
    assert reason in str(refused.value) and "plug-in hrm-mirror: " in str(refused.value)


def test_two_of_one_name_are_refused(install: Install):
    points = "[hrm.tasks]\nmirror = hrm_mirror:MirrorTask\n"
    install(points, hrm_mirror=MODULE)
    install(points, name="other", hrm_mirror=MODULE)
    with pytest.raises(UserError, match="both hrm-mirror and other declare 'mirror'"):
        task_of(metadata("mirror"))


def hrm(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "hrm", *map(str, words)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{site}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_a_builder_and_its_data_from_the_command_line(install: Install, tmp_path):
    points = (
        "[hrm.tasks]\nmirror = hrm_mirror:MirrorTask\n[hrm.builders]\nmirror = hrm_mirror_builder\n"
    )
    site = install(points, hrm_mirror=MODULE, hrm_mirror_builder=BUILDER)
    shown = hrm(site, "build", "--help")
    assert "mirror" in shown.stdout and "of the plug-in hrm-mirror" in shown.stdout
    built = hrm(site, "build", "mirror", "--count", 30, "--output-dir", tmp_path / "data")
    assert (built.returncode, built.stderr) == (0, "") and built.stdout.startswith("30 examples")
    assert read_metadata(tmp_path / "data" / "train").task == "mirror"
    wrong = hrm(site, "build", "mirror", "--output-dir", tmp_path / "x", "--coutn", 3)
    assert wrong.returncode == 2 and "--coutn" in wrong.stderr

    (site / "hrm_mirror_builder.py").write_text("def build(options): pass\n")
    broken = hrm(site, "build", "mirror", "--output-dir", tmp_path / "y")
    assert broken.returncode == 2 and broken.stderr.startswith("error: plug-in hrm-mirror: ")
    assert "has no BuildOptions" in broken.stderr and "Traceback" not in broken.stderr


def test_rules_symmetries_and_evaluators_of_a_plug_in_are_used(install: Install, call, tmp_path):
    """Through training, evaluation and solving, as of any task of ours."""
    from ..conftest import SMALL_MODEL

    install("[hrm.tasks]\nmirror = hrm_mirror:MirrorTask\n", hrm_mirror=MODULE)
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "data", symbols="_abc", task="mirror") as writer:
        for number in range(20):
            grid = rng.integers(1, 4, (3, 3))
            writer.add(None, None, grid, grid[:, ::-1], "train" if number > 4 else "test")
    run = tmp_path / "run"
    short = ("epochs=2", "eval_interval=2", "global_batch_size=5")
    words = (f"checkpoint_path={run}", *SMALL_MODEL, *short)
    assert call("train", str(tmp_path / "data"), *words)[0] == 0
    code, out, _ = call("evaluate", str(run), "--device", "cpu")
    assert code == 0 and "halted_again" in out
    code, out, err = call("solve", str(run), "abc" * 3, "--votes", "2", "--device", "cpu")
    assert code in (0, 1) and "no valid solution after" in out or "a valid solution" in out
    assert call("report", str(run), "--device", "cpu")[0] == 0
