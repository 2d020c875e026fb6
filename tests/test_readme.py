"""The code blocks of README and docs run as they are typed, on a small model and small data."""

import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from hrm.tasks.sudoku.generator import generate_split
from hrm.tasks.sudoku.rules import SYMBOLS

from .conftest import ROOT, saved_run
from .watching import started
from .written import SMALL, Block, all_blocks, changed, commands, run_line

OTHERS = {"your_own_task.md"}  # whose blocks tests/test_own_task.py runs
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if page.name not in OTHERS
]
RUNNABLE = ("sh", "python")
CHANGES = {  # what a reader has, and we have not: hours, eight GPUs and their cores, a connection
    r"^(hrm train|python pretrain.py|.*torchrun .* pretrain.py).*": rf"\g<0> {SMALL}",
    r"--num-aug 1000": "--num-aug 10",  # else a row of each of a million puzzles is saved
    r"--difficulty like-extreme": "--difficulty 1-3 --num-train 20 --num-test 10",
    r"OMP_NUM_THREADS=8": "OMP_NUM_THREADS=1",
    r"torchrun --nproc-per-node 8 evaluate.py": "python evaluate.py",  # tests/test_evaluation.py
    r"--nproc-per-node 8": "--nproc-per-node 2",
    r"^.*--subsample-size.*": r"\g<0> --source-dir csv",
    r"^hrm serve.*": r"\g<0> --port 0",
    r"^hrm sweep.*": r"\g<0> --dry-run",  # tests/cli/test_sweep.py trains
}


def blocks(page: Path) -> list[Block]:
    found = all_blocks(page.read_text(encoding="utf-8"))
    return [block for block in found if block.language in RUNNABLE and block.reason is None]


def places() -> list:
    """Every block that is run, named by its page and place there."""
    return [
        pytest.param(block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page))
    ]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, data_4x4) -> Path:
    """A folder like a checkout's, with `hrm` and torchrun, the quickstarts' runs, data, puzzles."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pretrain.py", "evaluate.py", "solve.py", "report.py", "dataset"):
        (folder / name).symlink_to(ROOT / name)
    runs = folder / "checkpoints" / "quickstart"
    saved_run(data_4x4, runs / "4x4-seed0")
    (runs / "9x9-seed0").symlink_to(ROOT / "hrm" / "shipped" / "sudoku-9x9")
    (folder / "data").mkdir()
    (folder / "data" / "quickstart-4x4-seed0").symlink_to(data_4x4)
    (folder / "puzzles.txt").write_text("....12......3..4\n")
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


@pytest.mark.parametrize("block", places())
def test_blocks_run(block, checkout, environment, call, call_script, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    if block.language == "python":
        exec(block.code, {})
        assert block.printed in (None, capsys.readouterr().out)
        return
    for command in commands(block.code):
        command = changed(command, CHANGES)
        if command.startswith("hrm serve"):
            assert_page_opens(command, checkout, environment)
        else:
            run_line(command, checkout, environment, call, call_script)


def assert_page_opens(command: str, folder: Path, environment: dict[str, str]) -> None:
    arguments = shlex.split(command)
    arguments[0] = str(folder / "bin" / arguments[0])
    with started(arguments, cwd=folder, env=environment, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        with urllib.request.urlopen(address) as page:
            assert b"<title>" in page.read()


def test_every_change_is_needed():
    written = [
        command for page in PAGES for block in blocks(page) for command in commands(block.code)
    ]
    for pattern in CHANGES:
        assert any(re.search(pattern, command) for command in written), pattern
