"""Build a Sudoku data set: take puzzles from a source, check, augment and write them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hrm.data.download import download
from hrm.data.format import DatasetMetadata
from hrm.data.grid import PAD_SYMBOL
from hrm.data.writer import new_dataset, write_identifiers, write_split
from hrm.errors import UserError
from hrm.tasks.sudoku.csv_file import CsvPuzzles, parse_csv
from hrm.tasks.sudoku.generator import Puzzles, generate_split
from hrm.tasks.sudoku.rules import SYMBOLS, BoxShape
from hrm.tasks.sudoku.symmetry import are_equivalent, augment, canonical_hash

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
    with new_dataset(options.output_dir, options.overwrite, options.source_dir) as building:
        return _write(options, _read_sources(options, _csv_paths(options), building), building)


# ---- sources ----


def _csv_paths(options: BuildOptions) -> tuple[Path, Path | None] | None:
    """The files to read: train and, where there is one, test. None when generating."""
    if options.generate is not None:
        return None
    if options.source_dir is None:
        way_out = "use --source-dir FOLDER (with train.csv, test.csv) or --generate 3x3 instead"
        files = download(options.source_repo, ["train.csv"], ["test.csv"], way_out)
        return files["train.csv"], files.get("test.csv")
    if not options.source_dir.is_dir():
        raise UserError(f"--source-dir {options.source_dir}: no such folder")
    train, test = options.source_dir / "train.csv", options.source_dir / "test.csv"
    if not train.exists():
        raise UserError(f"{train}: not found; --source-dir must hold train.csv")
    return train, test if test.exists() else None


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
    names = _names(sources.train[0], sources.box_shape)
    write_identifiers(building, names if per_puzzle else ["<blank>" if original else "shared"])

    train_identifiers = np.arange(train_count) if per_puzzle else np.zeros(train_count)
    splits = [("train", sources.train, train_identifiers, options.num_aug + 1)]
    if sources.test is not None:
        test_identifiers = np.full(len(sources.test[0]), NO_IDENTITY if per_puzzle else 0)
        splits.append(("test", sources.test, test_identifiers, 1))
    for split, puzzles, identifiers, versions in splits:
        set_name = "all" if original else split
        offset = ORIGINAL_OFFSET if original else 0
        rng = np.random.default_rng([options.seed, 1])
        examples = _examples(puzzles, versions, sources.box_shape, offset, rng)
        metadata = _metadata(
            original, sources.box_shape, set_name, len(puzzles[0]), num_identifiers
        )
        write_split(building / split, metadata, examples, identifiers, versions)
    return BuildSummary(
        output_dir=options.output_dir,
        train_puzzles=train_count,
        train_rows=train_count * (options.num_aug + 1),
        test_puzzles=0 if sources.test is None else len(sources.test[0]),
    )


def _names(questions: np.ndarray, box_shape: BoxShape) -> Iterator[str]:
    symbols = np.frombuffer(SYMBOLS[: math.prod(box_shape) + 1].encode(), np.uint8)
    return (symbols[question].tobytes().decode() for question in questions)


def _examples(
    puzzles: Puzzles, versions: int, box_shape: BoxShape, offset: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of inputs and labels: `versions` rows a puzzle, the first the puzzle itself."""
    questions, answers = puzzles
    count = len(questions) * versions
    for start in range(0, count, WRITE_CHUNK_ROWS):
        rows = np.arange(start, min(start + WRITE_CHUNK_ROWS, count))
        puzzle = rows // versions
        chunk = questions[puzzle], answers[puzzle]
        if versions > 1:
            chunk = augment(*chunk, box_shape, rng, keep=rows % versions == 0)
        yield chunk[0] + np.uint8(offset), chunk[1] + np.uint8(offset)


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
        symbols=PAD_SYMBOL + symbols if original else symbols,
    )
