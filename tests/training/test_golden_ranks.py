"""Golden training runs, in micro-batches and on two gloo ranks."""

from typing import Any

import pytest
import torch

from hrm.ranks import Ranks
from tests.conftest import ROOT
from tests.models.test_golden import CASES, Golden

from .golden_worker import trained

MICRO_BATCHES = (1, 2)


def assert_golden(outcome: dict[str, Any], golden: Golden) -> None:
    for s, step in enumerate(outcome["steps"]):
        values = golden.under(f"train/{s}/")
        for name, value in golden.under(f"train/{s}/metrics/").items():
            ours, tolerance = step["metrics"][name], 1e-5 if s == 0 else 1e-4
            assert abs(ours - value.item()) <= tolerance * abs(value.item()) + 1e-12, (s, name)
        assert torch.equal(step["halted"], values["halted"])
    final = golden.under("final/")
    for name, ours in outcome["final"].items():
        error = (ours - final[name]).abs() / final[name].abs().max()
        assert (error <= 1e-4).float().mean() >= 0.999, name


@pytest.mark.parametrize("micro", MICRO_BATCHES)
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_micro_batches(case, micro):
    assert_golden(trained(case, micro, Ranks(0, 1, 0)), Golden(case))


def test_two_ranks(tmp_path, run_script):
    output = tmp_path / "outcomes.pt"
    words = [str(output), *map(str, MICRO_BATCHES), *map(str, CASES)]
    result = run_script(
        "tests/training/golden_worker.py", *words, ranks=2, env={"PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0, result.stderr
    outcomes = torch.load(output, weights_only=True)
    expected = {f"{case.stem} {micro}" for case in CASES for micro in MICRO_BATCHES}
    assert outcomes.keys() == expected and len(expected) == 8
    for case in CASES:
        for micro in MICRO_BATCHES:
            assert_golden(outcomes[f"{case.stem} {micro}"], Golden(case))
