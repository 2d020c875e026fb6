"""A finished run whose checkpoints may be damaged, and mended again."""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from hrm.checkpoint import saved_steps, step_dir
from hrm.checkpoint.layout import MANIFEST_FILE
from hrm.ranks import Ranks
from hrm.training.config import PretrainConfig, load_pretrain_config
from hrm.training.loop import check_before_work, load, train
from hrm.training.run_folder import check_position, prepare
from hrm.training.splits import open_data
from hrm.training.state import TrainState
from tests.conftest import SMALL_MODEL

ALONE = Ranks(0, 1, 0)
TINY = ("arch.hidden_size=16", "arch.num_heads=2", "arch.puzzle_emb_ndim=16")


@dataclass
class Fixture:
    """A finished run, and a state that its checkpoints fit."""

    config: PretrainConfig
    digest: str
    state: TrainState
    sizes: list[int]
    whole: dict[Path, bytes]  # of both checkpoints

    @property
    def run_dir(self) -> Path:
        return self.config.run_dir

    @property
    def newest(self) -> Path:
        return step_dir(self.run_dir, 6)

    def restore(self) -> None:
        """Both checkpoints as they were."""
        for path in self.run_dir.glob("*step_*"):
            path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
        for path, data in self.whole.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def mend(self, *paths: Path) -> None:
        """Files of checkpoints, one of which may have been set aside, as they were."""
        for aside in self.run_dir.glob("*.damaged"):
            aside.rename(aside.with_suffix(""))
        for path in paths:
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(self.whole[path])

    def is_whole(self, checkpoint: Path) -> bool:
        """Whether every file that counts is as it was; a manifest is, if it still says the same."""
        of_it = {path: data for path, data in self.whole.items() if checkpoint in path.parents}
        return all(
            path.name == MANIFEST_FILE or (path.is_file() and path.read_bytes() == data)
            for path, data in of_it.items()
        )

    def resume(self) -> int:
        """Go on in this process, up to the first step; the step to go on from."""
        with ExitStack() as cleanup:
            start = prepare(self.config, self.digest, lambda line: None, cleanup)
            if start is None:
                return 0
            check_position(start, self.sizes)
            load(self.state, start, self.config, ALONE)
        return self.state.step


@pytest.fixture(scope="module")
def trained(data_4x4, tmp_path_factory) -> Fixture:
    run_dir = tmp_path_factory.mktemp("fuzzed") / "run"
    keys = [f"data_path={data_4x4}", *SMALL_MODEL, *TINY, "global_batch_size=32", "epochs=2"]
    keys += ["ema=true", "checkpoint_interval=3", "log_interval=4", "puzzle_emb_lr=1e-3"]
    keys += [f"checkpoint_path={run_dir}", "run_name=run", "eval_interval=null", "resume=auto"]
    config = load_pretrain_config(keys)
    train(config, ALONE, torch.device("cpu"))
    assert saved_steps(run_dir) == [3, 6]
    files = [p for step in (3, 6) for p in step_dir(run_dir, step).rglob("*") if p.is_file()]
    train_set, _ = open_data(config, ALONE)
    return Fixture(
        config=config,
        digest=check_before_work(config, train_set),
        state=TrainState.create(config, train_set.metadata, torch.device("cpu"), ALONE),
        sizes=[train_set.batches_per_iteration(0)],
        whole={path: path.read_bytes() for path in sorted(files)},
    )


@pytest.fixture
def run(trained) -> Fixture:
    trained.restore()
    return trained
