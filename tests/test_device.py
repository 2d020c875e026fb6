"""What suits a device: micro-batches, memory between steps."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrm.device import CPU_STATE, micro_batch_size
from hrm.training.config import load_pretrain_config
from hrm.training.loop import for_device

CPU = torch.device("cpu")


@given(rows=st.integers(1, 10_000), numbers=st.integers(1, 2 * CPU_STATE))
def test_a_cpu_s_micro_batch_divides_the_batch_and_nearly_fits(rows, numbers):
    chosen, fitting = micro_batch_size(CPU, rows, numbers), CPU_STATE / numbers
    assert rows % chosen == 0
    if rows <= fitting:
        assert chosen == rows
    for n in range(1, rows + 1):
        if rows % n == 0 and rows > fitting:
            assert abs(math.log(chosen / fitting)) <= abs(math.log(n / fitting)) + 1e-9
    assert micro_batch_size(torch.device("cuda"), rows, numbers) == rows


@pytest.mark.parametrize(
    "overrides, ranks, expected",
    [
        (["global_batch_size=384"], 1, 48),
        (["global_batch_size=384"], 2, 48),
        (["global_batch_size=32"], 1, 32),
        (["global_batch_size=383"], 1, 383),  # a prime: rather all than one by one
        (["global_batch_size=384", "micro_batch_size=null"], 1, None),
        (["global_batch_size=384", "micro_batch_size=96"], 1, 96),
    ],
)
def test_micro_batches_of_the_published_model(overrides, ranks, expected):
    config = load_pretrain_config(overrides)
    assert for_device(config, CPU, 81, ranks).micro_batch_size == expected
    if config.micro_batch_size == "auto":
        cuda = for_device(config, torch.device("cuda"), 81, ranks)
        assert cuda.micro_batch_size == config.global_batch_size // ranks


FAULTS = """
import resource
import torch
from hrm.device import keep_memory
if {keeps}:
    keep_memory()
def step():
    return [torch.ones(4 << 20) for _ in range(8)]  # 16 MB each
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_kept_memory_is_not_faulted_in_again():
    faults = [
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(keeps=keeps)]))
        for keeps in (False, True)
    ]
    assert faults[1] < faults[0] / 4
