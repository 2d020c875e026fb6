"""What the builders share whose puzzles come from CSV files, or are generated."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from pydantic import BeforeValidator

from hrm.config import Config, flag
from hrm.data.grid import Shape
from hrm.errors import UserError
from hrm.files import looked_in, not_a_folder
from hrm.hub import Repository, fetch

SOURCE_OPTIONS = ("source_repo", "source_dir", "generate")
NAMED_PAIRS = 3


@dataclass(frozen=True)
class BuildSummary:
    output_dir: Path
    train_puzzles: int
    train_rows: int
    test_puzzles: int

    def __str__(self) -> str:
        return (
            f"{self.train_rows:,} training rows ({self.train_puzzles:,} puzzles) and "
            f"{self.test_puzzles:,} test puzzles in {self.output_dir}"
        )


def parsed(parse: Callable[[str], Shape]) -> BeforeValidator:
    """For an option whose value is written as text."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


class CsvSource(Protocol):
    """The puzzles of a CSV file."""

    @property
    def path(self) -> Path: ...

    @property
    def lines(self) -> np.ndarray:
        """[N] integers, the line of each puzzle, counted from 1."""


def given_options(options: Config) -> set[str]:
    """The options that were given a value other than none or false."""
    return {
        name for name, value in options if value is not None and value is not False
    } & options.model_fields_set


def check_sources(given: set[str], of_csv: Sequence[str], of_generator: Sequence[str]) -> None:
    """Raise ValueError where sources exclude each other, or an option belongs to another one.

    Args:
        given: names of options.
        of_csv, of_generator: those that go only without, and only with, `generate`.
    """
    sources = [flag(name) for name in SOURCE_OPTIONS if name in given]
    if len(sources) > 1:
        raise ValueError(f"{' and '.join(sources)} exclude each other; keep one")
    generated = "generate" in given
    for name in of_csv if generated else of_generator:
        if name in given:
            relation = "does not go with" if generated else "needs"
            way_out = "drop one" if generated else "drop one or add the other"
            raise ValueError(f"{flag(name)} {relation} --generate; {way_out}")
    if {"allow_leakage", "drop_equivalent"} <= given:
        raise ValueError("--allow-leakage and --drop-equivalent exclude each other; keep one")


def csv_files(
    source_repo: str, source_dir: Path | None, generate_instead: str
) -> tuple[Path, Path | None]:
    """The files to read: train and, where there is one, test.

    Args:
        source_repo: on Hugging Face, where no folder is given.
        generate_instead: what to give to `--generate` where nothing can be downloaded.

    Raises:
        UserError: they are not there, or cannot be downloaded.
    """
    if source_dir is None:
        folder = "use --source-dir FOLDER (with train.csv, test.csv)"
        way_out = f"{folder} or --generate {generate_instead} instead"
        return _download(source_repo, way_out)
    if source_dir.is_file():
        wanted = not_a_folder(source_dir, "the folder that holds train.csv")
        raise UserError(f"--source-dir {source_dir}: {wanted}")
    if not source_dir.is_dir():
        raise UserError(f"--source-dir {source_dir}: no such folder{looked_in(source_dir)}")
    train, test = source_dir / "train.csv", source_dir / "test.csv"
    if not train.exists():
        raise UserError(f"{train}: not found; --source-dir must hold train.csv")
    return train, test if test.exists() else None


def _download(source_repo: str, way_out: str) -> tuple[Path, Path | None]:
    """`train.csv` and, where there is one, `test.csv` of a data set on the Hub or in its cache."""
    said = f"--source-repo {source_repo}"
    try:
        repository = Repository.parse(source_repo, "dataset")
    except UserError as error:
        raise UserError(f"--source-repo {error}; {way_out}") from None
    train, test = (str(PurePosixPath(repository.place, name)) for name in ("train.csv", "test.csv"))

    def choose(names: Sequence[str]) -> list[str]:
        if train not in names:
            raise UserError(f"{said}: has no {train}; {way_out}")
        return [name for name in (train, test) if name in names]

    folder = fetch(repository, choose, said, way_out)
    has_test = (folder / test).exists()
    if not has_test:
        print(f"note: {said}: has no {test}, so there is no test split", file=sys.stderr)
    return folder / train, folder / test if has_test else None


def unleaked_rows(
    train: CsvSource, test: CsvSource, pairs: Sequence[tuple[int, int]], drop: bool
) -> np.ndarray:
    """Training puzzles that may be used, [n] integers; says how many are dropped.

    Args:
        pairs: rows of `train` that are test puzzles up to symmetry, and of `test`.
        drop: leave them out.

    Raises:
        UserError: there are some, and they are not to be left out.
    """
    rows = np.arange(len(train.lines))
    if not pairs:
        print(
            f"0 of {len(rows):,} training puzzles are test puzzles up to symmetry", file=sys.stderr
        )
        return rows
    found = _describe(train, test, pairs)
    if not drop:
        raise UserError(
            f"{found}, so evaluation would not be on unseen puzzles; leave these out of training "
            "by --drop-equivalent, or pass --allow-leakage"
        )
    print(f"{found}; dropped", file=sys.stderr)
    return np.delete(rows, [row for row, _ in pairs])


def _describe(train: CsvSource, test: CsvSource, pairs: Sequence[tuple[int, int]]) -> str:
    """How many training puzzles are test puzzles, and which the first of them are."""
    named = ", ".join(
        f"{train.path}:{train.lines[row]} is {test.path}:{test.lines[other]}"
        for row, other in pairs[:NAMED_PAIRS]
    )
    more = ", …" if len(pairs) > NAMED_PAIRS else ""
    puzzles = "puzzle is a test puzzle" if len(pairs) == 1 else "puzzles are test puzzles"
    return f"{len(pairs):,} training {puzzles} up to symmetry ({named}{more})"


def subsample(rows: np.ndarray, size: int | None, seed: int, path: Path) -> np.ndarray:
    """`size` of the rows at random, in their order; all of them where it is None or not smaller.

    Says so where there are fewer.

    Args:
        path: of their file, for messages.
    """
    if size is None or size >= len(rows):
        if size is not None and size > len(rows):
            said = (
                f"note: --subsample-size {size}: only {len(rows)} puzzles in {path}; all are taken"
            )
            print(said, file=sys.stderr)
        return rows
    return np.sort(np.random.default_rng([seed, 0]).choice(rows, size, replace=False))
