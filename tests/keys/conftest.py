"""Data sets and checkpoints that all tests of keys share; nothing changes them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hrm.tasks.sudoku.builder import BuildOptions, build
from tests.tasks.arc.making import Made, puzzles_of, versions_of, write_data

from .training import PUZZLES, TEST_PUZZLES, VERSIONS, Run, run, saved

EAGER, PATIENT = (5.0, -5.0), (-5.0, -5.0)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """4x4 Sudoku, one identifier per puzzle."""
    folder = tmp_path_factory.mktemp("keys") / "small-4x4"
    sizes = {"num_train": PUZZLES, "num_test": TEST_PUZZLES, "num_aug": VERSIONS - 1}
    build(BuildOptions(output_dir=folder, generate=(2, 2), **sizes))
    return folder


@pytest.fixture(scope="session")
def other_data(tmp_path_factory) -> Path:
    """Fewer puzzles of the same kind, others than those of `data`."""
    folder = tmp_path_factory.mktemp("keys") / "other-4x4"
    build(BuildOptions(output_dir=folder, generate=(2, 2), num_train=16, num_test=5, seed=1))
    return folder


@pytest.fixture(scope="session")
def voted(tmp_path_factory) -> Made:
    """ARC: four tasks in two versions each, whose answers are voted on."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("keys") / "arc"
    return write_data(folder, puzzles_of(rng, (1, 2, 1, 1)), versions_of(rng, 2))


@pytest.fixture(scope="session")
def plain(data, tmp_path_factory) -> Run:
    """A run with the keys of `TINY` alone."""
    torch.set_num_threads(1)
    return run(data, tmp_path_factory.mktemp("runs") / "plain")


@pytest.fixture(scope="session")
def frozen(data, tmp_path_factory) -> Run:
    """A run whose weights stay as they began."""
    torch.set_num_threads(1)
    return run(data, tmp_path_factory.mktemp("runs") / "frozen", "lr=0", "puzzle_emb_lr=0")


@pytest.fixture(scope="session")
def patient(data, tmp_path_factory) -> Path:
    """A run's folder whose raw weights take all steps, and whose running average halts at once."""
    folder = tmp_path_factory.mktemp("checkpoints") / "project" / "patient"
    return saved(data, folder, PATIENT, ema_q_bias=EAGER)


@pytest.fixture(scope="session")
def moody(data, tmp_path_factory) -> Path:
    """A run's folder whose halting values depend on the puzzle and on the start state."""
    folder = tmp_path_factory.mktemp("checkpoints") / "project" / "moody"
    return saved(data, folder, (0.0, 0.0), q_noise=1.0)


@pytest.fixture
def no_accelerator(monkeypatch) -> None:
    """As on a machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
