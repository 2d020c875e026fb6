"""Whether a data set is the one that a model was trained on, and what follows where it is not."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from hrm.data.arrays import open_array
from hrm.data.format import (
    IDENTIFIERS_FILE,
    METADATA_FILE,
    TRAIN_SPLIT,
    DatasetMetadata,
    array_path,
    fingerprint,
    has_split,
    read_metadata,
)
from hrm.data.split import rows_among
from hrm.errors import UserError
from hrm.files import file_digest

SHOWN_DIGITS = 8  # of a fingerprint


@dataclass(frozen=True)
class Origin:
    """What names a data set; None where that is not known."""

    data: str | None = None  # fingerprint of the training split
    identifiers: str | None = None  # SHA-256 of `identifiers.json`


@dataclass(frozen=True)
class Meeting:
    """What a model and a data set have to do with each other."""

    knows_identifiers: bool  # the data set's identifiers are rows of the model's table
    seen: str | None = None  # why the model may have been trained on these puzzles
    note: str | None = None  # what is not known of that


def origin_of(data_path: Path) -> Origin:
    """What names the data set in a folder.

    Raises:
        UserError: its training split is damaged.
    """
    file = data_path / TRAIN_SPLIT / METADATA_FILE
    data = _fingerprint(file.resolve(), file.stat().st_mtime_ns) if os.path.isfile(file) else None
    return Origin(data, identifiers_digest(data_path))


@lru_cache(maxsize=64)
def _fingerprint(metadata_file: Path, changed: int) -> str:
    return fingerprint(metadata_file.parent, read_metadata(metadata_file.parent))


def identifiers_digest(data_path: Path) -> str | None:
    """SHA-256 of a data set's `identifiers.json`, None where it has none.

    Raises:
        UserError: it cannot be read.
    """
    file = data_path / IDENTIFIERS_FILE
    try:
        return file_digest(file) if os.path.isfile(file) else None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def knows_identifiers(trained: Origin, data_path: Path) -> bool:
    """Whether a data set's identifiers mean what they meant in training.

    Where the model's checkpoint does not say which data it was trained on, they are taken to.
    """
    if trained.identifiers is None and trained.data is None:
        return True
    given = identifiers_digest(data_path)
    if trained.identifiers is not None and given is not None:
        return trained.identifiers == given
    return trained.data == origin_of(data_path).data


def compare_data(trained: Origin, trained_path: Path, data_path: Path, split: str) -> Meeting:
    """Compare a data set with the one that a model was trained on.

    Args:
        trained_path: where the training data were.
        split: whose puzzles the model is to be given; it is there, and fits the model.

    Raises:
        UserError: one of the files that are compared is damaged.
    """
    known = knows_identifiers(trained, data_path)
    if trained.data is None:
        return Meeting(known)
    given, folder = origin_of(data_path), data_path / split
    if given.data == trained.data:
        return Meeting(known)
    if given.data is None:
        note = f"{data_path}: has no training split to tell it by; whether the model has seen its "
        return Meeting(known, note=f"{note}puzzles is not known")
    if data_path.resolve() == trained_path.resolve():
        prints = f"{given.data[:SHOWN_DIGITS]}, not {trained.data[:SHOWN_DIGITS]}"
        return Meeting(
            known,
            f"{data_path}: its training split is not the one that the model was trained on "
            f"(fingerprint {prints}), so puzzles of {split} may have been training puzzles",
        )
    opening = f"{data_path}: not the data that the model was trained on"
    if origin_of(trained_path).data != trained.data:
        note = f"{opening}, which is not here to compare ({trained_path}); "
        return Meeting(known, note=f"{note}whether it has seen these puzzles is not known")
    rows = _rows(folder)
    if count := int(rows_among(rows, _rows(trained_path / TRAIN_SPLIT)).sum()):
        return Meeting(
            known, f"{folder}: {count:,} of {len(rows):,} puzzles are in {trained_path}/train"
        )
    note = f"{opening}; none of its puzzles is a training puzzle as it stands, symmetric ones were "
    return Meeting(known, note=f"{note}not looked for")


def unknown_identifiers(data_path: Path, metadata: DatasetMetadata) -> str:
    """What is said where a data set's identifiers are not those of training; "" where all are one.

    Args:
        metadata: the model's.
    """
    if metadata.num_puzzle_identifiers == 1:
        return ""
    return (
        f"{data_path}: its {IDENTIFIERS_FILE} is not that of training, so all of its puzzles "
        f"count as unseen (identifier {metadata.unseen_identifier})"
    )


def _rows(split_dir: Path) -> np.ndarray:
    """Inputs of all sets of a split, [N, seq_len]."""
    if not has_split(split_dir.parent, split_dir.name):
        return np.empty((0, 0), np.uint8)
    sets = read_metadata(split_dir).sets
    arrays = [open_array(array_path(split_dir, name, "inputs")) for name in sets]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)  # not copied into memory
