"""Fixtures that several tests share."""

import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from hrm.checkpoint import build_for, save_checkpoint
from hrm.cli.main import main
from hrm.data.format import read_metadata
from hrm.tasks.sudoku.builder import BuildOptions, build
from hrm.training.config import load_pretrain_config

from .forked_ranks import run_ranks
from .hub import FakeHub, serving

if TYPE_CHECKING:
    from .exporting import Exported

ROOT = Path(__file__).parents[1]
SMALL_MODEL = (
    "arch.hidden_size=64",
    "arch.num_heads=4",
    "arch.H_layers=1",
    "arch.L_layers=1",
    "arch.halt_max_steps=4",
    "arch.forward_dtype=float32",
    "device=cpu",
    "compile=false",
    "progress=false",
    "log_interval=1",
    "lr_warmup_steps=5",
    "lr=1e-3",
)

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
)

settings.register_profile("patient", deadline=None)  # a busy machine breaks no promise
settings.load_profile("patient")

Run = Callable[..., subprocess.CompletedProcess[str]]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_4x4(tmp_path_factory) -> Path:
    """100 training puzzles of 4x4 in 11 versions each, 40 test puzzles; one identifier each."""
    folder = tmp_path_factory.mktemp("data") / "sudoku-4x4"
    build(BuildOptions(output_dir=folder, generate=(2, 2), num_train=100, num_test=40, num_aug=10))
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[FakeHub]:
    """A Hub without repositories, instead of the real one; nobody is logged in, nothing cached."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(FakeHub()) as fake:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, fake.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield fake


@pytest.fixture(scope="session")
def exported(tmp_path_factory, worker_id) -> "Exported":
    """The 9x9 model of the package as `hrm export` writes it for other programs.

    Tests that run side by side share one.
    """
    from .exporting import export_all

    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    with FileLock(shared / "exported.lock"):
        return export_all(shared / "exported")


def saved_run(data_path: Path, folder: Path, *overrides: str) -> Path:
    """A run's folder with one checkpoint, `step_7`, of fresh weights."""
    names = (f"data_path={data_path}", f"run_name={folder.name}")
    config = load_pretrain_config([*names, *SMALL_MODEL, *overrides])
    metadata = read_metadata(data_path / "train")
    torch.manual_seed(0)
    save_checkpoint(folder, 7, config, metadata, build_for(config, metadata).state_dict())
    return folder


@pytest.fixture
def run_script(tmp_path) -> Run:
    """Run one of the root scripts in `tmp_path`, alone or on several gloo ranks.

    `torchrun=True` lets torchrun start the ranks, in seconds; else they are forked.
    """

    def run(
        script: str,
        *arguments: str,
        ranks: int = 1,
        torchrun: bool = False,
        env: dict[str, str] | None = None,
        stdin: str = "",
    ):
        if ranks > 1 and not torchrun:
            return run_ranks(ROOT / script, arguments, ranks, tmp_path, env or {})
        command = [sys.executable]
        if torchrun:
            command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        return subprocess.run(
            [*command, str(ROOT / script), *arguments],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def call_script(monkeypatch, capsys, tmp_path) -> Run:
    """Run one of the root scripts in `tmp_path`, as `run_script` does, but in this process.

    Saves the seconds in which a process imports torch.
    """

    def run(
        script: str, *arguments: str, folder: Path = tmp_path
    ) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, *sys.argv])
        code = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as exit:
            code = int(exit.code or 0)
        return subprocess.CompletedProcess(sys.argv, code, *capsys.readouterr())

    return run


@pytest.fixture
def call(monkeypatch, capsys) -> Call:
    """Run `hrm` with a command line in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hrm", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        return code, *capsys.readouterr()

    return run
