"""When checkpoints and lines of metrics are written, in one process."""

import errno
import json
import shutil
import signal
from threading import Event, Thread, Timer

import pytest
import torch

from hrm.checkpoint import folder, saved_steps, step_dir
from hrm.data.format import read_metadata
from hrm.errors import UserError
from hrm.ranks import Ranks
from hrm.signals import Interrupted
from hrm.training import saving
from hrm.training.config import load_pretrain_config
from hrm.training.loggers import Loggers
from hrm.training.loop import train
from hrm.training.run_folder import check_is_shared
from hrm.training.saving import Checkpoints
from hrm.training.snapshot import _shared_sums
from tests.conftest import SMALL_MODEL
from tests.training.test_unattended import signal_when


@pytest.fixture
def tiny(data_4x4, tmp_path):
    """Trains 3 steps an epoch, into `tmp_path/run`."""

    def run(*keys: str):
        keys = (f"data_path={data_4x4}", *SMALL_MODEL, "arch.hidden_size=16", *keys)
        keys += ("arch.puzzle_emb_ndim=16", "global_batch_size=32", "run_name=run", "resume=auto")
        config = load_pretrain_config([*keys, f"checkpoint_path={tmp_path / 'run'}"])
        return train(config, Ranks(0, 1, 0), torch.device("cpu"))

    return run


def test_evaluations_checkpoints_are_kept_where_the_interval_ends_too(tiny):
    keys = ("epochs=4", "eval_interval=1", "checkpoint_interval=1", "keep_checkpoints=1")
    run_dir = tiny(*keys, "checkpoint_every_eval=true")
    assert saved_steps(run_dir) == [3, 6, 9, 12]


def test_checkpoints_that_hold_outputs_are_kept(tiny):
    run_dir = tiny("epochs=4", "eval_interval=1", "keep_checkpoints=1", "eval_save_outputs=[steps]")
    assert saved_steps(run_dir) == [3, 6, 9, 12]
    assert all((step_dir(run_dir, s) / "predictions.safetensors").is_file() for s in (3, 6, 9, 12))


def test_outputs_that_cannot_be_saved_do_not_end_a_run(tiny, monkeypatch, capsys):
    write = folder.save_tensors

    def full(tensors, path):
        if "predictions" in path.name:
            raise OSError(errno.ENOSPC, "full")
        write(tensors, path)

    monkeypatch.setattr(folder, "save_tensors", full)
    run_dir = tiny("epochs=2", "eval_interval=1", "eval_save_outputs=[steps]")
    assert saved_steps(run_dir)[-1] == 6
    warned = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    for step, line in zip((3, 6), warned, strict=True):
        assert f"step_{step}/predictions.safetensors: could not be written" in line
        assert "training goes on" in line


def test_a_shorter_log_interval_counts_from_the_last_line(tiny):
    keys = ("epochs=2", "eval_interval=1", "checkpoint_every_eval=true")
    run_dir = tiny(*keys, "log_interval=100")
    shutil.rmtree(step_dir(run_dir, 6))
    tiny(*keys, "log_interval=2")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/lm_loss" in line] == [4, 6]


def test_generators_begin_as_the_seed_says(tiny):
    """Else runs of the same seed would differ in what they save."""
    states = []
    for _ in range(2):
        run_dir = tiny("epochs=1", "eval_interval=null")
        states.append((step_dir(run_dir, 3) / "training.safetensors").read_bytes())
        shutil.rmtree(run_dir)
    assert states[0] == states[1]


def test_a_rank_that_does_not_see_the_folder_says_where_to_put_it(tmp_path, monkeypatch):
    check_is_shared(tmp_path)
    monkeypatch.setattr("hrm.training.run_folder.SHOWN_SECONDS", 0)
    with pytest.raises(UserError, match=r"nowhere: made by rank 0.*share a file system"):
        check_is_shared(tmp_path / "nowhere")


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_sums_of_metrics_are_neither_lost_nor_counted_twice(ranks):
    """Three ranks saved 1, 2 and 3."""
    saved = {f"metrics/{rank}/loss": torch.tensor(rank + 1.0) for rank in range(3)}
    cpu = torch.device("cpu")
    sums = [_shared_sums(saved, 3, Ranks(r, ranks, r), cpu)["loss"].item() for r in range(ranks)]
    assert sums == ([1, 2, 3] if ranks == 3 else [6, *[0] * (ranks - 1)])


@pytest.mark.parametrize(
    "error, waits", [(None, True), (UserError, True), (SystemExit, True), (Interrupted, False)]
)
def test_only_an_interruption_does_not_wait_for_what_is_being_written(
    data_4x4, tmp_path, error, waits
):
    config = load_pretrain_config([f"data_path={data_4x4}", *SMALL_MODEL])
    alone, metadata = Ranks(0, 1, 0), read_metadata(data_4x4 / "train")
    checkpoints, written = Checkpoints(config, metadata, alone, Loggers(), print, {}), Event()
    checkpoints._thread = Thread(target=written.wait, daemon=True)
    checkpoints._thread.start()
    timer = Timer(0.1 if waits else 20, written.set)
    timer.start()
    checkpoints.finish_unless_interrupted(error)
    assert written.is_set() == waits
    timer.cancel()
    written.set()


def test_a_second_ctrl_c_ends_a_run_that_is_saving(tiny, tmp_path, monkeypatch):
    write, room = saving.save_checkpoint, Event()

    def waiting(*arguments):
        room.wait()
        return write(*arguments)

    monkeypatch.setattr(saving, "save_checkpoint", waiting)
    for _ in range(2):
        signal_when(monkeypatch, "begin_step", signal.SIGINT, call=2)
    timer = Timer(120, room.set)
    timer.start()
    with pytest.raises(Interrupted):
        tiny("epochs=2", "eval_interval=null", "checkpoint_interval=1")
    assert not room.is_set() and saved_steps(tmp_path / "run") == []
    timer.cancel()
    room.set()
