"""Writing data sets, for any builder: whole or not at all, and with bounded memory.

Shapes: T tokens per example.
"""

import errno
import json
import os
import secrets
import shutil
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from hrm.data.format import (
    IDENTIFIERS_FILE,
    METADATA_FILE,
    TOKEN_ARRAYS,
    DatasetMetadata,
    array_digests,
    array_path,
    write_metadata,
)
from hrm.errors import UserError
from hrm.files import replace_folder, sync_tree

ORIGINAL_KEYS = (
    *("pad_id", "ignore_label_id", "blank_identifier_id", "vocab_size", "seq_len"),
    *("num_puzzle_identifiers", "total_groups", "mean_puzzle_examples", "total_puzzles", "sets"),
)


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
    try:
        _check_free(final, shown, overwrite)
        if source_dir is not None:
            refuse_source(output_dir, "--source-dir", source_dir)
        with _temporary_sibling(final) as building:
            yield building
            sync_tree(building)
            _check_free(final, shown, overwrite)  # another build may have ended meanwhile
            replace_folder(building, final)
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


def refuse_source(output_dir: Path, flag: str, source_dir: Path) -> None:
    """Raise `UserError` where what `flag` names, to be read, lies in what will be written."""
    final, source = output_dir.resolve(), source_dir.resolve()
    if source == final or final in source.parents:
        raise UserError(f"--output-dir {output_dir} holds {flag} {source_dir}; choose another")


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


def write_identifiers(dataset_dir: Path, names: Iterable[str], separator: str = ",\n") -> None:
    """Write `identifiers.json`, one name a line; there may be millions.

    Args:
        separator: ", " writes what `json.dump` does, as the original builders have it.
    """
    with open(dataset_dir / IDENTIFIERS_FILE, "w", encoding="utf-8") as file:
        for index, name in enumerate(names):
            file.write(("[" if index == 0 else separator) + json.dumps(name))
        file.write("]\n" if "\n" in separator else "]")


class SplitWriter:
    """Writes the one set of a split, example by example and with bounded memory.

    with SplitWriter(folder / "train", "all", seq_len) as split:
        split.add_puzzle(identifier, inputs, labels)  # of as many examples as there are
        split.end_group()
        split.finish(vocab_size=12, …)
    """

    def __init__(self, split_dir: Path, set_name: str, seq_len: int):
        split_dir.mkdir()
        self.split_dir, self.set_name, self.seq_len = split_dir, set_name, seq_len
        self.examples = 0
        self._identifiers = array("i")
        self._puzzle_ends = array("q", [0])
        self._group_ends = array("q", [0])
        # Written in sequence, not through a memory map, where a full disk would kill the process.
        self._files = [open(self._path(name), "wb") for name in TOKEN_ARRAYS]
        self._write_headers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    @property
    def puzzles(self) -> int:
        return len(self._identifiers)

    @property
    def groups(self) -> int:
        return len(self._group_ends) - 1

    def add_examples(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """Examples of the puzzle that `end_puzzle` ends, [n, T] uint8 each."""
        for file, tokens in zip(self._files, (inputs, labels), strict=True):
            assert tokens.dtype == np.uint8 and tokens.shape == (len(inputs), self.seq_len)
            file.write(np.ascontiguousarray(tokens).data)
        self.examples += len(inputs)

    def end_puzzle(self, identifier: int) -> None:
        """The examples since the last puzzle's end are one puzzle."""
        self._puzzle_ends.append(self.examples)
        self._identifiers.append(identifier)

    def add_puzzle(self, identifier: int, inputs: np.ndarray, labels: np.ndarray) -> None:
        """The examples of one puzzle, [n, T] uint8 each."""
        self.add_examples(inputs, labels)
        self.end_puzzle(identifier)

    def add_puzzles(
        self,
        identifiers: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
        counts: np.ndarray | None = None,
    ) -> None:
        """Puzzles of a group, one after the other.

        Args:
            identifiers: of each, [p] integers.
            inputs, labels: their examples, [n, T] uint8 each.
            counts: examples of each, [p] integers with sum n; None: one of each.
        """
        ends = np.arange(1, len(inputs) + 1) if counts is None else np.cumsum(counts)
        assert len(ends) == len(identifiers) and (not len(ends) or ends[-1] == len(inputs))
        self._puzzle_ends.frombytes((self.examples + ends).astype(np.int64).tobytes())
        self._identifiers.frombytes(identifiers.astype(np.int32).tobytes())
        self.add_examples(inputs, labels)

    def end_group(self) -> None:
        """The puzzles since the last group's end are one group."""
        self.end_groups(np.array([self.puzzles]))

    def end_groups(self, ends: np.ndarray) -> None:
        """Several groups at once: [g] integers, each the number of puzzles up to a group's end."""
        self._group_ends.frombytes(ends.astype(np.int64).tobytes())

    def finish(
        self, identifiers: np.ndarray | None = None, total_puzzles: bool = False, **metadata: Any
    ) -> DatasetMetadata:
        """Write what is left: indices, checksums and `dataset.json`.

        Args:
            identifiers: of all puzzles, [puzzles] int32, where they were not known before.
            total_puzzles: with their number under this key, which TRM's loader needs.
            metadata: fields of `DatasetMetadata`, but for what was counted here: `sets`, `seq_len`,
                `total_groups` and `mean_puzzle_examples`.
        """
        written = self._finish_arrays(metadata, identifiers)
        more = {"total_puzzles": self.puzzles} if total_puzzles else {}
        write_metadata(self.split_dir, written, array_digests(self.split_dir, written), more)
        return written

    def finish_as_original(self, **metadata: Any) -> DatasetMetadata:
        """`finish`, but with the keys that the original builders write, in their order."""
        written = self._finish_arrays(metadata)
        values = written.model_dump(mode="json") | {"total_puzzles": self.puzzles}
        text = json.dumps({key: values[key] for key in ORIGINAL_KEYS})
        (self.split_dir / METADATA_FILE).write_text(text, encoding="utf-8")
        return written

    def _finish_arrays(
        self, metadata: dict[str, Any], identifiers: np.ndarray | None = None
    ) -> DatasetMetadata:
        self._write_headers()
        self.__exit__()
        known = np.frombuffer(self._identifiers, np.int32)
        index_dtype = np.dtype(np.int32 if self.examples < 2**31 else np.int64)
        arrays = {
            "puzzle_identifiers": known if identifiers is None else identifiers,
            "puzzle_indices": np.frombuffer(self._puzzle_ends, np.int64).astype(index_dtype),
            "group_indices": np.frombuffer(self._group_ends, np.int64).astype(index_dtype),
        }
        for name, values in arrays.items():
            np.save(self._path(name), values)
        return DatasetMetadata(
            sets=(self.set_name,),
            seq_len=self.seq_len,
            total_groups=self.groups,
            mean_puzzle_examples=self.examples / max(1, self.puzzles),
            **metadata,
        )

    def _path(self, array_name: str) -> Path:
        return array_path(self.split_dir, self.set_name, array_name)

    def _write_headers(self) -> None:
        """numpy leaves room in its header for a longer count of rows."""
        header = {
            "descr": "|u1",
            "fortran_order": False,
            "shape": (self.examples, self.seq_len),
        }
        for file in self._files:
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, header)
            file.seek(0, os.SEEK_END)
