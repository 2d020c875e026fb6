"""A slice of the fault campaign: disturbed runs end as an undisturbed one does, byte for byte."""

import importlib
import os
import random

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux")
SHORT_EPOCHS = 12  # two evaluations, five checkpoints


@pytest.fixture(scope="module")
def faults():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("faults")


@pytest.fixture(scope="module")
def bench(faults, tmp_path_factory):
    return faults.Bench.create(tmp_path_factory.mktemp("faults"), SHORT_EPOCHS)


@pytest.mark.parametrize(
    "kinds",
    [
        ["kill -9 in a save", "read-only for a while"],
        pytest.param(
            ["damaged checkpoint", "torn line of metrics", "closed terminal"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                "2 ranks: kill -9 of torchrun",
                "2 ranks, 2 torchruns: kill -9 of the first",
                "2 ranks: kill -9 of one, torchrun restarts",
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=("one process", "one process, more", "two ranks"),
)
def test_a_disturbed_run_ends_as_an_undisturbed_one(faults, bench, kinds, capsys):
    if not faults.can_mount():
        kinds = ["disk full for a while" if kind in faults.NEED_MOUNT else kind for kind in kinds]
    tally = faults.Tally()
    for seed in range(5):  # on a busy machine a run may end before anything has disturbed it
        faults.disturb(bench, f"{len(kinds)} faults, {seed}", kinds, random.Random(seed), tally)
        assert not tally.failed, capsys.readouterr().out
        if tally.faults:
            return
    pytest.fail("nothing disturbed it")
