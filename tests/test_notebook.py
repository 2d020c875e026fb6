"""The notebook runs from its first cell to its last, with a training of seconds."""

import json
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode, read, validate

from .conftest import ROOT

PATH = ROOT / "examples" / "first_model.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> NotebookNode:
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"EPOCHS": "4", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        manager = AsyncKernelManager()
        manager._kernel_spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="this Python",
            language="python",
        )
        where = {"metadata": {"path": str(folder)}}
        NotebookClient(book := read(PATH, 4), km=manager, timeout=300, resources=where).execute()
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
