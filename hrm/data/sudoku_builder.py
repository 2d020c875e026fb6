"""Build a Sudoku data set: take puzzles from a source, check, augment and write them.

Everything is written into a temporary folder beside the output folder, which is renamed when
complete and removed on any failure.
"""

import errno
import json
import logging
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from hrm.data.format import (
    IDENTIFIERS_FILE,
    DatasetMetadata,
    array_digests,
    array_path,
    write_metadata,
)
from hrm.data.sudoku import SYMBOLS, BoxShape, CsvPuzzles, parse_csv
from hrm.data.sudoku_generator import Puzzles, generate_split
from hrm.data.sudoku_symmetry import are_equivalent, augment, canonical_hash
from hrm.errors import UserError

DEFAULT_REPO = "sapientinc/sudoku-extreme"
WRITE_CHUNK_ROWS = 4096
NO_IDENTITY = -1
ORIGINAL_OFFSET = 1  # the original code's token of digit d is d + 1, that of padding 0


@dataclass(frozen=True)
class BuildOptions:
    """What to build. The source is `generate`, else `source_dir`, else `source_repo`."""

    output_dir: Path
    source_repo: str = DEFAULT_REPO
    source_dir: Path | None = None
    generate: BoxShape | None = None
    givens: tuple[int, int] | None = None
    num_train: int = 1000
    num_test: int = 500
    box_shape: BoxShape | None = None
    subsample_size: int | None = None
    min_difficulty: int | None = None
    num_aug: int = 0
    seed: int = 0
    format: Literal["hrm", "original"] = "hrm"
    identifiers: Literal["per-puzzle", "shared"] = "per-puzzle"
    allow_leakage: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class BuildSummary:
    output_dir: Path
    train_puzzles: int
    train_rows: int
    test_puzzles: int


@dataclass(frozen=True)
class _Sources:
    box_shape: BoxShape
    train: Puzzles
    test: Puzzles | None


def build(options: BuildOptions) -> BuildSummary:
    """Build the data set that `options` ask for.

    Raises:
        UserError: options or source are at fault, or the disk is; nothing is left behind.
    """
    # Resolved, so that the temporary folder lies on the same file system as a link's target.
    output_dir = options.output_dir.resolve()
    _check_output_dir(output_dir, options)
    try:
        csv_paths = _csv_paths(options)
        with _temporary_sibling(output_dir) as building:
            sources = _read_sources(options, csv_paths, building)
            summary = _write(options, sources, building)
            _move_into_place(building, output_dir)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"--output-dir {options.output_dir}: the disk is full; free some space or choose "
                "another folder (nothing was left behind)"
            ) from None
        raise UserError(
            f"--output-dir {options.output_dir}: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}; choose another folder"
        ) from None
    return summary


def _check_output_dir(output_dir: Path, options: BuildOptions) -> None:
    shown = f"--output-dir {options.output_dir}"
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"{shown} is not a folder; choose another")
    if not output_dir.exists() or not any(output_dir.iterdir()):
        return
    if not options.overwrite:
        raise UserError(f"{shown} exists; delete it, choose another, or pass --overwrite")
    if not (output_dir / IDENTIFIERS_FILE).is_file():
        raise UserError(
            f"{shown} is not a data set (no {IDENTIFIERS_FILE}), so --overwrite leaves it alone; "
            "choose another"
        )
    if options.source_dir is not None:
        source_dir = options.source_dir.resolve()
        if source_dir == output_dir or output_dir in source_dir.parents:
            raise UserError(f"{shown} holds --source-dir {options.source_dir}; choose another")


@contextmanager
def _temporary_sibling(output_dir: Path) -> Iterator[Path]:
    """A new folder beside `output_dir`; on failure removed, with the parents made for it."""
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


# ---- sources ----


def _csv_paths(options: BuildOptions) -> tuple[Path, Path | None] | None:
    """The files to read: train and, where there is one, test. None when generating."""
    if options.generate is not None:
        return None
    if options.source_dir is None:
        return _download(options.source_repo)
    if not options.source_dir.is_dir():
        raise UserError(f"--source-dir {options.source_dir}: no such folder")
    train, test = options.source_dir / "train.csv", options.source_dir / "test.csv"
    if not train.exists():
        raise UserError(f"{train}: not found; --source-dir must hold train.csv")
    return train, test if test.exists() else None


def _download(repo: str) -> tuple[Path, Path | None]:
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)

    def fetch(name: str) -> Path:
        if not isinstance(hub.try_to_load_from_cache(repo, name, repo_type="dataset"), str):
            # Fails at once where hf_hub_download would try again for half a minute.
            hub.get_hf_file_metadata(hub.hf_hub_url(repo, name, repo_type="dataset"))
        return Path(hub.hf_hub_download(repo, name, repo_type="dataset"))

    try:
        train = fetch("train.csv")
        try:
            return train, fetch("test.csv")
        except EntryNotFoundError as error:
            if isinstance(error, FileNotFoundError):  # not in the cache, and no connection
                raise
            return train, None
    except Exception as error:  # a failed download has many kinds of errors
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120].rstrip(". ")
        raise UserError(
            f"--source-repo {repo}: cannot be downloaded ({reason}); use --source-dir "
            "FOLDER (with train.csv, test.csv) or --generate 3x3 instead"
        ) from None


def _read_sources(
    options: BuildOptions, csv_paths: tuple[Path, Path | None] | None, spool_dir: Path
) -> _Sources:
    if csv_paths is None:
        assert options.generate is not None
        train, test = generate_split(
            options.generate, options.num_train, options.num_test, options.givens, options.seed
        )
        return _Sources(options.generate, train, test if len(test[0]) else None)

    with_ratings = options.min_difficulty is not None
    train_csv = parse_csv(
        csv_paths[0], options.box_shape, with_ratings=with_ratings, spool_dir=spool_dir
    )
    test_csv = None
    if csv_paths[1] is not None:
        test_csv = parse_csv(
            csv_paths[1], train_csv.box_shape, with_ratings=with_ratings, spool_dir=spool_dir
        )
        if not options.allow_leakage:
            refuse_leakage(train_csv, test_csv)

    rows = _difficult_rows(train_csv, options)
    if len(rows) == 0:
        raise UserError(
            f"--min-difficulty {options.min_difficulty}: no puzzle of {csv_paths[0]} is that "
            f"difficult (the most is {train_csv.ratings.max()}); lower it"
        )
    if options.subsample_size is not None:
        if options.subsample_size > len(rows):
            raise UserError(
                f"--subsample-size {options.subsample_size}: only {len(rows)} puzzles in "
                f"{csv_paths[0]} to draw from; lower it"
            )
        rng = np.random.default_rng([options.seed, 0])
        rows = np.sort(rng.choice(rows, options.subsample_size, replace=False))
    test_rows = np.empty(0, np.int64) if test_csv is None else _difficult_rows(test_csv, options)
    return _Sources(
        train_csv.box_shape,
        _take(train_csv, rows),
        _take(test_csv, test_rows) if test_csv is not None and len(test_rows) else None,
    )


def _difficult_rows(puzzles: CsvPuzzles, options: BuildOptions) -> np.ndarray:
    if options.min_difficulty is None:
        return np.arange(len(puzzles.ratings))
    return np.flatnonzero(puzzles.ratings >= options.min_difficulty)


def _take(puzzles: CsvPuzzles, rows: np.ndarray) -> Puzzles:
    if len(rows) == len(puzzles.questions):
        return puzzles.questions, puzzles.answers
    return puzzles.questions[rows], puzzles.answers[rows]


def refuse_leakage(train: CsvPuzzles, test: CsvPuzzles) -> None:
    """Check that no test puzzle is a training puzzle up to symmetry.

    Raises:
        UserError: one is; names both lines.
    """
    train_hashes = canonical_hash(train.questions, train.box_shape)
    test_hashes = canonical_hash(test.questions, test.box_shape)
    suspects: dict[int, list[int]] = {}
    for row in np.flatnonzero(np.isin(train_hashes, test_hashes)):
        suspects.setdefault(int(train_hashes[row]), []).append(int(row))
    for test_row in np.flatnonzero(np.isin(test_hashes, train_hashes)):
        for suspect in suspects[int(test_hashes[test_row])]:
            pair = train.questions[suspect], test.questions[test_row]
            if are_equivalent(*pair, train.box_shape):
                raise UserError(
                    f"{test.path}:{test.lines[test_row]}: the same puzzle up to symmetry as "
                    f"{train.path}:{train.lines[suspect]}, so evaluation would not be on unseen "
                    "puzzles; delete one, or pass --allow-leakage"
                )


# ---- writing ----


def _write(options: BuildOptions, sources: _Sources, building: Path) -> BuildSummary:
    original = options.format == "original"
    train_count = len(sources.train[0])
    per_puzzle = options.identifiers == "per-puzzle" and not original
    num_identifiers = train_count if per_puzzle else 1
    with open(building / IDENTIFIERS_FILE, "w") as file:
        if per_puzzle:
            _write_names(file, sources.train[0], sources.box_shape)
        else:
            file.write(json.dumps(["<blank>"] if original else ["shared"]) + "\n")

    train_identifiers = np.arange(train_count) if per_puzzle else np.zeros(train_count)
    splits = [("train", sources.train, train_identifiers, options.num_aug + 1)]
    if sources.test is not None:
        test_identifiers = np.full(len(sources.test[0]), NO_IDENTITY if per_puzzle else 0)
        splits.append(("test", sources.test, test_identifiers, 1))
    for split, puzzles, identifiers, versions in splits:
        split_dir = building / split
        split_dir.mkdir()
        set_name = "all" if original else split
        offset = ORIGINAL_OFFSET if original else 0
        rng = np.random.default_rng([options.seed, 1])
        _write_tokens(split_dir, set_name, puzzles, versions, sources.box_shape, offset, rng)
        _write_indices(split_dir, set_name, identifiers, versions)
        metadata = _metadata(
            original, sources.box_shape, set_name, len(puzzles[0]), num_identifiers
        )
        write_metadata(split_dir, metadata, array_digests(split_dir, metadata))
    return BuildSummary(
        output_dir=options.output_dir,
        train_puzzles=train_count,
        train_rows=train_count * (options.num_aug + 1),
        test_puzzles=0 if sources.test is None else len(sources.test[0]),
    )


def _write_names(file: IO[str], questions: np.ndarray, box_shape: BoxShape) -> None:
    """Write the questions as a JSON list, one per line; there may be millions."""
    symbols = np.frombuffer(SYMBOLS[: math.prod(box_shape) + 1].encode(), np.uint8)
    for index, question in enumerate(questions):
        file.write(("[" if index == 0 else ",\n") + f'"{symbols[question].tobytes().decode()}"')
    file.write("]\n")


def _write_tokens(
    split_dir: Path,
    set_name: str,
    puzzles: Puzzles,
    versions: int,
    box_shape: BoxShape,
    offset: int,
    rng: np.random.Generator,
) -> None:
    """Write inputs and labels: `versions` rows for each puzzle, the first the puzzle itself.

    Written in sequence, not through a memory map, where a full disk would kill the process.
    """
    questions, answers = puzzles
    count, cells = len(questions) * versions, questions.shape[1]
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, cells)}
    with (
        open(array_path(split_dir, set_name, "inputs"), "wb") as inputs_file,
        open(array_path(split_dir, set_name, "labels"), "wb") as labels_file,
    ):
        for file in (inputs_file, labels_file):
            np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, count, WRITE_CHUNK_ROWS):
            rows = np.arange(start, min(start + WRITE_CHUNK_ROWS, count))
            puzzle = rows // versions
            chunk = questions[puzzle], answers[puzzle]
            if versions > 1:
                chunk = augment(*chunk, box_shape, rng, keep=rows % versions == 0)
            inputs_file.write((chunk[0] + np.uint8(offset)).data)
            labels_file.write((chunk[1] + np.uint8(offset)).data)


def _write_indices(split_dir: Path, set_name: str, identifiers: np.ndarray, versions: int) -> None:
    count = len(identifiers) * versions
    index_dtype = np.dtype(np.int32 if count < 2**31 else np.int64)
    arrays = {
        "puzzle_identifiers": np.repeat(identifiers.astype(np.int32), versions),
        "puzzle_indices": np.arange(count + 1, dtype=index_dtype),
        "group_indices": np.arange(0, count + 1, versions, dtype=index_dtype),
    }
    for name, array in arrays.items():
        np.save(array_path(split_dir, set_name, name), array)


def _metadata(
    original: bool, box_shape: BoxShape, set_name: str, groups: int, num_identifiers: int
) -> DatasetMetadata:
    side = math.prod(box_shape)
    symbols = SYMBOLS[: side + 1]
    return DatasetMetadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0 if original else NO_IDENTITY,
        vocab_size=side + 1 + (ORIGINAL_OFFSET if original else 0),
        seq_len=side * side,
        num_puzzle_identifiers=num_identifiers,
        total_groups=groups,
        mean_puzzle_examples=1.0,
        sets=(set_name,),
        task="sudoku",
        grid_shape=(side, side),
        box_shape=box_shape,
        symbols="_" + symbols if original else symbols,
    )
