"""Build a data set of mazes: take them from a source, check, turn and write them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from hrm.config import Config, Count, PositiveInt, Seed
from hrm.data.grid import PAD_SYMBOL, Shape
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
from hrm.tasks.maze.csv_file import find_leakage, parse_csv
from hrm.tasks.maze.generator import Puzzles, generate_split, parse_maze_shape
from hrm.tasks.maze.rules import SYMBOLS
from hrm.tasks.maze.symmetry import places

DEFAULT_REPO = "sapientinc/maze-30x30-hard-1k"
CSV_OPTIONS = ("subsample_size", "allow_leakage", "drop_equivalent")
GENERATOR_OPTIONS = ("min_path", "num_train", "num_test")
WRITE_CHUNK_MAZES = 512

HELP = """
hrm build maze --generate 11x11 --aug --output-dir data/maze-11x11
hrm build maze --source-dir csv --output-dir data/mine
hrm build maze --aug

Build a data set of mazes: generated, from CSV files with the columns
source,question,answer,rating, or from such files that are downloaded. A maze
is written row by row: # wall, space free, S start, G goal, o shortest path.
"""

MazeShape = Annotated[Shape, parsed(parse_maze_shape)]


class BuildOptions(Config):
    """What to build. The source is `generate`, else `source_dir`, else `source_repo`."""

    output_dir: Path = Field(Path("data/maze-30x30-hard-1k"), description="where it goes")
    overwrite: bool = Field(False, description="replace an existing data set")
    seed: Seed = Field(0, description="equal seeds give equal bytes")

    source_repo: str = Field(DEFAULT_REPO, description="on Hugging Face")
    source_dir: Path | None = Field(None, description="folder with train.csv and maybe test.csv")
    generate: MazeShape | None = Field(
        None,
        description="new mazes of R rows, C columns; best odd",
        json_schema_extra={"metavar": "RxC"},
    )

    min_path: PositiveInt | None = Field(
        None, description="generated: moves at least; null: as corner to corner"
    )
    num_train: PositiveInt = Field(1000, description="generated: training mazes")
    num_test: Count = Field(500, description="generated: test mazes")

    subsample_size: PositiveInt | None = Field(None, description="CSV: draw N training mazes")
    allow_leakage: bool = Field(False, description="CSV: test mazes may equal training mazes")
    drop_equivalent: bool = Field(
        False, description="CSV: leave out training mazes that are test mazes"
    )

    aug: bool = Field(False, description="training mazes turned and reflected, too")
    format: Literal["hrm", "original"] = Field(
        default="hrm", description="original: set all, blank 0"
    )

    @model_validator(mode="after")
    def _check(self) -> "BuildOptions":
        check_sources(given_options(self), CSV_OPTIONS, GENERATOR_OPTIONS)
        return self


@dataclass(frozen=True)
class _Sources:
    shape: Shape
    train: Puzzles
    test: Puzzles | None


def build(options: BuildOptions) -> BuildSummary:
    """Build the data set that `options` ask for.

    Raises:
        UserError: options or source are at fault, or the disk is; nothing is left behind.
    """
    with new_dataset(options.output_dir, options.overwrite, options.source_dir) as building:
        return _write(options, _read_sources(options), building)


def _read_sources(options: BuildOptions) -> _Sources:
    if options.generate is not None:
        train, test = generate_split(
            options.generate, options.num_train, options.num_test, options.min_path, options.seed
        )
        return _Sources(options.generate, train, test if len(test[0]) else None)

    train_path, test_path = csv_files(options.source_repo, options.source_dir, "11x11")
    train_csv = parse_csv(train_path)
    test_csv = None if test_path is None else parse_csv(test_path, train_csv.shape)
    rows = np.arange(len(train_csv.lines))
    if test_csv is not None and not options.allow_leakage:
        pairs = find_leakage(train_csv, test_csv)
        rows = unleaked_rows(train_csv, test_csv, pairs, options.drop_equivalent)
    if len(rows) == 0:
        raise UserError(f"--drop-equivalent leaves no training puzzle of {train_path}")
    rows = subsample(rows, options.subsample_size, options.seed, train_path)
    return _Sources(
        train_csv.shape,
        (train_csv.questions[rows], train_csv.answers[rows]),
        None if test_csv is None else (test_csv.questions, test_csv.answers),
    )


def _write(options: BuildOptions, sources: _Sources, building: Path) -> BuildSummary:
    original = options.format == "original"
    write_identifiers(building, ["<blank>" if original else "shared"])
    all_places = places(sources.shape)
    versions = all_places if options.aug else all_places[:1]
    _write_split(building / "train", sources.train, versions, sources.shape, original)
    if sources.test is not None:
        _write_split(building / "test", sources.test, all_places[:1], sources.shape, original)
    count = len(sources.train[0])
    return BuildSummary(
        output_dir=options.output_dir,
        train_puzzles=count,
        train_rows=count * len(versions),
        test_puzzles=0 if sources.test is None else len(sources.test[0]),
    )


def _write_split(
    folder: Path, puzzles: Puzzles, versions: np.ndarray, shape: Shape, original: bool
) -> None:
    count, cells = len(puzzles[0]), math.prod(shape)
    set_name = "all" if original else folder.name
    with (
        SplitWriter(folder, set_name, cells) as writer,
        Progress("mazes written", count) as progress,
    ):
        for start in range(0, count, WRITE_CHUNK_MAZES):
            inputs, labels = (
                tokens[start : start + WRITE_CHUNK_MAZES, versions].reshape(-1, cells)
                for tokens in puzzles
            )
            writer.add_puzzles(np.zeros(len(inputs), np.int32), inputs, labels)
            progress.update(len(inputs) // len(versions))
        writer.end_groups(np.arange(len(versions), writer.puzzles + 1, len(versions)))
        writer.finish(total_puzzles=original, **_metadata(original, shape))


def _metadata(original: bool, shape: Shape) -> dict[str, Any]:
    return {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0 if original else -1,
        "vocab_size": len(PAD_SYMBOL + SYMBOLS),
        "num_puzzle_identifiers": 1,
        "task": "maze",
        "grid_shape": shape,
        "symbols": PAD_SYMBOL + SYMBOLS,
    }
