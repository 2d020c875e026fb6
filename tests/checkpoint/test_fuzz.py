"""Damaged and hostile checkpoints: set aside or told in one line; never taken, never executed."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from hrm.checkpoint import load_checkpoint, step_dir
from hrm.checkpoint.layout import MANIFEST_FILE
from hrm.checkpoint.manifest import Damaged, verify, write_manifest
from hrm.checkpoint.training import newest_whole
from hrm.errors import UserError

from ..mutations import BYTE_MUTATIONS, Rng, assert_one_line, pick
from .conftest import Fixture

CASES = 700
UNREAD = ("training.safetensors", "model.safetensors")  # by load_checkpoint, with an average


def mutate(run: Fixture, rng: Rng) -> tuple[Path, Path]:
    """One thing that happens to a file of the newest checkpoint; what may have changed."""
    files = [path for path in run.whole if run.newest in path.parents]
    path = pick(rng, [p for p in files if p.parent == run.newest or rng.random() < 0.2])
    other = step_dir(run.run_dir, 3) / path.relative_to(run.newest)
    kind = rng.integers(20)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.unlink()
        path.mkdir()
    elif kind == 2:
        path.unlink()
        path.symlink_to(pick(rng, (path.name, "nowhere", "/dev/zero", "/dev/null", other)))
    elif kind == 3:
        path.write_bytes(run.whole[other])
        other.write_bytes(run.whole[path])
    elif kind == 4:
        path.write_bytes(run.whole[pick(rng, files)])
    elif kind == 5:
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_bytes(pick(rng, BYTE_MUTATIONS)(run.whole[path], rng))
    return path, other


def test_damage_is_never_accepted(run):
    rng = np.random.default_rng(0)
    refused = 0
    for case in range(CASES):
        path, other = mutate(run, rng)
        is_whole = run.is_whole(run.newest)
        counts = path.parent == run.newest and path.name not in UNREAD
        for read in (verify, load_checkpoint) if counts or case % 10 == 0 else (verify,):
            try:
                read(run.newest)
                assert is_whole or (read is load_checkpoint and not counts)
            except UserError as error:
                assert_one_line(error, str(run.newest))
        said: list[str] = []
        found = newest_whole(run.run_dir, said.append)
        if found != run.newest:
            assert "set aside as step_6.damaged" in said[0] and "\n" not in said[0]
            refused += 1
        assert found is None or run.is_whole(found)
        run.mend(path, other)
    assert refused > 0.9 * CASES
    assert run.resume() == 6


def test_swapped_and_renamed_steps_are_told(run):
    older = step_dir(run.run_dir, 3)
    run.newest.rename(run.run_dir / "x")
    older.rename(run.newest)
    (run.run_dir / "x").rename(older)
    for path in (older, run.newest):
        with pytest.raises(UserError, match="another step") as caught:
            load_checkpoint(path)
        assert_one_line(caught.value)
    assert run.resume() == 0

    run.restore()
    run.newest.rename(step_dir(run.run_dir, 20))
    assert run.resume() == 3
    run.restore()
    assert load_checkpoint(run.newest.rename(run.run_dir / "moved_step_6")).step is None


def test_odd_names_are_no_steps(run):
    for name in ("step_007", "step_", "step_1x", "step_-1", "step_\u0661", "step_" + "9" * 40):
        (run.run_dir / name).mkdir()
    (run.run_dir / "step_9").write_text("a file")
    (run.run_dir / "step_8").symlink_to("nowhere")
    assert run.resume() == 6


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "a\0b", "\ud800", "a/../../b", "x\ny", "n" * 5000]
)
def test_a_manifest_names_only_what_is_inside(run, name):
    path = run.newest / MANIFEST_FILE
    body = json.loads(path.read_text())
    body["files"][name] = {"bytes": 0, "sha256": ""}
    write_sealed(path, body)
    with pytest.raises(UserError) as caught:
        verify(run.newest)
    assert_one_line(caught.value)


def write_sealed(path: Path, body: dict[str, Any]) -> None:
    """With the checksum that belongs to it."""
    from hrm.checkpoint.manifest import _digest_of

    body.pop("sha256", None)
    body["sha256"] = _digest_of(body)
    path.write_text(json.dumps(body))


@pytest.mark.parametrize(
    "files", [[], None, "x", {"model.safetensors": None}, {"model.safetensors": {"bytes": "x"}}]
)
def test_an_odd_manifest_is_told(run, files):
    path = run.newest / MANIFEST_FILE
    write_sealed(path, {"format": 1, "files": files})
    for read in (verify, load_checkpoint):
        with pytest.raises(Damaged):
            read(run.newest)
    assert run.resume() == 3


def test_a_manifest_that_leaves_out_a_file_is_not_enough(run):
    path = run.newest / MANIFEST_FILE
    for name in ("training.safetensors", "model.safetensors", "training.json", "all_config.yaml"):
        body = json.loads(path.read_text())
        del body["files"][name]
        write_sealed(path, body)
        assert run.resume() == 3
        run.restore()


class Payload:
    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_never_executed(run, tmp_path):
    executed = tmp_path / "executed"
    attacks = [pickle.dumps(Payload(executed)), pickle.dumps(Payload(executed), protocol=0)]
    torch.save({"x": Payload(executed)}, tmp_path / "zip")
    torch.save({"x": Payload(executed)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    attacks += [(tmp_path / name).read_bytes() for name in ("zip", "old")]
    shutil.copy(run.newest / "all_config.yaml", tmp_path)
    for attack in attacks:
        single = tmp_path / "step_6"
        single.write_bytes(attack)
        with pytest.raises(UserError) as caught:
            load_checkpoint(single)
        assert_one_line(caught.value, str(single))
        for name in ("model.safetensors", "ema.safetensors", "training.safetensors"):
            (run.newest / name).write_bytes(attack)
        write_manifest(run.newest)
        for read in (lambda: load_checkpoint(run.newest), run.resume):
            with pytest.raises(UserError) as caught:
                read()
            assert_one_line(caught.value)
        run.restore()
    assert not executed.exists()


def test_a_single_file_of_one_repeated_value_takes_no_memory(run, tmp_path):
    shutil.copy(run.newest / "all_config.yaml", tmp_path)
    state = load_file(run.newest / "model.safetensors")
    table = "model.inner.puzzle_emb.weights"
    state[table] = torch.zeros(1, 1).expand(2**40, 16)
    torch.save(state, tmp_path / "step_6")
    with pytest.raises(UserError, match="larger than its values"):
        load_checkpoint(tmp_path / "step_6")


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 2**31 - 1},
        {"num_puzzle_identifiers": 2**31 - 1},
        {"seq_len": 2**31 - 1, "grid_shape": None},
        {"seq_len": 2**31 - 1, "vocab_size": 2**31 - 1, "grid_shape": None},
        {"vocab_size": 2**80},
        {"vocab_size": 0},
        {"sets": "x"},
    ],
)
def test_hostile_metadata(run, changes):
    path = run.newest / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_manifest(run.newest)
    with pytest.raises(UserError) as caught:
        load_checkpoint(run.newest)
    assert_one_line(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 2**40},
        {"hidden_size": 2**62, "num_heads": 1},
        {"H_layers": 10**9},
        {"L_layers": 2**62},
        {"expansion": 1e300},
        {"puzzle_emb_ndim": 2**60},
        {"attention_bias": "grid"},
        {"pos_encodings": "learned"},
    ],
)
def test_hostile_architecture(run, changes):
    path = run.newest / "all_config.yaml"
    config = yaml.safe_load(path.read_text())
    config["arch"] |= changes
    path.write_text(yaml.safe_dump(config))
    write_manifest(run.newest)
    for read in (lambda: load_checkpoint(run.newest), run.resume):
        with pytest.raises(UserError) as caught:
            read()
        assert_one_line(caught.value)


Change = Callable[[dict[str, torch.Tensor], str], None]


def _drop(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def _longer(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = torch.cat(
        [tensors[name].reshape(-1), torch.zeros(1, dtype=tensors[name].dtype)]
    )


def _other_dtype(tensors: dict[str, torch.Tensor], name: str) -> None:
    old = tensors[name]
    tensors[name] = old.to(torch.int16 if old.is_floating_point() else torch.float64)


def _empty(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = tensors[name].reshape(-1)[:0]


@pytest.mark.parametrize("change", [_drop, _longer, _other_dtype, _empty])
@pytest.mark.parametrize("file", ["model", "ema", "training"])
def test_hostile_tensors(run, file, change: Change):
    path = run.newest / f"{file}.safetensors"
    whole: Mapping[str, torch.Tensor] = load_file(path)
    for name in whole:
        tensors = dict(whole)
        change(tensors, name)
        save_file(tensors, path)
        write_manifest(run.newest)
        if name.startswith("metrics/") and change is not _longer and change is not _empty:
            continue  # sums that lack one, or are of another precision, are sums
        with pytest.raises(UserError) as caught:
            run.resume()
        assert_one_line(caught.value)
        if file == "ema":
            with pytest.raises(UserError, match="tensor"):
                load_checkpoint(run.newest)


@pytest.mark.parametrize(
    "name, value",
    [
        ("carry/current_data/inputs", 5),
        ("carry/current_data/inputs", -1),
        ("carry/current_data/labels", -5),
        ("carry/current_data/labels", 10**6),
        ("carry/current_data/puzzle_identifiers", 10**6),
        ("random/0/numpy_position", 10**6),
        ("random/0/numpy_position", -1),
        ("random/0/python", 2**40),
        ("random/0/python", -1),
        ("random/0/torch", 255),
    ],
)
def test_hostile_contents(run, name, value):
    path = run.newest / "training.safetensors"
    tensors = load_file(path)
    tensors[name].fill_(value)
    save_file(tensors, path)
    write_manifest(run.newest)
    with pytest.raises(UserError) as caught:
        run.resume()
    assert_one_line(caught.value)
