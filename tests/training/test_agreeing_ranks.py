"""What one rank alone sees, such as a signal or its clock, all ranks do together."""

import json

import pytest

from hrm.checkpoint import saved_steps, step_dir
from hrm.checkpoint.manifest import verify
from tests.conftest import ROOT
from tests.training.test_resume import arguments

SCRIPT = """
import os, signal, sys
sys.path.insert(0, {root!r})
from hrm.cli.main import run
from hrm.training import graph
from hrm.training.saving import Checkpoints

rank, calls = os.environ["RANK"], [0]
begin_step = graph.begin_step

def is_overdue(checkpoints):
    calls[0] += 1
    return rank == "1" and calls[0] == 8

def signalled(state, config):
    if rank == "1" and state.step == 7:
        signal.raise_signal(signal.SIGTERM)
    begin_step(state, config)

if {case!r} == "clock":
    Checkpoints.is_overdue = is_overdue
else:
    graph.begin_step = signalled
try:
    run("train", "pretrain.py")
except SystemExit as end:
    print("rank", rank, "ends with", end.code)
    raise
"""


@pytest.mark.parametrize("case", ["clock", "signal"])
def test_all_ranks_save_when_one_is_asked_to(data_4x4, tmp_path, run_script, case):
    script, run_dir = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT.format(root=str(ROOT), case=case))
    more = ("epochs=3", "eval_interval=null", "checkpoint_interval=null", "log_interval=1")
    words = arguments(data_4x4, run_dir, *more, "rank_timeout=60")
    result = run_script(str(script), *words, ranks=2)
    ended = sorted(line for line in result.stdout.splitlines() if line.startswith("rank "))
    if case == "signal":
        assert result.returncode == 143, result.stderr
        assert ended == ["rank 0 ends with 143", "rank 1 ends with 143"]
    else:
        assert result.returncode == 0 and ended == [], result.stderr
    assert saved_steps(run_dir) == ([8] if case == "signal" else [8, 18])
    checkpoint = step_dir(run_dir, 8)
    verify(checkpoint)
    assert (checkpoint / "training-1.safetensors").is_file()
    assert json.loads((checkpoint / "training.json").read_text())["ranks"] == 2
