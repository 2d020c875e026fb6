"""Damaged data sets: told in one line that names the file, never accepted, never a traceback."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hrm.data.format import (
    ARRAY_NAMES,
    array_digests,
    array_path,
    fingerprint,
    read_metadata,
    read_split,
    write_metadata,
)
from hrm.data.puzzle_dataset import PuzzleDataset, PuzzleDatasetConfig
from hrm.errors import UserError
from hrm.tasks.sudoku.builder import BuildOptions, build

from ..mutations import BYTE_MUTATIONS, NASTY_VALUES, assert_one_line, flipped, pick
from .test_format import write_split

CASES = 500
CHECKSUM_KEYS = ("sha256", "metadata_sha256")


@pytest.fixture(params=["train", "test"])
def split_dir(request, data_4x4, tmp_path) -> Path:
    """A split of our builder, of its own."""
    return Path(shutil.copytree(data_4x4, tmp_path / "data")) / request.param


@pytest.fixture
def foreign_dir(split_dir) -> Path:
    """The same without checksums, as others write it."""
    metadata = json.loads((split_dir / "dataset.json").read_text())
    for key in CHECKSUM_KEYS:
        del metadata[key]
    (split_dir / "dataset.json").write_text(json.dumps(metadata))
    return split_dir


def content(split_dir: Path):
    metadata, sets = read_split(split_dir)
    arrays = {
        f"{set_name}/{name}": (getattr(arrays, name).shape, getattr(arrays, name).tobytes())
        for set_name, arrays in sets.items()
        for name in ARRAY_NAMES
    }
    return metadata, arrays


def files_of(split_dir: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(split_dir.iterdir())}


def restore(files: dict[Path, bytes]) -> None:
    for path, data in files.items():
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.write_bytes(data)


def damage(files: dict[Path, bytes], rng: np.random.Generator) -> None:
    """One thing that happens to a folder."""
    path, other = (list(files)[i] for i in rng.choice(len(files), 2, replace=False))
    kind = rng.integers(20)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.unlink()
        path.mkdir()
    elif kind == 2:
        path.write_bytes(files[other])
        other.write_bytes(files[path])
    elif kind == 3:
        path.write_bytes(files[other])
    elif kind == 4:
        path.unlink()
        path.symlink_to(path.name)
    elif kind < 10:
        metadata_path = next(p for p in files if p.name == "dataset.json")
        metadata = json.loads(files[metadata_path])
        key = pick(rng, [*metadata, "new"])
        if rng.integers(4):
            metadata[key] = pick(rng, NASTY_VALUES)
        else:
            metadata.pop(key, None)
        metadata_path.write_text(json.dumps(metadata))
    else:
        path.write_bytes(pick(rng, BYTE_MUTATIONS)(files[path], rng))


def test_damage_to_our_data_is_never_accepted(split_dir):
    files, original = files_of(split_dir), content(split_dir)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(CASES):
        damage(files, rng)
        try:
            assert content(split_dir) == original
        except UserError as error:
            assert_one_line(error, str(split_dir))
            refused += 1
        restore(files)
    assert refused > 0.97 * CASES  # the rest wrote the same bytes, or JSON that says the same
    assert content(split_dir) == original


def test_damage_to_foreign_data_is_refused_or_still_fits_the_contract(foreign_dir):
    files = files_of(foreign_dir)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(CASES):
        damage(files, rng)
        try:
            for test in (False, True):
                config = PuzzleDatasetConfig(
                    seed=0,
                    dataset_path=foreign_dir.parent,
                    global_batch_size=8,
                    test_set_mode=test,
                    epochs_per_iter=1,
                    rank=0,
                    num_replicas=1,
                )
                dataset = PuzzleDataset(config, foreign_dir.name)
                _, batch, _ = dataset.batch(0, 0)
                assert 0 <= batch["inputs"].min() <= batch["inputs"].max()
                assert batch["inputs"].max() < dataset.metadata.vocab_size
                assert batch["puzzle_identifiers"].max() < dataset.metadata.num_puzzle_identifiers
        except UserError as error:
            assert_one_line(error)
            refused += 1
        restore(files)
    assert refused > CASES / 4


@pytest.mark.parametrize("split_dir", ["test"], indirect=True)
def test_any_flipped_byte_of_our_metadata_is_noticed(split_dir):
    path = split_dir / "dataset.json"
    data = path.read_bytes()
    rng = np.random.default_rng(2)
    for position in range(len(data)):
        path.write_bytes(flipped(data, position, int(rng.integers(8))))
        with pytest.raises(UserError) as caught:
            read_split(split_dir)
        assert_one_line(caught.value, str(path))


@pytest.mark.parametrize("name", ARRAY_NAMES)
def test_any_flipped_bit_of_our_arrays_is_told_with_its_file(split_dir, name):
    path = array_path(split_dir, split_dir.name, name)
    data = path.read_bytes()
    rng = np.random.default_rng(3)
    for position in rng.integers(len(data), size=20):
        path.write_bytes(flipped(data, int(position), int(rng.integers(8))))
        with pytest.raises(UserError) as caught:
            read_split(split_dir)
        assert str(caught.value) == f"{path}: damaged (checksum differs); build it again"


@pytest.mark.parametrize("key", CHECKSUM_KEYS)
def test_one_checksum_needs_the_other(split_dir, key):
    path = split_dir / "dataset.json"
    metadata = json.loads(path.read_text())
    del metadata[key]
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=r"dataset.json: damaged \(checksum differs\)"):
        read_metadata(split_dir)


def test_checksums_that_leave_out_a_file_are_refused(split_dir):
    metadata = read_metadata(split_dir)
    digests = array_digests(split_dir, metadata)
    digests.pop(f"{split_dir.name}__inputs.npy")
    write_metadata(split_dir, metadata, digests)
    with pytest.raises(UserError, match="sha256 does not name the files of its sets"):
        read_split(split_dir)


def test_metadata_without_checksums_are_written_and_read(split_dir, tmp_path):
    """As a checkpoint keeps them."""
    metadata = read_metadata(split_dir)
    write_metadata(tmp_path, metadata)
    assert read_metadata(tmp_path) == metadata
    assert not set(CHECKSUM_KEYS) & json.loads((tmp_path / "dataset.json").read_text()).keys()


def test_a_pipe_is_not_waited_for(split_dir):
    for path in (split_dir / f"{split_dir.name}__inputs.npy", split_dir / "dataset.json"):
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(UserError) as caught:
            read_split(split_dir)
        assert_one_line(caught.value, str(path), "not a file")


def test_a_fingerprint_names_the_content(tmp_path):
    def built(name: str, **options) -> str:
        build(
            BuildOptions(
                output_dir=tmp_path / name, generate=(2, 2), num_train=20, num_test=5, **options
            )
        )
        return fingerprint(tmp_path / name / "train", read_metadata(tmp_path / name / "train"))

    assert built("a") == built("b") != built("other", seed=1)
    assert built("more", num_aug=1) != built("original", format="original")


def test_a_fingerprint_needs_no_checksums(foreign_dir, data_4x4):
    metadata = read_metadata(foreign_dir)
    ours = data_4x4 / foreign_dir.name
    original = fingerprint(foreign_dir, metadata)
    assert original == fingerprint(ours, read_metadata(ours))
    path = array_path(foreign_dir, foreign_dir.name, "labels")
    labels = np.load(path)
    np.save(path, np.roll(labels, 1, axis=0))
    read_split(foreign_dir)
    assert fingerprint(foreign_dir, metadata) != original


def test_a_fingerprint_of_a_foreign_maze(tmp_path):
    maze = write_split(tmp_path / "maze" / "train", {"vocab_size": 6, "set_names": "ignored"})
    metadata = read_metadata(maze)
    assert fingerprint(maze, metadata) == fingerprint(maze, metadata)
    changed = metadata.model_copy(update={"ignore_label_id": None})
    assert fingerprint(maze, changed) != fingerprint(maze, metadata)


def test_a_pickle_in_an_array_is_never_loaded(foreign_dir, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    for name in ARRAY_NAMES:
        path = array_path(foreign_dir, foreign_dir.name, name)
        data = path.read_bytes()
        np.save(path, np.array([Payload()], object), allow_pickle=True)
        with pytest.raises(UserError) as caught:
            read_split(foreign_dir)
        assert_one_line(caught.value, str(path))
        path.write_bytes(data)
    assert not (tmp_path / "executed").exists()
