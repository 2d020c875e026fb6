"""Writing data sets, for any builder: whole or not at all, and with bounded memory.

Shapes: T tokens per example.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hrm.data.format import (
    IDENTIFIERS_FILE,
    DatasetMetadata,
    array_digests,
    array_path,
    write_metadata,
)
from hrm.errors import UserError


@contextmanager
def new_dataset(
    output_dir: Path, overwrite: bool = False, source_dir: Path | None = None
) -> Iterator[Path]:
    """A folder to write a data set into, which becomes `output_dir` when all went well.

    It lies beside `output_dir` and is removed on any failure, with the parents made for it.

    Args:
        overwrite: a data set that is there is replaced, at the very end.
        source_dir: what is read, so that it is not overwritten.

    Raises:
        UserError: `output_dir` is there or cannot be written, or the disk is full.
    """
    # Resolved, so that the temporary folder lies on the same file system as a link's target.
    final, shown = output_dir.resolve(), f"--output-dir {output_dir}"
    _check_free(final, shown, overwrite)
    if source_dir is not None:
        source = source_dir.resolve()
        if source == final or final in source.parents:
            raise UserError(f"{shown} holds --source-dir {source_dir}; choose another")
    try:
        with _temporary_sibling(final) as building:
            yield building
            _move_into_place(building, final)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"{shown}: the disk is full; free some space or choose another folder (nothing "
                "was left behind)"
            ) from None
        named = f" ({error.filename})" if error.filename else ""
        raise UserError(f"{shown}: {error.strerror or error}{named}; choose another folder") from (
            None
        )


def _check_free(final: Path, shown: str, overwrite: bool) -> None:
    if final.exists() and not final.is_dir():
        raise UserError(f"{shown} is not a folder; choose another")
    if not final.exists() or not any(final.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{shown} exists; delete it, choose another, or pass --overwrite")
    if not (final / IDENTIFIERS_FILE).is_file():
        raise UserError(
            f"{shown} is not a data set (no {IDENTIFIERS_FILE}), so --overwrite leaves it alone; "
            "choose another"
        )


@contextmanager
def _temporary_sibling(output_dir: Path) -> Iterator[Path]:
    made = [parent for parent in output_dir.parents if not parent.exists()]  # innermost first
    building = output_dir.parent / f".{output_dir.name}.building-{secrets.token_hex(4)}"
    try:
        building.mkdir(parents=True)
        yield building
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def _move_into_place(building: Path, output_dir: Path) -> None:
    if not output_dir.exists() or not any(output_dir.iterdir()):
        os.replace(building, output_dir)
        return
    old = building.with_name(building.name.replace("building", "old"))
    os.replace(output_dir, old)
    try:
        os.replace(building, output_dir)
    except BaseException:
        os.replace(old, output_dir)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_identifiers(dataset_dir: Path, names: Iterable[str]) -> None:
    """Write `identifiers.json`, one name a line; there may be millions."""
    with open(dataset_dir / IDENTIFIERS_FILE, "w", encoding="utf-8") as file:
        for index, name in enumerate(names):
            file.write(("[" if index == 0 else ",\n") + json.dumps(name))
        file.write("]\n")


def write_split(
    split_dir: Path,
    metadata: DatasetMetadata,
    examples: Iterable[tuple[np.ndarray, np.ndarray]],
    identifiers: np.ndarray,
    versions: int,
) -> None:
    """Write a split of one set, whose groups have equally many puzzles of one example each.

    Args:
        examples: chunks of inputs and labels, [n, T] uint8 each, `total_groups · versions` in all;
            the versions of a group follow one another.
        identifiers: of each group, [groups] integers.
        versions: puzzles of each group.
    """
    split_dir.mkdir()
    [set_name] = metadata.sets
    count = len(identifiers) * versions
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, metadata.seq_len)}
    # Written in sequence, not through a memory map, where a full disk would kill the process.
    with (
        open(array_path(split_dir, set_name, "inputs"), "wb") as inputs_file,
        open(array_path(split_dir, set_name, "labels"), "wb") as labels_file,
    ):
        for file in (inputs_file, labels_file):
            np.lib.format.write_array_header_1_0(file, header)
        for inputs, labels in examples:
            inputs_file.write(np.ascontiguousarray(inputs).data)
            labels_file.write(np.ascontiguousarray(labels).data)
    index_dtype = np.dtype(np.int32 if count < 2**31 else np.int64)
    arrays = {
        "puzzle_identifiers": np.repeat(identifiers.astype(np.int32), versions),
        "puzzle_indices": np.arange(count + 1, dtype=index_dtype),
        "group_indices": np.arange(0, count + 1, versions, dtype=index_dtype),
    }
    for name, array in arrays.items():
        np.save(array_path(split_dir, set_name, name), array)
    write_metadata(split_dir, metadata, array_digests(split_dir, metadata))
