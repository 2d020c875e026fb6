"""The data contract between builders and loader: files, shapes, dtypes and their checks.

A data set is a folder `<data>` with `identifiers.json` (list: identifier -> name) and, for each
split, `<data>/<split>/dataset.json` beside five arrays per set named in its `sets`:

    <set>__inputs.npy, <set>__labels.npy   [examples, seq_len] uint8 (any integer dtype is read)
    <set>__puzzle_identifiers.npy          [puzzles] int32, row of the puzzle-embedding table
    <set>__puzzle_indices.npy              [puzzles + 1]: puzzle p owns examples [i[p], i[p + 1])
    <set>__group_indices.npy               [groups + 1]:  group g owns puzzles [i[g], i[g + 1])
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hrm.errors import UserError

IGNORE_LABEL_ID = -100
METADATA_FILE = "dataset.json"
IDENTIFIERS_FILE = "identifiers.json"
CHECK_CHUNK_ROWS = 65536


class DatasetMetadata(BaseModel):
    """`dataset.json` of one split. Unknown keys are ignored; the last four may be absent."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pad_id: int
    ignore_label_id: int | None
    blank_identifier_id: int
    vocab_size: Annotated[int, Field(gt=0)]
    seq_len: Annotated[int, Field(gt=0)]
    num_puzzle_identifiers: Annotated[int, Field(ge=0)]
    total_groups: Annotated[int, Field(ge=0)]
    mean_puzzle_examples: Annotated[float, Field(ge=0)]
    sets: tuple[str, ...]

    task: str | None = None
    grid_shape: tuple[int, int] | None = None
    box_shape: tuple[int, int] | None = None
    symbols: str | None = None

    def inferred_grid_shape(self) -> tuple[int, int] | None:
        """The grid as stated, else the square that `seq_len` makes, else None."""
        side = math.isqrt(self.seq_len)
        return self.grid_shape or ((side, side) if side * side == self.seq_len else None)

    def inferred_box_shape(self) -> tuple[int, int] | None:
        """The box as stated, else the square one of a square grid, where there is one answer."""
        if self.box_shape is not None:
            return self.box_shape
        grid = self.inferred_grid_shape()
        if grid is None or grid[0] != grid[1]:
            return None
        side = math.isqrt(grid[0])
        return (side, side) if side > 1 and side * side == grid[0] else None


@dataclass(frozen=True)
class PuzzleArrays:
    """The five arrays of one set, memory-mapped and checked."""

    inputs: np.ndarray  # [examples, seq_len] integer
    labels: np.ndarray  # [examples, seq_len] integer
    puzzle_identifiers: np.ndarray  # [puzzles] integer
    puzzle_indices: np.ndarray  # [puzzles + 1] integer
    group_indices: np.ndarray  # [groups + 1] integer


ARRAY_NAMES = tuple(PuzzleArrays.__dataclass_fields__)


def array_path(split_dir: Path, set_name: str, array_name: str) -> Path:
    return split_dir / f"{set_name}__{array_name}.npy"


def write_metadata(split_dir: Path, metadata: DatasetMetadata) -> None:
    text = json.dumps(metadata.model_dump(exclude_none=False), indent=2)
    (split_dir / METADATA_FILE).write_text(text + "\n")


def read_metadata(split_dir: Path) -> DatasetMetadata:
    """Read and check `dataset.json`.

    Raises:
        UserError: the file is missing, is not JSON, or a key is missing or has the wrong type.
    """
    path = split_dir / METADATA_FILE
    try:
        return DatasetMetadata.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; build a data set first, e.g. "
            "python dataset/build_sudoku_dataset.py --generate 2x2 --output-dir <folder>"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); build it again") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "(top level)"
        raise UserError(f"{path}: key {key}: {first['msg']}; build it again") from None


def read_arrays(split_dir: Path, set_name: str, metadata: DatasetMetadata) -> PuzzleArrays:
    """Memory-map the five arrays of a set and check all that the contract promises.

    Raises:
        UserError: a file is missing or truncated, a shape, dtype or token is out of range, or
            indices are not monotone; the message names the file.
    """
    if Path(set_name).name != set_name or set_name in {"", ".", ".."}:
        raise UserError(f"{split_dir / METADATA_FILE}: set name {set_name!r} is not a file name")
    arrays = PuzzleArrays(
        **{name: _open_array(array_path(split_dir, set_name, name)) for name in ARRAY_NAMES}
    )
    _check_tokens(split_dir, set_name, metadata, arrays)
    path = array_path(split_dir, set_name, "puzzle_indices")
    _check_indices(path, arrays.puzzle_indices, len(arrays.inputs), "examples")
    path = array_path(split_dir, set_name, "group_indices")
    _check_indices(path, arrays.group_indices, len(arrays.puzzle_indices) - 1, "puzzles")
    _check_identifiers(split_dir, set_name, metadata, arrays)
    return arrays


def _open_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; build the data set again") from None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: truncated or damaged ({error}); build it again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
        raise UserError(f"{path}: must hold integers; build it again")
    return array


def _check_tokens(
    split_dir: Path, set_name: str, metadata: DatasetMetadata, arrays: PuzzleArrays
) -> None:
    for name in ("inputs", "labels"):
        path, array = array_path(split_dir, set_name, name), getattr(arrays, name)
        if array.ndim != 2 or array.shape[1] != metadata.seq_len:
            raise UserError(
                f"{path}: shape {array.shape}, expected [examples, seq_len={metadata.seq_len}]"
            )
        ignored = {metadata.ignore_label_id, IGNORE_LABEL_ID} if name == "labels" else set()
        for start in range(0, len(array), CHECK_CHUNK_ROWS):
            chunk = array[start : start + CHECK_CHUNK_ROWS]
            if chunk.min(initial=0) >= 0 and chunk.max(initial=0) < metadata.vocab_size:
                continue
            wrong = (chunk < 0) | (chunk >= metadata.vocab_size)
            wrong &= ~np.isin(chunk, [i for i in ignored if i is not None])
            if wrong.any():
                row, column = np.argwhere(wrong)[0]
                raise UserError(
                    f"{path}: token {chunk[row, column]} in row {start + row} is not in "
                    f"0..vocab_size-1={metadata.vocab_size - 1}; build it again"
                )
    if len(arrays.inputs) != len(arrays.labels):
        raise UserError(
            f"{array_path(split_dir, set_name, 'labels')}: {len(arrays.labels)} rows, but inputs "
            f"has {len(arrays.inputs)}; build it again"
        )


def _check_indices(path: Path, indices: np.ndarray, end: int, unit: str) -> None:
    if indices.ndim != 1 or len(indices) == 0:
        raise UserError(f"{path}: shape {indices.shape}, expected one dimension, at least [0]")
    if indices[0] != 0 or indices[-1] != end:
        raise UserError(
            f"{path}: runs from {indices[0]} to {indices[-1]}, expected 0 to {end} ({unit})"
        )
    if (np.diff(indices.astype(np.int64)) <= 0).any():
        where = int(np.argmax(np.diff(indices.astype(np.int64)) <= 0))
        raise UserError(f"{path}: not strictly increasing at position {where}; build it again")


def _check_identifiers(
    split_dir: Path, set_name: str, metadata: DatasetMetadata, arrays: PuzzleArrays
) -> None:
    path = array_path(split_dir, set_name, "puzzle_identifiers")
    identifiers, puzzles = arrays.puzzle_identifiers, len(arrays.puzzle_indices) - 1
    if identifiers.shape != (puzzles,):
        raise UserError(f"{path}: shape {identifiers.shape}, expected [puzzles={puzzles}]")
    if identifiers.max(initial=-1) >= metadata.num_puzzle_identifiers:
        raise UserError(
            f"{path}: identifier {identifiers.max()} is not below "
            f"num_puzzle_identifiers={metadata.num_puzzle_identifiers}"
        )
