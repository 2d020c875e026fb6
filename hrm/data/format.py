"""The data contract between builders and loader: files, shapes, dtypes and their checks.

A data set is a folder `<data>` with `identifiers.json` (list: identifier -> name) and, for each
split, `<data>/<split>/dataset.json` beside five arrays per set named in its `sets`:

    <set>__inputs.npy, <set>__labels.npy   [examples, seq_len] uint8 (any integer dtype is read)
    <set>__puzzle_identifiers.npy          [puzzles] int32, row of the puzzle-embedding table
    <set>__puzzle_indices.npy              [puzzles + 1]: puzzle p owns examples [i[p], i[p + 1])
    <set>__group_indices.npy               [groups + 1]:  group g owns puzzles [i[g], i[g + 1])

`dataset.json` may hold checksums of the arrays (`sha256`) and of its other keys
(`metadata_sha256`); what our builder writes has both, and they are checked before anything else.
"""

import hashlib
import json
import math
import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from hrm.data.arrays import (
    TokenFile,
    check_identifiers,
    check_indices,
    check_tokens,
    open_array,
    require_file,
    unmapped,
)
from hrm.data.grid import (
    Shape,
    first_digit,
    infer_box_shape,
    infer_grid_shape,
    infer_symbols,
)
from hrm.data.missing import METADATA_FILE as METADATA_FILE
from hrm.data.missing import missing_split
from hrm.errors import UserError, first_mistake, one_line
from hrm.files import file_digest
from hrm.progress import Progress

SPLITS = TRAIN_SPLIT, TEST_SPLIT = "train", "test"
IGNORE_LABEL_ID = -100
NO_IDENTITY = -1  # as a puzzle's identifier
IDENTIFIERS_FILE = "identifiers.json"
DIGESTS_KEY = "sha256"
METADATA_DIGEST_KEY = "metadata_sha256"
LONGEST_SET_NAME = 200
CHECK_CHUNK_ROWS = 65536
CHECKED_AT_ONCE = 1 << 28  # bytes of tokens of a split that are checked when it is opened
INT32 = np.iinfo(np.int32)


class DatasetMetadata(BaseModel):
    """`dataset.json` of one split. Unknown keys are ignored; the last four may be absent."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    vocab_size: Annotated[int, Field(gt=0, le=INT32.max)]
    seq_len: Annotated[int, Field(gt=0, le=INT32.max)]
    num_puzzle_identifiers: Annotated[int, Field(ge=0, le=INT32.max)]
    pad_id: Annotated[int, Field(ge=0)]
    ignore_label_id: Annotated[int, Field(ge=INT32.min, le=INT32.max)] | None
    blank_identifier_id: Annotated[int, Field(ge=INT32.min)]
    total_groups: Annotated[int, Field(ge=0)]
    mean_puzzle_examples: Annotated[float, Field(ge=0, le=INT32.max)]
    sets: Annotated[tuple[str, ...], Field(min_length=1)]

    task: str | None = None
    grid_shape: Shape | None = None
    box_shape: Shape | None = None
    symbols: str | None = None

    @field_validator("pad_id")
    @classmethod
    def _pad_is_a_token(cls, value: int, info: ValidationInfo) -> int:
        return _below(value, info, "vocab_size")

    @field_validator("blank_identifier_id")
    @classmethod
    def _blank_is_a_row_or_negative(cls, value: int, info: ValidationInfo) -> int:
        return _below(value, info, "num_puzzle_identifiers")

    @field_validator("sets")
    @classmethod
    def _sets_are_file_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if (
                name in {"", ".", ".."}
                or any(c in name for c in "/\\")
                or not name.isprintable()
                or len(name) > LONGEST_SET_NAME
            ):
                raise ValueError(f"{reprlib.repr(name)} is not a file name")
        if len(set(names)) < len(names):
            raise ValueError("a set is named twice")
        return names

    @field_validator("grid_shape")
    @classmethod
    def _grid_holds_the_tokens(cls, value: Shape | None, info: ValidationInfo) -> Shape | None:
        seq_len = info.data.get("seq_len")
        if value is not None and seq_len is not None and math.prod(value) != seq_len:
            raise ValueError(f"{value[0]}x{value[1]} is not seq_len={seq_len}")
        return value

    @field_validator("symbols")
    @classmethod
    def _symbols_can_be_shown(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("holds characters that cannot be printed")
        return value

    def inferred_grid_shape(self) -> Shape | None:
        """The grid as stated, else as `infer_grid_shape` finds it."""
        return self.grid_shape or infer_grid_shape(self.seq_len)

    def inferred_box_shape(self) -> Shape | None:
        """The box as stated; else, where the grid is not stated, as `infer_box_shape` finds it."""
        if self.box_shape or self.grid_shape:
            return self.box_shape
        return infer_box_shape(self.inferred_grid_shape())

    @property
    def first_digit(self) -> int | None:
        """Token of the digit 1 in a grid of digits, of which none is special; else None."""
        shape = self.inferred_grid_shape()
        return first_digit(self.symbols or infer_symbols(shape, self.vocab_size))

    @property
    def unseen_identifier(self) -> int:
        """Identifier of a puzzle that training did not know: the shared one, else the blank."""
        return 0 if self.num_puzzle_identifiers == 1 else self.blank_identifier_id

    def identifier_of(self, identifier: int | None) -> int:
        """A data set's identifier where a model has a row for it, else that of unseen puzzles."""
        if identifier is None or identifier >= self.num_puzzle_identifiers:
            return self.unseen_identifier
        return identifier


CheckRows = Callable[[str, np.ndarray, np.ndarray], None]  # array's name, rows, their numbers


@dataclass(frozen=True)
class PuzzleArrays:
    """The five arrays of one set: memory-mapped; copied, if not C-ordered and native; or read."""

    inputs: np.ndarray | TokenFile  # [examples, seq_len] integer
    labels: np.ndarray | TokenFile  # [examples, seq_len] integer
    puzzle_identifiers: np.ndarray  # [puzzles] int32 or int64
    puzzle_indices: np.ndarray  # [puzzles + 1] int32 or int64
    group_indices: np.ndarray  # [groups + 1] int32 or int64
    check_rows: CheckRows | None = None  # where tokens were not checked when the set was opened

    def take(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Copies of some examples' inputs and labels, [n, T] each.

        Raises:
            UserError: a token is out of range.
        """
        taken = self.inputs.take(examples, axis=0), self.labels.take(examples, axis=0)
        if self.check_rows is not None:
            for name, rows in zip(TOKEN_ARRAYS, taken, strict=True):
                self.check_rows(name, rows, examples)
        return taken


TOKEN_ARRAYS = ("inputs", "labels")
INDEX_ARRAYS = ("puzzle_identifiers", "puzzle_indices", "group_indices")
ARRAY_NAMES = TOKEN_ARRAYS + INDEX_ARRAYS


def array_path(split_dir: Path, set_name: str, array_name: str) -> Path:
    return split_dir / f"{set_name}__{array_name}.npy"


def has_split(dataset_path: str | Path, split: str) -> bool:
    """Whether the data set has this split (e.g. a test split to evaluate on)."""
    return os.path.isfile(Path(dataset_path) / split / METADATA_FILE)


def write_metadata(
    split_dir: Path,
    metadata: DatasetMetadata,
    digests: Mapping[str, str] | None = None,
    more: Mapping[str, int] | None = None,
) -> None:
    """Write `dataset.json`, with `more` keys; with `digests` (`array_digests`) also checksums."""
    values: dict[str, Any] = metadata.model_dump(mode="json") | dict(more or {})
    if digests is not None:
        values[DIGESTS_KEY] = dict(digests)
        values[METADATA_DIGEST_KEY] = _digest_of(values)
    text = json.dumps(values, indent=2)
    (split_dir / METADATA_FILE).write_text(text + "\n", encoding="utf-8")


def write_arrays(split_dir: Path, set_name: str, arrays: PuzzleArrays) -> None:
    for name in ARRAY_NAMES:
        np.save(array_path(split_dir, set_name, name), getattr(arrays, name), allow_pickle=False)


def array_digests(split_dir: Path, metadata: DatasetMetadata) -> dict[str, str]:
    """SHA-256 of every array file of a split, by file name, in the order of sets and arrays.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    paths = (array_path(split_dir, set_, array) for set_ in metadata.sets for array in ARRAY_NAMES)
    return {path.name: _digest_of_file(path) for path in paths}


def fingerprint(split_dir: Path, metadata: DatasetMetadata) -> str:
    """One SHA-256 that names the content of a split: what its metadata say, and its arrays.

    Checksums that stand in `dataset.json` are taken from there, since `read_split` has checked
    them; without them every array is read.

    Raises:
        UserError: as `read_metadata` and `array_digests`.
    """
    digests = _read_metadata(split_dir)[1] or array_digests(split_dir, metadata)
    meaning = metadata.model_dump(mode="json", exclude_none=True)
    return _digest_of({"metadata": meaning, "arrays": digests})


def has_checksums(split_dir: Path) -> bool:
    """Whether the arrays' checksums are known; raises as `read_metadata`."""
    return _read_metadata(split_dir)[1] is not None


def read_metadata(split_dir: Path) -> DatasetMetadata:
    """Read and check `dataset.json`.

    Raises:
        UserError: the file is missing, damaged or not JSON, or a key is missing or wrong.
    """
    return _read_metadata(split_dir)[0]


def read_split(
    split_dir: Path, whole: bool | None = None
) -> tuple[DatasetMetadata, dict[str, PuzzleArrays]]:
    """Read one split: its metadata, and the memory-mapped arrays of every set by name.

    Metadata, indices and identifiers are checked, with their checksums. So are the tokens, unless
    there are many: then `PuzzleArrays.take` checks those that it takes.

    Args:
        whole: check all tokens; None: up to `CHECKED_AT_ONCE` bytes of them.

    Raises:
        UserError: as `read_metadata` and `read_arrays`, a checksum differs, or the sets do not
            hold `total_groups`.
    """
    metadata, digests = _read_metadata(split_dir)
    tokens = [array_path(split_dir, s, array) for s in metadata.sets for array in TOKEN_ARRAYS]
    if whole is None:
        whole = sum(_size(path) for path in tokens) <= CHECKED_AT_ONCE
    unread = set() if whole else {path.name for path in tokens}
    checked = {name: digest for name, digest in (digests or {}).items() if name not in unread}
    total = sum(_size(split_dir / name) for name in checked)
    with Progress("bytes of the data set checked", total) as progress:
        for name, digest in checked.items():
            if _digest_of_file(split_dir / name, progress.update) != digest:
                raise UserError(_damaged(split_dir / name))
    sets = {name: read_arrays(split_dir, name, metadata, whole) for name in metadata.sets}
    groups = sum(len(arrays.group_indices) - 1 for arrays in sets.values())
    if groups != metadata.total_groups:
        raise UserError(
            f"{split_dir / METADATA_FILE}: total_groups={metadata.total_groups}, but the "
            f"group_indices of its sets hold {groups}; build it again"
        )
    return metadata, sets


def _read_metadata(split_dir: Path) -> tuple[DatasetMetadata, dict[str, str] | None]:
    """The metadata, and the checksums of the arrays where there are any."""
    path = split_dir / METADATA_FILE
    values, digests = _read_values(split_dir)
    try:
        metadata = DatasetMetadata.model_validate(values)
    except ValidationError as error:
        key, reason = first_mistake(error)
        raise UserError(f"{path}: key {key}: {reason}; build it again") from None
    files = {array_path(split_dir, s, a).name for s in metadata.sets for a in ARRAY_NAMES}
    if digests is not None and set(digests) != files:
        raise UserError(
            f"{path}: {DIGESTS_KEY} does not name the files of its sets; build it again"
        )
    return metadata, digests


def _read_values(split_dir: Path) -> tuple[Any, dict[str, str] | None]:
    """`dataset.json` as it stands, its own checksum compared, and the checksums of the arrays."""
    path = split_dir / METADATA_FILE
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError("not a file")
        values = json.loads(path.read_bytes())
        sealed = isinstance(values, dict) and {DIGESTS_KEY, METADATA_DIGEST_KEY} & values.keys()
        stated = values.pop(METADATA_DIGEST_KEY, None) if sealed else None
        intact = not sealed or stated == _digest_of(values)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(missing_split(split_dir.parent, split_dir.name)) from None
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({one_line(error)}); build it again"
        ) from None
    digests = values.pop(DIGESTS_KEY, {}) if sealed else None
    if not intact or not isinstance(digests, dict | None):
        raise UserError(_damaged(path))
    return values, digests


def read_arrays(
    split_dir: Path, set_name: str, metadata: DatasetMetadata, whole: bool = True
) -> PuzzleArrays:
    """Memory-map the five arrays of a set and check all that the contract promises.

    Args:
        whole: check all tokens now; False: those that are taken.

    Raises:
        UserError: a file is missing or truncated, a shape, dtype or token is out of range, or
            indices are not strictly increasing; the message names the file.
    """
    path = partial(array_path, split_dir, set_name)
    opened: dict[str, Any] = {name: open_array(path(name)) for name in ARRAY_NAMES}
    if not whole:
        opened |= {name: unmapped(path(name), opened[name]) for name in TOKEN_ARRAYS}

    def check_rows(name: str, rows: np.ndarray, numbers: np.ndarray) -> None:
        ignored = (metadata.ignore_label_id, IGNORE_LABEL_ID) if name == "labels" else ()
        check_tokens(path(name), rows, numbers, metadata.vocab_size, ignored)

    arrays = PuzzleArrays(
        **{name: a if name in TOKEN_ARRAYS else _signed(a) for name, a in opened.items()},
        check_rows=None if whole else check_rows,
    )
    for name in TOKEN_ARRAYS:
        array = opened[name]
        if array.ndim != 2 or array.shape[1] != metadata.seq_len:
            raise UserError(
                f"{path(name)}: shape {array.shape}, expected [examples, "
                f"seq_len={metadata.seq_len}]; build it again"
            )
        for start in range(0, len(array) if whole else 0, CHECK_CHUNK_ROWS):
            rows = array[start : start + CHECK_CHUNK_ROWS]
            check_rows(name, rows, np.arange(start, start + len(rows)))
    examples = len(arrays.inputs)
    if len(arrays.labels) != examples:
        raise UserError(
            f"{path('labels')}: {len(arrays.labels)} rows, but inputs has {examples}; "
            "build it again"
        )
    check_indices(path("puzzle_indices"), arrays.puzzle_indices, examples, "examples")
    puzzles = len(arrays.puzzle_indices) - 1
    check_indices(path("group_indices"), arrays.group_indices, puzzles, "puzzles")
    check_identifiers(
        path("puzzle_identifiers"),
        arrays.puzzle_identifiers,
        puzzles,
        metadata.num_puzzle_identifiers,
    )
    return arrays


def _below(value: int, info: ValidationInfo, limit: str) -> int:
    if limit in info.data and value >= info.data[limit]:
        raise ValueError(f"{value} is not below {limit}={info.data[limit]}")
    return value


def _digest_of(values: object) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _digest_of_file(path: Path, count: Callable[[int], None] | None = None) -> str:
    require_file(path)
    try:
        return file_digest(path, count)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from None


def _damaged(path: Path) -> str:
    return f"{path}: damaged (checksum differs); build it again"


def _signed(array: np.ndarray) -> np.ndarray:
    return array if array.dtype in (np.int32, np.int64) else array.astype(np.int64)
