"""What is moved to its place is on the disk before: a power failure leaves nothing half-written."""

import os
import sys
from pathlib import Path

import pytest
import torch

from hrm.data.writer import new_dataset
from hrm.files import atomic_folder, atomic_write
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.loop import train
from tests.conftest import SMALL_MODEL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Disk:
    """What is brought to the disk, and what is moved to where, in this order."""

    def __init__(self, monkeypatch):
        self.events: list[tuple[str, Path]] = []
        self.sources: dict[Path, Path] = {}  # of what was moved
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            fsync(descriptor)
            self.events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

        monkeypatch.setattr(os, "fsync", synced)
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self._moving(getattr(os, name)))

    def _moving(self, move):
        def moved(source, target, **more) -> None:
            move(source, target, **more)
            self.events.append(("move", Path(target)))
            self.sources[Path(target)] = Path(source)

        return moved

    def synced_before(self, target: Path) -> set[Path]:
        """By the names that they had until `target` was moved to its place."""
        end = self.events.index(("move", target))
        return {path for kind, path in self.events[:end] if kind == "sync"}

    def synced_after(self, target: Path) -> set[Path]:
        start = self.events.index(("move", target))
        return {path for kind, path in self.events[start:] if kind == "sync"}

    def assert_whole(self, target: Path) -> None:
        """All of it was on the disk before it was moved to its place."""
        source = self.sources[target]
        parts = [source / path.relative_to(target) for path in (target, *target.rglob("*"))]
        assert {*parts} - self.synced_before(target) == set()


@pytest.fixture
def disk(monkeypatch) -> Disk:
    return Disk(monkeypatch)


def test_a_checkpoint_and_the_metrics_up_to_it(data_4x4, tmp_path, disk):
    run_dir = tmp_path / "run"
    keys = [f"data_path={data_4x4}", f"checkpoint_path={run_dir}", "run_name=run", *SMALL_MODEL]
    keys += ["global_batch_size=32", "epochs=1", "eval_interval=null", "ema=true"]
    train(load_pretrain_config(keys), Ranks(0, 1, 0), torch.device("cpu"))
    checkpoint = run_dir / "step_3"
    assert {p.name for p in checkpoint.iterdir()} > {"ema.safetensors", "manifest.json", "source"}
    disk.assert_whole(checkpoint)
    assert run_dir / "metrics.jsonl" in disk.synced_before(checkpoint)
    assert run_dir in disk.synced_after(checkpoint)


def test_a_data_set(tmp_path, disk):
    with new_dataset(tmp_path / "data") as folder:
        (folder / "train").mkdir()
        for name in ("identifiers.json", "train/all__inputs.npy"):
            (folder / name).write_text("x")
    disk.assert_whole(tmp_path / "data")


def test_a_folder(tmp_path, disk):
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text("x")
    disk.assert_whole(tmp_path / "folder")


def test_a_file(tmp_path, disk):
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("x")
    disk.assert_whole(tmp_path / "file")
