"""Build an ARC data set: tasks from JSON files, in versions, as tokens.

The default and `--format original` differ in `dataset.json` only: identifiers, test puzzles and
arrays are the published builder's, byte for byte.
"""

import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from hrm.config import Config, Count, PositiveInt, flag
from hrm.data.writer import SplitWriter, new_dataset, refuse_source, write_identifiers
from hrm.errors import UserError
from hrm.progress import Progress
from hrm.tasks.arc import made_up
from hrm.tasks.arc.drawing import draw_corners, draw_no_corners, draw_versions
from hrm.tasks.arc.encoding import PAD, SIDE, SYMBOLS, VOCAB_SIZE, encode
from hrm.tasks.arc.json_files import read_combined, read_folders
from hrm.tasks.arc.puzzles import (
    BLANK_NAME,
    NO_ANSWER,
    PARTS,
    TEST_PUZZLES_FILE,
    Pair,
    Puzzle,
    Subset,
)
from hrm.tasks.arc.repeats import check_repeats
from hrm.tasks.arc.versions import Versions

SOURCES = ("input_file_prefix", "dataset_dirs", "generate")
TEST_SETS = ("test_set_name", "test_set_name2")
SET_NAME = "all"
CHUNK_EXAMPLES = 8192

HELP = """
hrm build arc --generate --num-aug 7 --output-dir data/arc-made-up
hrm build arc --input-file-prefix arc-agi --subsets training evaluation concept
hrm build arc --dataset-dirs ARC-AGI/data ConceptARC/corpus

Build an ARC data set: of made-up tasks, of combined JSON files as Kaggle has
them (PREFIX_<subset>_challenges.json, …_solutions.json), or of folders with a
file per task.
"""


class BuildOptions(Config):
    """What to build. The source is one of `input_file_prefix`, `dataset_dirs`, `generate`."""

    output_dir: Path = Field(Path("data/arc-aug-1000"), description="where it goes")
    overwrite: bool = Field(False, description="replace an existing data set")
    seed: int = Field(42, ge=0, lt=2**32, description="equal seeds give equal bytes")

    input_file_prefix: Path | None = Field(
        None, description="what the paths of combined files begin with"
    )
    dataset_dirs: tuple[Path, ...] = Field(
        (), description="folders of subsets, or of files of one task each"
    )
    generate: bool = Field(False, description="made-up tasks, drawn from the seed")

    subsets: tuple[str, ...] = Field((), description="in this order; folders: all by default")
    test_set_name: str = Field("evaluation", description="the subset with test tasks")
    test_set_name2: str = Field("your_test_set", description="another, if it is there")

    num_aug: Count = Field(1000, description="more versions of each task, at most")
    puzzle_identifiers_start: PositiveInt = Field(1, description="identifier of the first version")
    side: int | None = Field(
        None,
        ge=1,
        le=SIDE,
        description=f"rows and columns of the canvas; by default {SIDE}, made up {made_up.SIDE}",
    )
    format: Literal["hrm", "original"] = Field(
        "hrm", description="original: dataset.json with the original's keys only"
    )

    @model_validator(mode="after")
    def _check(self) -> "BuildOptions":
        sources = [flag(name) for name in SOURCES if getattr(self, name)]
        if len(sources) != 1:
            known = ", ".join(map(flag, SOURCES))
            raise ValueError(
                f"{' and '.join(sources)} exclude each other; keep one"
                if sources
                else f"name what to build from: one of {known}"
            )
        if self.input_file_prefix and not self.subsets:
            raise ValueError("--input-file-prefix needs --subsets, such as training evaluation")
        if self.generate and self.subsets:
            raise ValueError("--subsets does not go with --generate; drop one")
        if twice := [name for name in self.subsets if self.subsets.count(name) > 1]:
            raise ValueError(f"--subsets: {twice[0]} is named twice; drop one")
        return self

    @property
    def canvas_side(self) -> int:
        return self.side or (made_up.SIDE if self.generate else SIDE)


@dataclass(frozen=True)
class BuildSummary:
    output_dir: Path
    examples: tuple[int, int]  # training and test
    tasks: tuple[int, int]
    versions: int

    def __str__(self) -> str:
        return (
            f"{self.examples[0]:,} training examples ({self.versions:,} versions of "
            f"{self.tasks[0]:,} tasks) and {self.examples[1]:,} test examples "
            f"({self.tasks[1]:,} tasks) in {self.output_dir}"
        )


@dataclass(frozen=True)
class Group:
    """A task and its versions."""

    puzzle: Puzzle
    is_test: bool
    versions: Versions
    identifiers: np.ndarray  # [V] int32

    def pairs_of(self, split: str) -> Sequence[Pair]:
        """What the split has of it: demonstrations of test tasks are trained on."""
        if self.is_test:
            return self.puzzle.pairs[split]
        return self.puzzle.all_pairs if split == "train" else ()


def build(options: BuildOptions) -> BuildSummary:
    """Build the data set that `options` ask for.

    Raises:
        UserError: options or source are at fault, or the disk is; nothing is left behind.
    """
    if options.input_file_prefix is not None:
        refuse_source(options.output_dir, "--input-file-prefix", options.input_file_prefix)
    for folder in options.dataset_dirs:
        refuse_source(options.output_dir, "--dataset-dirs", folder)
    with new_dataset(options.output_dir, options.overwrite) as building:
        subsets = _read(options)
        tests = _test_sets(subsets, options)
        check_repeats(subsets, tests)
        return _write(subsets, tests, options, building)


# ---- sources ----


def _read(options: BuildOptions) -> list[Subset]:
    side = options.canvas_side
    if options.input_file_prefix is not None:
        return read_combined(options.input_file_prefix, options.subsets, side)
    if options.dataset_dirs:
        return read_folders(options.dataset_dirs, options.subsets, side)
    if side < made_up.SIDE:
        raise UserError(f"--side {side}: made-up tasks need {made_up.SIDE} at least")
    return [Subset(options.test_set_name, made_up.puzzles(options.seed))]


def _test_sets(subsets: Sequence[Subset], options: BuildOptions) -> set[str]:
    """Names of the subsets with test tasks; `UserError` where what was named is not there."""
    known = [subset.name for subset in subsets]
    for key in TEST_SETS:
        name = getattr(options, key)
        may_be_missing = key == "test_set_name2" and name == BuildOptions.model_fields[key].default
        if name not in known and not may_be_missing:
            raise UserError(f"{flag(key)} {name}: is no subset; there are {', '.join(known)}")
    return {name for name in known if name in (options.test_set_name, options.test_set_name2)}


# ---- writing ----


def _write(
    subsets: Sequence[Subset], tests: Collection[str], options: BuildOptions, building: Path
) -> BuildSummary:
    rng = np.random.RandomState(options.seed)
    groups, names = draw_groups(
        subsets, tests, options.num_aug, options.puzzle_identifiers_start, rng
    )
    _report_missing(groups, options.num_aug + 1)
    _report_unknown(groups)
    write_identifiers(building, names, ", ")
    marked = options.format != "original"
    tested = [group.puzzle for group in groups if group.is_test]
    test_puzzles = {puzzle.name: puzzle.plain(marked) for puzzle in tested}
    (building / TEST_PUZZLES_FILE).write_text(json.dumps(test_puzzles), encoding="utf-8")
    metadata: dict[str, Any] = {
        "pad_id": PAD,
        "ignore_label_id": PAD,
        "blank_identifier_id": 0,
        "vocab_size": VOCAB_SIZE,
        "num_puzzle_identifiers": len(names),
        "task": "arc",
        "grid_shape": (options.canvas_side, options.canvas_side),
        "symbols": SYMBOLS,
    }
    examples = []
    for split in PARTS:
        with SplitWriter(building / split, SET_NAME, options.canvas_side**2) as writer:
            _write_examples(writer, groups, split, options.canvas_side, rng)
            if options.format == "original":
                writer.finish_as_original(**metadata)
            else:
                writer.finish(total_puzzles=True, **metadata)
            examples.append(writer.examples)
    return BuildSummary(
        output_dir=options.output_dir,
        examples=(examples[0], examples[1]),
        tasks=(len(groups), len(test_puzzles)),
        versions=sum(len(group.versions) for group in groups),
    )


def draw_groups(
    subsets: Sequence[Subset],
    tests: Collection[str],
    num_aug: int,
    first_identifier: int,
    rng: np.random.RandomState,
) -> tuple[list[Group], list[str]]:
    """Tasks in the order of the data set, each with its versions.

    Args:
        tests: names of the subsets with test tasks.
        num_aug: versions of each, at most, besides itself.

    Returns:
        The groups, and the names by identifier; equal names share one.
    """
    groups: list[Group] = []
    names: dict[str, int] = {}
    with Progress("tasks augmented", sum(len(subset.puzzles) for subset in subsets)) as progress:
        for subset in subsets:
            for number in rng.permutation(len(subset.puzzles)):
                puzzle = subset.puzzles[number]
                versions = draw_versions(puzzle.all_pairs, num_aug, rng)
                own = (version.name(puzzle.name) for version in islice(versions, 1, None))
                identifiers = [
                    names.setdefault(name, first_identifier + len(names))
                    for name in chain([puzzle.name], own)
                ]
                is_test = subset.name in tests
                groups.append(Group(puzzle, is_test, versions, np.array(identifiers, np.int32)))
                progress.update()
    return groups, [*repeat(BLANK_NAME, first_identifier), *names]


def _report_missing(groups: Sequence[Group], wanted: int) -> None:
    """Say on stderr which tasks do not have as many versions as were asked for."""
    counts = [len(group.versions) for group in groups if len(group.versions) < wanted]
    if counts:
        print(
            f"note: augmentation not full: {len(counts):,} of {len(groups):,} tasks have fewer "
            f"than {wanted:,} different versions (the fewest {min(counts):,})",
            file=sys.stderr,
        )


def _report_unknown(groups: Sequence[Group]) -> None:
    """Say on stderr how many pairs without an output are learned from."""
    unknown = sum(output is NO_ANSWER for group in groups for _, output in group.pairs_of("train"))
    if unknown:
        pairs = "pair without an output is" if unknown == 1 else "pairs without an output are"
        print(
            f"note: {unknown:,} {pairs} trained on as if it were {NO_ANSWER.tolist()}; leave out "
            "the subset by --subsets",
            file=sys.stderr,
        )


def _write_examples(
    writer: SplitWriter,
    groups: Sequence[Group],
    split: str,
    side: int,
    rng: np.random.RandomState,
) -> None:
    total = sum(len(group.pairs_of(split)) * len(group.versions) for group in groups)
    with Progress(f"{split} examples written", total) as progress:
        for group in groups:
            if not (pairs := group.pairs_of(split)):
                continue
            draw = draw_corners if split == "train" else draw_no_corners
            corners = draw(pairs, group.versions, side, rng)
            step = max(1, CHUNK_EXAMPLES // len(pairs))
            for first in range(0, len(group.versions), step):
                part = slice(first, first + step)
                versions, places = group.versions[part], corners[part]
                inputs, labels = (
                    _encode(grids, versions, places, side) for grids in zip(*pairs, strict=True)
                )
                counts = np.full(len(versions), len(pairs))
                writer.add_puzzles(group.identifiers[part], inputs, labels, counts)
                progress.update(len(versions) * len(pairs))
            writer.end_group()


def _encode(
    grids: Sequence[np.ndarray], versions: Versions, corners: np.ndarray, side: int
) -> np.ndarray:
    """All grids of a version one after the other, [V * P, side * side] uint8."""
    rows = [encode(grid, versions, corners[:, n], side) for n, grid in enumerate(grids)]
    return np.stack(rows, axis=1).reshape(-1, side * side)
