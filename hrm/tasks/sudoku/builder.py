"""Build a Sudoku data set: take puzzles from a source, check, augment and write them."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from hrm.config import Config, Count, PositiveInt, Seed
from hrm.data.format import NO_IDENTITY
from hrm.data.grid import PAD_SYMBOL
from hrm.data.writer import SplitWriter, new_dataset, write_identifiers
from hrm.errors import UserError
from hrm.progress import Progress
from hrm.tasks.building import (
    BuildSummary,
    check_sources,
    csv_files,
    given_options,
    parsed,
    subsample,
    unleaked_rows,
)
from hrm.tasks.sudoku.csv_file import CsvPuzzles, parse_csv
from hrm.tasks.sudoku.generator import Puzzles, generate_split
from hrm.tasks.sudoku.leakage import find_leakage
from hrm.tasks.sudoku.minimal import (
    MINIMAL,
    RATED_BOX,
    Bands,
    generate_minimal_split,
    parse_difficulty,
    require_numba,
)
from hrm.tasks.sudoku.related import OPTION, with_related
from hrm.tasks.sudoku.rules import SYMBOLS, BoxShape, parse_box_shape
from hrm.tasks.sudoku.symmetry import augment

DEFAULT_REPO = "sapientinc/sudoku-extreme"
CSV_OPTIONS = (
    *("box", "subsample_size", "min_difficulty"),
    *("allow_leakage", "drop_equivalent", "num_related"),
)
GENERATOR_OPTIONS = ("givens", "difficulty", "num_train", "num_test")
WRITE_CHUNK_ROWS = 4096
ORIGINAL_OFFSET = 1  # the original code's token of digit d is d + 1, that of padding 0


HELP = """
hrm build sudoku --generate 2x2 --num-aug 100 --output-dir data/sudoku-4x4
hrm build sudoku --generate 3x3 --difficulty like-extreme --output-dir data/hard
hrm build sudoku --source-dir csv --num-aug 1000 --output-dir data/mine
hrm build sudoku --subsample-size 1000 --num-aug 1000 --output-dir data/extreme

Build a Sudoku data set: of generated puzzles, of CSV files with the columns
source,question,answer,rating, or of such files that are downloaded.
"""


def parse_givens(text: str) -> tuple[int, int] | Literal["minimal"]:
    """'4-7' -> (4, 7), '5' -> (5, 5), 'minimal' as it is.

    Raises:
        UserError: not of that form.
    """
    if text == MINIMAL:
        return MINIMAL
    fewest, dash, most = text.partition("-")
    if not fewest.isdecimal() or (dash and not most.isdecimal()):
        raise UserError("must be a number, MIN-MAX or minimal, e.g. 4-7")
    return int(fewest), int(most if dash else fewest)


Box = Annotated[BoxShape, parsed(parse_box_shape)]
Givens = Annotated[tuple[int, int] | Literal["minimal"], parsed(parse_givens)]
WantedDifficulty = Annotated[Bands, parsed(parse_difficulty)]


class BuildOptions(Config):
    """What to build. The source is `generate`, else `source_dir`, else `source_repo`."""

    output_dir: Path = Field(Path("data/sudoku-extreme-full"), description="where it goes")
    overwrite: bool = Field(False, description="replace an existing data set")
    seed: Seed = Field(0, description="equal seeds give equal bytes")

    source_repo: str = Field(DEFAULT_REPO, description="on Hugging Face")
    source_dir: Path | None = Field(None, description="folder with train.csv and maybe test.csv")
    generate: Box | None = Field(
        None,
        description="new puzzles with boxes of RxC cells",
        json_schema_extra={"metavar": "RxC"},
    )

    givens: Givens | None = Field(
        None,
        description="generated: number of given cells; minimal: none can be taken away",
        json_schema_extra={"metavar": "MIN-MAX"},
    )
    difficulty: WantedDifficulty | None = Field(
        None,
        description="generated 9x9: guesses of a plain search, or like-extreme; minimal puzzles",
        json_schema_extra={"metavar": "MIN-MAX"},
    )
    num_train: PositiveInt = Field(1000, description="generated: training puzzles")
    num_test: Count = Field(500, description="generated: test puzzles")
    workers: PositiveInt | None = Field(
        None, description="minimal, hard: processes; else all cores"
    )

    box: Box | None = Field(
        None,
        description="CSV: box shape, where not the usual",
        json_schema_extra={"metavar": "RxC"},
    )
    subsample_size: PositiveInt | None = Field(None, description="CSV: draw N training puzzles")
    min_difficulty: int | None = Field(None, description="CSV: only ratings of N and above")
    allow_leakage: bool = Field(False, description="CSV: test puzzles may equal training puzzles")

    drop_equivalent: bool = Field(
        False, description="CSV: leave out training puzzles that are test puzzles"
    )

    num_related: Count = Field(
        0, description="CSV, 9x9: as hard ones found around each training puzzle"
    )

    num_aug: Count = Field(0, description="more versions of each puzzle")
    format: Literal["hrm", "original"] = Field(
        default="hrm", description="original: digit + 1, set all"
    )
    identifiers: Literal["per-puzzle", "shared"] = Field(
        default="per-puzzle", description="rows of the puzzle embedding"
    )

    @model_validator(mode="after")
    def _check(self) -> "BuildOptions":
        given = given_options(self)
        check_sources(given, CSV_OPTIONS, GENERATOR_OPTIONS)
        if self.difficulty is not None and self.generate != (3, 3):
            raise ValueError("--difficulty needs --generate 3x3; other puzzles are not rated so")
        if self.difficulty is not None and self.givens not in (None, MINIMAL):
            raise ValueError("--difficulty makes minimal puzzles; drop --givens")
        searched = self.givens == MINIMAL or self.difficulty is not None or self.num_related
        if "workers" in given and not searched:
            raise ValueError(
                "--workers needs --givens minimal, --difficulty or --num-related; drop it"
            )
        if self.format == "original" and "identifiers" in given and self.identifiers != "shared":
            raise ValueError(
                "--identifiers per-puzzle does not go with --format original, which has one for all"
            )
        return self


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
        return _write(options, _read_sources(options, building), building)


# ---- sources ----


def _read_sources(options: BuildOptions, spool_dir: Path) -> _Sources:
    if options.generate is not None:
        box, num_train, num_test = options.generate, options.num_train, options.num_test
        if options.difficulty is not None or options.givens == MINIMAL:
            train, test = generate_minimal_split(
                box, num_train, num_test, options.seed, options.difficulty, options.workers
            )
            _say_how_alike(test)
        else:
            train, test = generate_split(box, num_train, num_test, options.givens, options.seed)
        return _Sources(options.generate, train, test if len(test[0]) else None)

    if options.num_related:
        require_numba(OPTION)
    csv_paths = csv_files(options.source_repo, options.source_dir, "3x3")
    with_ratings = options.min_difficulty is not None
    train_csv = parse_csv(csv_paths[0], options.box, with_ratings=with_ratings, spool_dir=spool_dir)
    if options.num_related and train_csv.box_shape != RATED_BOX:
        raise UserError(f"{OPTION}: {csv_paths[0]} holds no 9x9 puzzles; drop it")
    test_csv = None
    if csv_paths[1] is not None:
        test_csv = parse_csv(
            csv_paths[1], train_csv.box_shape, with_ratings=with_ratings, spool_dir=spool_dir
        )

    rows = _difficult_rows(train_csv, options)
    if len(rows) == 0:
        raise UserError(
            f"--min-difficulty {options.min_difficulty}: no puzzle of {csv_paths[0]} is that "
            f"difficult (the most is {train_csv.ratings.max()}); lower it"
        )
    if test_csv is not None and not options.allow_leakage:
        pairs = find_leakage(train_csv, test_csv)
        rows = np.intersect1d(
            rows, unleaked_rows(train_csv, test_csv, pairs, options.drop_equivalent)
        )
    if len(rows) == 0:
        raise UserError(f"--drop-equivalent leaves no training puzzle of {csv_paths[0]}")
    rows = subsample(rows, options.subsample_size, options.seed, csv_paths[0])
    test_rows = np.empty(0, np.int64) if test_csv is None else _difficult_rows(test_csv, options)
    sources = _Sources(
        train_csv.box_shape,
        _take(train_csv, rows),
        _take(test_csv, test_rows) if test_csv is not None and len(test_rows) else None,
    )
    if options.num_related:
        more = with_related(
            sources.train, sources.test, options.num_related, options.seed, options.workers
        )
        given = len(sources.train[0])
        print(f"found around {given:,} training puzzles: {len(more[0]) - given:,}", file=sys.stderr)
        return replace(sources, train=more)
    return sources


def _say_how_alike(test: Puzzles) -> None:
    grids = len(np.unique(test[1], axis=0))
    if 2 * grids < len(test[1]):
        print(
            f"note: {len(test[1]):,} test puzzles, distinct solutions: {grids:,}; puzzles that "
            "share one are alike, so that an accuracy on them is that of few",
            file=sys.stderr,
        )


def _difficult_rows(puzzles: CsvPuzzles, options: BuildOptions) -> np.ndarray:
    if options.min_difficulty is None:
        return np.arange(len(puzzles.ratings))
    return np.flatnonzero(puzzles.ratings >= options.min_difficulty)


def _take(puzzles: CsvPuzzles, rows: np.ndarray) -> Puzzles:
    if len(rows) == len(puzzles.questions):
        return puzzles.questions, puzzles.answers
    return puzzles.questions[rows], puzzles.answers[rows]


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
        with SplitWriter(building / split, set_name, math.prod(sources.box_shape) ** 2) as writer:
            for inputs, labels in examples:
                rows = np.arange(writer.puzzles, writer.puzzles + len(inputs))
                writer.add_puzzles(identifiers[rows // versions], inputs, labels)
            writer.end_groups(np.arange(versions, writer.puzzles + 1, versions))
            metadata = _metadata(original, sources.box_shape, num_identifiers)
            writer.finish(total_puzzles=original, **metadata)
    return BuildSummary(
        output_dir=options.output_dir,
        train_puzzles=train_count,
        train_rows=train_count * (options.num_aug + 1),
        test_puzzles=0 if sources.test is None else len(sources.test[0]),
    )


def _names(questions: np.ndarray, box_shape: BoxShape) -> Iterator[str]:
    symbols = np.frombuffer(SYMBOLS[: math.prod(box_shape) + 1].encode(), np.uint8)
    with Progress("puzzles named", len(questions)) as progress:
        for question in questions:
            yield symbols[question].tobytes().decode()
            progress.update()


def _examples(
    puzzles: Puzzles, versions: int, box_shape: BoxShape, offset: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of inputs and labels: `versions` rows a puzzle, the first the puzzle itself."""
    questions, answers = puzzles
    count = len(questions) * versions
    with Progress("rows written", count) as progress:
        for start in range(0, count, WRITE_CHUNK_ROWS):
            rows = np.arange(start, min(start + WRITE_CHUNK_ROWS, count))
            puzzle = rows // versions
            chunk = questions[puzzle], answers[puzzle]
            if versions > 1:
                chunk = augment(*chunk, box_shape, rng, keep=rows % versions == 0)
            yield chunk[0] + np.uint8(offset), chunk[1] + np.uint8(offset)
            progress.update(len(rows))


def _metadata(original: bool, box_shape: BoxShape, num_identifiers: int) -> dict[str, Any]:
    side = math.prod(box_shape)
    symbols = SYMBOLS[: side + 1]
    return {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0 if original else NO_IDENTITY,
        "vocab_size": side + 1 + (ORIGINAL_OFFSET if original else 0),
        "num_puzzle_identifiers": num_identifiers,
        "task": "sudoku",
        "grid_shape": (side, side),
        "box_shape": box_shape,
        "symbols": PAD_SYMBOL + symbols if original else symbols,
    }
