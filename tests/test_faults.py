"""A slice of the fault campaign: disturbed runs end as an undisturbed one does, byte for byte."""

import importlib.util
import os
import random
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux")
SHORT_EPOCHS = 12  # two evaluations, five checkpoints


@pytest.fixture(scope="module")
def faults():
    spec = importlib.util.spec_from_file_location("faults", ROOT / "benchmarks" / "faults.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench(faults, tmp_path_factory):
    return faults.Bench.create(tmp_path_factory.mktemp("faults"), SHORT_EPOCHS)


@pytest.mark.parametrize(
    "kinds",
    [
        [
            *("kill -9 in a save", "damaged checkpoint", "torn line of metrics"),
            *("SIGTERM", "disk full for a while"),
        ],
        pytest.param(["2 ranks: kill -9 of one, torchrun restarts"], marks=pytest.mark.slow),
    ],
    ids=("one process", "two ranks"),
)
def test_a_disturbed_run_ends_as_an_undisturbed_one(faults, bench, kinds, capsys):
    tally = faults.Tally()
    faults.disturb(bench, f"run-of-{len(kinds)}", kinds, random.Random(0), tally)
    assert tally.faults and not tally.failed, capsys.readouterr().out
