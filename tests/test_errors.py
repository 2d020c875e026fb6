"""Errors that are nobody's mistake in the program end in one line, too."""

import pytest
import torch

from hrm.errors import run_command


def on_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …")


def out_of_numbers() -> None:
    raise RuntimeError("shape '[2]' is invalid for input of size 3")


@pytest.mark.parametrize(
    "work, said",
    [
        (lambda: torch.empty(1 << 55), "can't allocate memory: you tried to allocate 14411518807"),
        (on_cuda, "(CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …)"),
        (lambda: bytearray(1 << 60), "(MemoryError)"),
    ],
    ids=["torch on a CPU", "CUDA", "Python"],
)
def test_full_memory_is_one_line_with_the_way_out(capsys, work, said):
    with pytest.raises(SystemExit) as end:
        run_command(work)
    [line] = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith("error: memory is full (") and said in line
    assert "micro_batch_size" in line and "--global-batch-size" in line


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="is invalid for input"):
        run_command(out_of_numbers)
