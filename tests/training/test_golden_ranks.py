"""Golden training runs, in micro-batches and on two gloo ranks."""

import pytest
import torch

from tests.conftest import ROOT
from tests.models.test_golden import CASES, Golden


@pytest.mark.parametrize("ranks, micro", [(1, 1), (1, 2), (2, 2), (2, 1)])
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_training(case, ranks, micro, tmp_path, run_script):
    output = tmp_path / "outcome.pt"
    result = run_script(
        "tests/training/golden_worker.py",
        str(case),
        str(micro),
        str(output),
        ranks=ranks,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    outcome, golden = torch.load(output, weights_only=True), Golden(case)
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
