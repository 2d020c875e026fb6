"""A small checkpoint is loaded without what takes seconds to import."""

import subprocess
import sys

import pytest

from hrm.checkpoint import build_for, folder, load_checkpoint
from hrm.checkpoint.folder import SMALL_MODEL
from hrm.data.format import DatasetMetadata, read_metadata
from hrm.errors import UserError
from hrm.training.config import load_pretrain_config
from tests.conftest import ROOT, saved_run

ATTENTION = "arch.num_heads=4"
ARCHS = {
    "hrm_v1": ATTENTION,
    "hrm_walkthrough": ATTENTION,
    "quickstart": ATTENTION,
    "trm": ATTENTION,
    "trm_mlp": ATTENTION,
    "symbol_equivariant": "arch.first_symbol=3",
}


@pytest.fixture(scope="module")
def saved(data_4x4, tmp_path_factory):
    return saved_run(data_4x4, tmp_path_factory.mktemp("start") / "run")


def test_the_compiler_of_torch_is_not_imported(saved):
    code = f"""import sys
from hrm import Solver
Solver.from_checkpoint({str(saved)!r}).solve(["................"])
assert "torch._dynamo" not in sys.modules"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_larger_model_is_compared_before_it_is_built(saved, monkeypatch):
    monkeypatch.setattr(folder, "SMALL_MODEL", 0)
    assert load_checkpoint(saved).model is not None
    monkeypatch.setattr(folder, "check_weights", _refused)
    with pytest.raises(UserError, match="compared"):
        load_checkpoint(saved)
    monkeypatch.setattr(folder, "SMALL_MODEL", SMALL_MODEL)
    assert load_checkpoint(saved).model is not None


def _refused(*_: object) -> None:
    raise UserError("compared")


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("more", [(), ("arch.hidden_size=64", "arch.puzzle_emb_ndim=64")])
def test_the_bound_holds(data_4x4, arch, more):
    keys = (ARCHS[arch], "arch.forward_dtype=float32", *more)
    if arch == "symbol_equivariant":
        keys = tuple(key for key in keys if "puzzle_emb" not in key)
    config = load_pretrain_config([f"data_path={data_4x4}", f"arch={arch}", *keys])
    for metadata in (read_metadata(data_4x4 / "train"), _large(data_4x4)):
        model = build_for(config, metadata)
        held = [*model.parameters(), *model.buffers()]
        sizes = metadata.seq_len, metadata.vocab_size, metadata.num_puzzle_identifiers
        assert sum(t.numel() for t in held) <= config.arch.most_numbers(*sizes)


def _large(data) -> DatasetMetadata:
    changes = {"seq_len": 81, "vocab_size": 11, "grid_shape": (9, 9), "box_shape": (3, 3)}
    return read_metadata(data / "train").model_copy(update=changes)
