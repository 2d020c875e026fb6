"""docs/your_own_task.md works as it is written: its blocks run, on a small model."""

import re
import sys
from pathlib import Path

import pytest

from hrm.data.format import read_metadata
from hrm.errors import UserError
from hrm.ranks import Ranks
from hrm.tasks import task_of
from hrm.training.config import load_pretrain_config
from hrm.training.splits import open_evaluators, open_split

from .conftest import ROOT
from .written import SMALL, blocks, changed, commands, run_line

PAGE = (ROOT / "docs" / "your_own_task.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
CHANGES = {r"^hrm train .*": rf"\g<0> {SMALL}"}
SERVING = "hrm serve"  # whose page the README's test opens


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with the files of the page, and its plug-in installed."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    site = tmp_path / "site"
    info = site / "stones-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stones\nVersion: 1.0\n")
    [points] = blocks(PAGE, "toml")
    [declared] = re.findall(r'entry-points\."hrm.tasks"\]\n(stones = .*)\n', points)
    (info / "entry_points.txt").write_text("[hrm.tasks]\n" + declared.replace('"', "") + "\n")
    (site / "stones.py").write_text(FILES["stones.py"])
    (site / "own_task.py").symlink_to(ROOT / "examples" / "own_task.py")
    monkeypatch.syspath_prepend(site)
    task_of.cache_clear()
    yield tmp_path
    task_of.cache_clear()
    for name in ("stones", "own_task"):
        sys.modules.pop(name, None)


def test_commands_run_as_they_are_typed(folder, call, call_script, monkeypatch):
    written = [c for block in blocks(PAGE, "sh") for c in commands(block)]
    assert sum(command.startswith("hrm train") for command in written) == 2
    for command in written:
        if not command.startswith(SERVING):
            monkeypatch.chdir(folder)
            environment = {"PATH": "/usr/bin:/bin"}
            run_line(changed(command, CHANGES), folder, environment, call, call_script)
    assert read_metadata(folder / "data" / "judged" / "train").task == "stones"
    code, out, _ = call("evaluate", "checkpoints/own/judged", "--device", "cpu")
    assert code == 0 and "stones_kept" in out
    saved = "eval_save_outputs=[inputs,puzzle_identifiers,predictions,q_halt_logits]"
    code, _, _ = call("evaluate", "checkpoints/own/judged", "--device", "cpu", saved)
    [file] = Path("checkpoints/own/judged").glob("step_*/predictions.safetensors")
    code, _, err = call("evaluate", "--predictions", str(file), "--data-path", "data/judged")
    assert (
        code == 2 and "nothing is voted on in data/judged/test" in err and "\n" not in err.strip()
    )
    keys = ["data_path=data/judged", "eval_limit=2"]
    judged = load_pretrain_config(keys)
    test_set = open_split(judged, Ranks(0, 1, 0), "test", limit=2)
    assert len(open_evaluators(judged, test_set)) == 1, "a sample will do where nothing votes"
    with pytest.raises(UserError, match="aggregated_voting=true: nothing is voted on"):
        open_evaluators(judged.model_copy(update={"aggregated_voting": True}), test_set)


def test_the_first_block_writes_a_data_set(folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(blocks(PAGE, "python")[0], {})
    metadata = read_metadata(folder / "data" / "two-by-two" / "test")
    assert (metadata.grid_shape, metadata.symbols) == ((2, 2), "_.#o")


def test_the_plug_in_knows_its_rules(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(ROOT / "examples")
    from own_task import write

    write("data/judged", "stones", 20, 5)
    task = task_of(read_metadata(folder / "data" / "judged" / "train"))
    drawing = re.findall(r"^([.o# ]{11})(?:   ->|     )   ([.o# ]{11})$", PAGE, re.MULTILINE)
    question, answer = (
        task.read_all(["".join(row[n] for row in drawing).replace(" ", "")]) for n in (0, 1)
    )
    assert task.are_valid(answer, question) == [True]
    assert task.are_valid(question, question) == [False]
    for version in task.symmetries(3, 0):
        assert task.are_valid(version.apply(answer), version.apply(question)) == [True]
