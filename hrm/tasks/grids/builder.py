"""Build a data set of a user's own grids: read, check, make versions, place in a canvas, write."""

import hashlib
import os
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from hrm.config import BelowOne, Config, Count, Seed
from hrm.data.arrays import open_array
from hrm.data.dataset_writer import SET_NAME, FolderWriter
from hrm.data.format import SPLITS, array_path
from hrm.data.split import rows_among
from hrm.data.writer import new_dataset, refuse_source
from hrm.errors import UserError
from hrm.files import looked_in
from hrm.progress import Progress
from hrm.tasks.grids.canvas import MOST_TOKENS, NUMBER_SYMBOLS, Canvas
from hrm.tasks.grids.hook import Hook
from hrm.tasks.grids.jsonl import CHARACTERS, Example, kind_of, read_examples
from hrm.tasks.grids.spool import Spool
from hrm.tasks.grids.task import GridsTask

TRAIN, TEST = range(len(SPLITS))
FILES = tuple(f"{split}.jsonl" for split in SPLITS)  # of a folder
LARGEST_CANVAS = 2**14  # cells
LARGE_PUZZLE = 100  # examples, from which on something may be meant otherwise
VERSION = "|||"  # between a puzzle's name and the number of its version
NAMED = 3  # lines that leak
UNKNOWN = MOST_TOKENS - 1

HELP = """
hrm build grids --source pairs.jsonl --test-share 0.1 --output-dir data/mine
hrm build grids --source in --augment my.py:turn --num-aug 7 --output-dir out

Build a data set of your own grids. Each line of a file is one example, such as
{"input": [[0, 1], [2, 0]], "output": [[1, 0], [0, 2]]}; rows may be text, too.
"puzzle", "group" and "split" are optional: docs/your_own_task.md.
"""


class BuildOptions(Config):
    """What to build, of which files."""

    source: tuple[Path, ...] = Field(
        description="files of JSON Lines, or folders with train.jsonl and maybe test.jsonl",
        min_length=1,
        json_schema_extra={"metavar": "PATH,…"},
    )
    output_dir: Path = Field(description="where it goes")
    overwrite: bool = Field(False, description="replace an existing data set")
    seed: Seed = Field(0, description="of the test share and the versions")
    test_share: BelowOne = Field(
        0.0, description="of the examples that name no split, so many become test examples"
    )
    augment: str | None = Field(
        None,
        description="a Python function that makes versions: (input, output, generator) -> both",
        json_schema_extra={"metavar": "FILE.py:FUNCTION"},
    )
    num_aug: Count = Field(0, description="versions of each training example")
    allow_leakage: bool = Field(False, description="test inputs may be training inputs")

    @model_validator(mode="after")
    def _check(self) -> "BuildOptions":
        if bool(self.augment) != bool(self.num_aug):
            raise ValueError("--augment FILE.py:FUNCTION and --num-aug N go together; give both")
        return self


@dataclass(frozen=True)
class BuildSummary:
    output_dir: Path
    examples: tuple[int, int]  # in train and test, without versions
    rows: int  # in train, with versions
    canvas: Canvas
    symbols: int

    def __str__(self) -> str:
        versions = f" ({self.rows:,} with versions)" if self.rows > self.examples[TRAIN] else ""
        size = "x".join(map(str, self.canvas.shape))
        cells = f"grids of up to {size}" if self.canvas.has_ends else f"grids of {size}"
        return (
            f"{_counted(self.examples[TRAIN], 'training example')}{versions} and "
            f"{_counted(self.examples[TEST], 'test example')}, {cells} cells, "
            f"{_counted(self.symbols, 'symbol')}, in {self.output_dir}"
        )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def build(options: BuildOptions) -> BuildSummary:
    """Build the data set that `options` ask for.

    Raises:
        UserError: options or a line are at fault, or the disk is; nothing is left behind.
    """
    paths = _files(options.source)
    hook = Hook(options.augment, options.seed) if options.augment else None
    with new_dataset(options.output_dir, options.overwrite) as building:
        for path in paths:
            refuse_source(options.output_dir, "--source", path)
        if hook is not None and hook.path is not None:
            refuse_source(options.output_dir, "--augment", hook.path)
        with Spool(building) as spool:
            examples = _Examples(options, hook, spool)
            for path in paths:
                examples.read(path)
            return _write(options, examples, building)


def _files(sources: tuple[Path, ...]) -> list[Path]:
    """The files to read."""
    found: list[Path] = []
    for source in sources:
        if not os.path.exists(source):  # unlike that of Path, this never raises
            raise UserError(f"--source {source}: no such file or folder{looked_in(source)}")
        inner = [source / name for name in FILES if (source / name).exists()]
        if source.is_dir() and not inner:
            raise UserError(f"--source {source}: has no {' and no '.join(FILES)}; name a file")
        found += inner if source.is_dir() else [source]
    return found


# ---- reading ----


@dataclass
class _Largest:
    """The largest size so far, and where it was."""

    size: int = 0
    place: str = ""

    def see(self, size: int, place: str) -> None:
        if size > self.size:
            self.size, self.place = size, place


class _Alphabet:
    """The symbols that occur.

    In the spool, numbers stand for themselves, and characters for their place in the order in which
    they first came.
    """

    def __init__(self) -> None:
        self._first: Example | None = None
        self._most = -1  # the largest number
        self._found: list[int] = []  # characters, by code point
        self._numbers = np.full(sys.maxunicode + 1, UNKNOWN, np.uint8)  # of characters

    def spooled(self, example: Example, grid: np.ndarray) -> np.ndarray:
        """A grid as it is kept, [rows, columns] uint8.

        Raises:
            UserError: it is of another kind than those before it, or there are too many symbols.
        """
        self._first = self._first or example
        if grid.dtype != self._first.input.dtype:
            raise UserError(
                f"{example.place}: has {kind_of(grid)}, but {self._first.place} has "
                f"{kind_of(self._first.input)}; write all grids alike"
            )
        if grid.dtype != CHARACTERS:
            self._most = max(self._most, int(grid.max()))
            return grid
        kept = self._numbers[grid]
        if (kept == UNKNOWN).any():
            for character in np.unique(grid[kept == UNKNOWN]):
                if len(self._found) == UNKNOWN:
                    raise UserError(
                        f"{example.place}: more than {UNKNOWN} different characters, too many; a "
                        "token is one byte"
                    )
                self._numbers[character] = len(self._found)
                self._found.append(int(character))
            kept = self._numbers[grid]
        return kept

    @property
    def symbols(self) -> str:
        """The numbers from 0 to the largest, or the characters that occur, in order."""
        if not self._found:
            return NUMBER_SYMBOLS[: self._most + 1]
        return "".join(map(chr, sorted(self._found)))

    def tokens(self, first: int) -> np.ndarray:
        """What is kept -> token, [256] uint8; the first symbol has the token `first`."""
        order = np.argsort(np.argsort(self._found)) if self._found else np.arange(self._most + 1)
        tokens = np.zeros(MOST_TOKENS, np.uint8)
        tokens[: len(order)] = order + first
        return tokens


@dataclass
class _Examples:
    """What was read so far."""

    options: BuildOptions
    hook: Hook | None
    spool: Spool
    alphabet: _Alphabet = field(default_factory=_Alphabet)
    rows: _Largest = field(default_factory=_Largest)
    columns: _Largest = field(default_factory=_Largest)
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    names: dict[str, int] = field(default_factory=dict)  # puzzle -> its first example
    groups: dict[str, int] = field(default_factory=dict)  # likewise
    test_places: list[str] = field(default_factory=list)
    undecided: int = 0  # examples that named no split

    def read(self, path: Path) -> None:
        with Progress(f"characters of {path.name} read", path.stat().st_size) as progress:
            for example in read_examples(path, progress):
                self._add(example, TEST if path.name == FILES[TEST] else TRAIN)

    def _add(self, example: Example, usual: int) -> None:
        number = len(self.spool)  # also of a puzzle and of a group that begin with it
        name = example.group if example.group is not None else example.puzzle
        group = number if name is None else self.groups.setdefault(name, number)
        puzzle = number
        if example.puzzle is not None:
            puzzle = self.names.setdefault(example.puzzle, number)
        split = self._split_of(example, name, usual)
        versions = [(example.input, example.output)]
        if self.hook and split == TRAIN:
            versions += self.hook.versions(example, puzzle, self.options.num_aug)
        if split == TEST:
            self.test_places.append(example.place)
        self.spool.add(split, group, puzzle, (self._kept(example, pair) for pair in versions))

    def _kept(
        self, example: Example, pair: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        for grid in pair:
            self.rows.see(grid.shape[0], example.place)
            self.columns.see(grid.shape[1], example.place)
            if len(self.shapes) < 2:
                self.shapes.add(grid.shape)
            if self.rows.size * self.columns.size > LARGEST_CANVAS:
                raise UserError(
                    f"the tallest grid has {self.rows.size} rows ({self.rows.place}), the widest "
                    f"{self.columns.size} columns ({self.columns.place}): more than "
                    f"{LARGEST_CANVAS:,} cells together; leave such grids out"
                )
        return self.alphabet.spooled(example, pair[0]), self.alphabet.spooled(example, pair[1])

    def _split_of(self, example: Example, group: str | None, usual: int) -> int:
        """Of an undecided example the group decides, else the input: equal ones stay together."""
        if example.split is not None:
            return SPLITS.index(example.split)
        if usual == TEST:
            return TEST
        self.undecided += 1
        named = example.input.tobytes() if group is None else group.encode(errors="surrogatepass")
        digest = hashlib.blake2b(named, digest_size=8, key=self.options.seed.to_bytes(8)).digest()
        return TEST if int.from_bytes(digest) < self.options.test_share * 2**64 else TRAIN


# ---- writing ----


def _write(options: BuildOptions, examples: _Examples, building: Path) -> BuildSummary:
    shape = (examples.rows.size, examples.columns.size)
    tests = len(examples.test_places)
    counts = (len(examples.spool) - tests, tests)
    if not counts[TRAIN]:
        sources = ", ".join(map(str, options.source))
        found = f"only {tests:,} test examples" if tests else "no example"
        raise UserError(f"--source {sources}: {found}; there must be training examples")
    if options.test_share and not examples.undecided:
        raise UserError("--test-share: all examples name their split; leave it out")
    canvas = Canvas(shape, has_ends=examples.shapes != {shape})
    symbols = canvas.symbols(examples.alphabet.symbols)
    if len(symbols) > MOST_TOKENS:
        raise UserError(
            f"{len(examples.alphabet.symbols)} symbols are one too many where grids differ in "
            "size, since the end mark is one, too"
        )
    known: dict[str, Any] = {"symbols": symbols, "task": GridsTask.name, "grid_shape": shape}
    with closing(FolderWriter(building, **known)) as writer:
        rows = _write_examples(examples, canvas, writer)
        writer.finish()
    if tests and not options.allow_leakage:
        _refuse_leakage(examples, building)
    return BuildSummary(options.output_dir, counts, rows, canvas, len(examples.alphabet.symbols))


def _write_examples(examples: _Examples, canvas: Canvas, writer: FolderWriter) -> int:
    """Write all; returns how many rows the training split has."""
    tokens = examples.alphabet.tokens(canvas.first_symbol)
    names = dict(zip(examples.names.values(), examples.names, strict=True))
    largest, rows = _Largest(), [0, 0]
    with Progress("examples written", len(examples.spool)) as progress:
        for split in (TRAIN, TEST):
            for group, puzzle, own in examples.spool.puzzles(split):
                name = names.get(puzzle)
                largest.see(len(own), name or "")
                for number, pairs in enumerate(examples.spool.versions(own)):
                    version = f"{name}{VERSION}{number}" if name and number else name
                    for pair in pairs:
                        inputs, labels = (canvas.place(tokens[grid]) for grid in pair)
                        writer.add(group, version, inputs, labels, SPLITS[split])
                        rows[split] += 1
                progress.update(len(own))
    if largest.size > LARGE_PUZZLE:
        print(
            f"note: puzzle {largest.place!r} has {largest.size:,} examples, which are drawn "
            'together; if each is a puzzle of its own, leave "puzzle" out or give each a "group"',
            file=sys.stderr,
        )
    return rows[TRAIN]


def _refuse_leakage(examples: _Examples, building: Path) -> None:
    """Raise `UserError` where an input of the test split is one of the training split."""
    train, test = (open_array(array_path(building / split, SET_NAME, "inputs")) for split in SPLITS)
    leaking = np.flatnonzero(rows_among(test, train))
    if not len(leaking):
        return
    order = [example for *_, own in examples.spool.puzzles(TEST) for example in own]
    places = np.array(examples.test_places)[np.argsort(np.argsort(order))]
    named = ", ".join([*places[leaking[:NAMED]], *(["…"] if len(leaking) > NAMED else [])])
    inputs = "test input is" if len(leaking) == 1 else "test inputs are"
    raise UserError(
        f"{len(leaking):,} of {len(test):,} {inputs} in training, too ({named}), so evaluation "
        "would not be on unseen examples; leave them out, or pass --allow-leakage"
    )
