"""The README's code blocks run as they are typed, on a small model and small data."""

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from hrm.tasks.sudoku.generator import generate_split
from hrm.tasks.sudoku.rules import SYMBOLS

from . import written
from .conftest import ROOT, saved_run
from .written import SMALL, changed, commands, run_line

README = (ROOT / "README.md").read_text()
CHANGES = {  # what a reader has, and we have not: hours, eight GPUs and their cores, a connection
    r"^(hrm train|python pretrain.py|.*torchrun .* pretrain.py).*": rf"\g<0> {SMALL}",
    r"--num-aug 1000": "--num-aug 10",  # else a row of each of a million puzzles is saved
    r"--difficulty like-extreme": "--difficulty 1-3 --num-train 20 --num-test 10",
    r"OMP_NUM_THREADS=8": "OMP_NUM_THREADS=1",
    r"--nproc-per-node 8": "--nproc-per-node 2",
    r"^python dataset/build_sudoku_dataset.py.*": r"\g<0> --source-dir csv",
    r"^hrm serve.*": r"\g<0> --port 0",
    r"^hrm sweep.*": r"\g<0> --dry-run",  # tests/cli/test_sweep.py trains
}


def blocks(language: str) -> list[str]:
    return written.blocks(README, language)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, data_4x4) -> Path:
    """A folder like a checkout's, with `hrm` and torchrun, the quickstart's run, and CSV files."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pretrain.py", "evaluate.py", "solve.py", "report.py", "dataset"):
        (folder / name).symlink_to(ROOT / name)
    saved_run(data_4x4, folder / "checkpoints" / "quickstart" / "4x4-seed0")
    scripts = {"hrm": "-m hrm", "python": "", "torchrun": "-m torch.distributed.run --standalone"}
    (folder / "bin").mkdir()
    for name, module in scripts.items():
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
        script.chmod(0o755)
    (folder / "csv").mkdir()
    for split, puzzles in zip(("train", "test"), generate_split((2, 2), 1000, 20), strict=True):
        rows = ("".join(SYMBOLS[token] for token in grid) for grids in puzzles for grid in grids)
        texts = list(rows)
        pairs = zip(texts[: len(texts) // 2], texts[len(texts) // 2 :], strict=True)
        lines = ["source,question,answer,rating", *(f"x,{q},{a},0" for q, a in pairs)]
        (folder / "csv" / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def environment(checkout) -> dict[str, str]:
    return {
        "PATH": f"{checkout / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HOME": str(checkout),
    }


@pytest.mark.parametrize("number", range(len(blocks("sh"))))
def test_shell_blocks(checkout, environment, call, call_script, monkeypatch, number):
    for command in commands(blocks("sh")[number]):
        command = changed(command, CHANGES)
        if command.startswith("hrm serve"):
            assert_page_opens(command, checkout, environment)
        else:
            monkeypatch.chdir(checkout)
            run_line(command, checkout, environment, call, call_script)


def assert_page_opens(command: str, folder: Path, environment: dict[str, str]) -> None:
    arguments = shlex.split(command)
    arguments[0] = str(folder / "bin" / arguments[0])
    with subprocess.Popen(
        arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        with urllib.request.urlopen(address) as page:
            assert b"<title>" in page.read()
        server.terminate()


def test_every_change_is_needed():
    written = [command for block in blocks("sh") for command in commands(block)]
    for pattern in CHANGES:
        assert any(re.search(pattern, command) for command in written), pattern


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_blocks(checkout, environment, number):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks("python")[number]],
        cwd=checkout,
        env=environment | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
