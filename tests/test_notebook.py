"""The notebook runs from its first cell to its last, with a training of seconds."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat import NotebookNode, read, validate

from .conftest import ROOT

PATH = ROOT / "examples" / "first_model.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> NotebookNode:
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"EPOCHS": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        copy = shutil.copy(PATH, folder)
        program = "from nbclient.cli import main; main()"
        command = [sys.executable, "-c", program, str(copy), "--inplace", "--timeout=300"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    book = read(copy, 4)
    book.metadata.folder = str(folder)
    return book


def outputs(book: NotebookNode, name: str) -> list[NotebookNode]:
    [cell] = [cell for cell in book.cells if cell.id == name]
    return cell.outputs


def printed(book: NotebookNode, name: str) -> str:
    return "".join(output.text for output in outputs(book, name) if output.output_type == "stream")


def test_a_model_is_trained_and_solves(executed):
    assert printed(executed, "install") == "", "nothing is installed where hrm is there"
    assert "200 test puzzles in data/notebook-4x4" in printed(executed, "data")
    assert "saved in checkpoints/notebook/first" in printed(executed, "train")
    assert "of 200 puzzles that it has never seen" in printed(executed, "load")
    assert "sure after" in printed(executed, "own") and "┌" in printed(executed, "own")


def test_its_thinking_is_drawn(executed):
    for name, kind in (("watch", "image/gif"), ("halting", "image/png"), ("larger", "image/gif")):
        assert any(kind in output.get("data", {}) for output in outputs(executed, name)), name
    assert (Path(executed.metadata.folder) / "thinking_9x9.gif").read_bytes()[:3] == b"GIF"


def test_it_is_stored_without_outputs():
    stored = json.loads(PATH.read_text(encoding="utf-8"))
    validate(stored)
    for cell in stored["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    assert PATH.read_text() == json.dumps(stored, indent=1, ensure_ascii=False) + "\n"
