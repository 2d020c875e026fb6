"""Checkpoints of several ranks: each writes its own rows, any number of ranks reads them."""

from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hrm.checkpoint import build_for, save_checkpoint
from hrm.checkpoint.layout import remove_leftovers
from hrm.checkpoint.manifest import Damaged, listed_files, verify, write_manifest
from hrm.checkpoint.training import Snapshot, TrainingRecord, read_record, write_share
from hrm.data.format import read_metadata
from hrm.errors import UserError
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.loggers import Loggers
from hrm.training.saving import Checkpoints
from hrm.training.snapshot import SMALL_TENSORS, expected_bytes
from hrm.training.state import TrainState
from tests.conftest import SMALL_MODEL

BATCH = 12
ROWS = torch.arange(BATCH, dtype=torch.int32)
STATES = torch.randn(BATCH, 3, 2)


def tensors_of(rank: int, ranks: int) -> dict[str, torch.Tensor]:
    mine = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    shared = {"optimizer/exp_avg/w": torch.ones(2)} if rank == 0 else {}
    return shared | {
        "carry/row": ROWS[mine],
        "carry/z_H": STATES[mine],
        f"metrics/{rank}/loss": torch.tensor(float(rank + 1)),
        f"random/{rank}/torch": torch.tensor([rank], dtype=torch.uint8),
    }


def written(folder: Path, config, metadata, ranks: int) -> Path:
    folder.mkdir(exist_ok=True)
    shares = [write_share(folder, 6, rank, tensors_of(rank, ranks)) for rank in range(1, ranks)]
    record = TrainingRecord(tensors_of(0, ranks), {"step": 6, "ranks": ranks})
    return save_checkpoint(folder, 6, config, metadata, {"w": torch.ones(1)}, None, record, shares)


@pytest.fixture(scope="module")
def made(tmp_path_factory, data_4x4):
    """What `save_checkpoint` needs besides tensors."""
    config = load_pretrain_config([f"data_path={data_4x4}", "run_name=x", *SMALL_MODEL])
    return config, read_metadata(data_4x4 / "train")


@pytest.mark.parametrize("writers", [1, 2, 3, 12])
@pytest.mark.parametrize("readers", [1, 2, 3, 4, 6, 12])
def test_any_number_of_ranks_reads_what_any_other_wrote(tmp_path, made, writers, readers):
    checkpoint = written(tmp_path / "run", *made, writers)
    records = [read_record(checkpoint, rank, readers, BATCH) for rank in range(readers)]
    assert torch.cat([r.tensors["carry/row"] for r in records]).equal(ROWS)
    assert torch.cat([r.tensors["carry/z_H"] for r in records]).equal(STATES)
    for rank, record in enumerate(records):
        assert len(record.tensors["carry/row"]) == BATCH // readers
        assert "optimizer/exp_avg/w" in record.tensors and "metrics/0/loss" in record.tensors
        assert (f"random/{rank}/torch" in record.tensors) == (rank < writers)
    if writers != readers:
        sums = sum(records[0].tensors[f"metrics/{rank}/loss"] for rank in range(writers))
        assert sums == writers * (writers + 1) / 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(readers=st.sampled_from([1, 2, 3, 4]), rank=st.integers(0, 3))
def test_one_file_of_several_ranks_is_read_too(tmp_path, made, readers, rank):
    """As earlier versions wrote it."""
    folder = tmp_path / f"{readers}-{rank}"
    joined = {"carry/row": ROWS, "carry/z_H": STATES}
    for other in range(3):
        own = tensors_of(other, 3)
        joined |= {name: t for name, t in own.items() if not name.startswith("carry/")}
    if not (checkpoint := folder / "step_6").exists():
        record = TrainingRecord(joined, {"step": 6, "ranks": 3})
        save_checkpoint(folder, 6, *made, {"w": torch.ones(1)}, None, record)
    rank = rank % readers
    tensors = read_record(checkpoint, rank, readers, BATCH).tensors
    assert tensors["carry/row"].equal(ROWS.chunk(readers)[rank])
    assert {f"random/{r}/torch" for r in range(3)} | {f"metrics/{r}/loss" for r in range(3)} <= {
        *tensors
    }


def test_a_checkpoint_holds_every_share_and_nothing_is_left_beside_it(tmp_path, made):
    checkpoint = written(tmp_path, *made, 3)
    assert {"training-1.safetensors", "training-2.safetensors"} <= listed_files(checkpoint)
    verify(checkpoint)
    assert load_file(checkpoint / "training-2.safetensors")["carry/row"].equal(ROWS[8:])
    assert [path.name for path in tmp_path.iterdir()] == ["step_6"]


@pytest.mark.parametrize("damage", ["missing", "flipped", "short"])
def test_a_damaged_share_is_found(tmp_path, made, damage):
    path = written(tmp_path, *made, 3) / "training-2.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[:-1])
    with pytest.raises(Damaged, match=r"training-2\.safetensors"):
        verify(path.parent)


@pytest.mark.parametrize(
    "batch_size, rows, words",
    [
        (24, 6, "not of 12 rows"),
        (BATCH, 5, "not of 6 rows"),
        (15, 6, "holds files of 2 ranks"),
    ],
)
def test_other_rows_are_refused(tmp_path, made, batch_size, rows, words):
    checkpoint = written(tmp_path, *made, 2)
    tensors = tensors_of(1, 2)
    save_file(
        tensors | {"carry/row": tensors["carry/row"][:rows].clone()},
        checkpoint / "training-1.safetensors",
    )
    write_manifest(checkpoint)
    with pytest.raises(UserError, match=words):
        for rank in range(2):
            read_record(checkpoint, rank, 2, batch_size)


def test_a_file_more_or_less_is_refused(tmp_path, made):
    checkpoint = written(tmp_path, *made, 3)
    (checkpoint / "training-2.safetensors").unlink()
    write_manifest(checkpoint)
    with pytest.raises(UserError, match="holds files of 2 ranks, not 3"):
        read_record(checkpoint, 0, 1, BATCH)


def test_what_a_killed_rank_left_is_removed(tmp_path):
    write_share(tmp_path, 3, 2, tensors_of(2, 3))
    write_share(tmp_path, 6, 1, tensors_of(1, 3))
    share = write_share(tmp_path, 6, 2, tensors_of(2, 3))  # its own of step 3 goes
    assert len([*tmp_path.iterdir()]) == 2 and share.path.is_file()
    remove_leftovers(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_share_that_cannot_be_written_is_a_mistake_of_one_line(tmp_path):
    with pytest.raises(UserError, match=r"\.step_6-training-1\.safetensors: could not be written"):
        write_share(tmp_path / "nowhere", 6, 1, tensors_of(1, 2))


def test_memory_of_a_snapshot_does_not_grow_with_the_job(made):
    """512 ranks of 48 sequences: 24,576 rows in all."""
    config, metadata = made
    model = build_for(config, metadata).train()
    state = TrainState.of(model, config, Ranks(0, 1, 0), steps=1)
    alone = expected_bytes(state, Ranks(0, 1, 0), 48)
    assert expected_bytes(state, Ranks(0, 512, 0), 512 * 48) == alone
    other = expected_bytes(state, Ranks(511, 512, 511), 512 * 48)
    carry = state.model.initial_carry(state.model.model.blank_batch(48, "meta")).named()
    assert other - SMALL_TENSORS >= sum(t.nbytes for t in carry.values()) and other < alone


@dataclass(frozen=True)
class Linked(Ranks):
    """Two ranks of one process, without a process group."""

    sent: Queue = field(default_factory=Queue)

    def gather_beside(self, mine):
        if self.is_first:
            return [mine, self.sent.get(timeout=10)]
        self.sent.put(mine)
        return []


@pytest.fixture
def two_ranks():
    sent: Queue = Queue()
    return [Linked(rank, 2, rank, sent=sent) for rank in range(2)]


def test_a_single_rank_has_no_shares():
    assert Ranks(0, 1, 0).gather_beside("mine") == ["mine"]


def saving(run_dir: Path, ranks: Ranks, made) -> Checkpoints:
    config = made[0].model_copy(update={"checkpoint_path": run_dir, "rank_timeout": 1})
    return Checkpoints(config, made[1], ranks, Loggers(), print, {})


def test_rank_0_hears_what_became_of_a_share(two_ranks, tmp_path, made):
    snapshot = Snapshot({}, None, TrainingRecord(tensors_of(1, 2), {}))
    first, second = (saving(tmp_path, ranks, made) for ranks in two_ranks)
    second._write_share(snapshot, 6)
    [share] = first._shares()
    assert share == write_share(tmp_path, 6, 1, tensors_of(1, 2))

    saving(tmp_path / "nowhere", two_ranks[1], made)._write_share(snapshot, 6)
    with pytest.raises(UserError, match=r"rank 1: .*nowhere/\.step_6-training-1.* not be written"):
        first._shares()
