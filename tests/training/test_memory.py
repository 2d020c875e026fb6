"""Memory does not grow with the number of steps, nor of evaluations."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import json, os, sys
sys.path.insert(0, {root!r})
import torch
from hrm.training.config import load_pretrain_config
from hrm.device import keep_memory
from hrm.ranks import Ranks
from hrm.evaluation import evaluate
from hrm.training.splits import open_data
from hrm.training.state import TrainState, train_step

keep_memory()
torch.set_num_threads(1)
alone, device = Ranks(0, 1, 0), torch.device("cpu")
config = load_pretrain_config(
    ["data_path={data}", "compile=false", "epochs=100", "eval_interval=100",
     "arch.forward_dtype=float32"],
    "quickstart_4x4",
)
train_set, test_set = open_data(config, alone)
state = TrainState.create(config, train_set.metadata, device, alone)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

megabytes = []
for number, (_, batch, _) in enumerate(train_set.iterate(0)):
    state.sums.add(train_step(state, batch, config, alone))
    if number in (50, 300):
        megabytes.append(resident())
for _ in range(4):
    evaluate(state.model, test_set, device, alone, "learned")
    megabytes.append(resident())
print(json.dumps(megabytes))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays(data_4x4):
    script = SCRIPT.format(root=str(ROOT), data=data_4x4)
    printed = subprocess.check_output([sys.executable, "-c", script], text=True)
    step_50, step_300, *evaluated = json.loads(printed.splitlines()[-1])
    assert len(evaluated) == 4
    assert step_300 - step_50 < 3
    assert evaluated[-1] - evaluated[0] < 3
