"""Writing a data set from Python, example by example, with names instead of numbers.

Shapes: T tokens per example.
"""

from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import ValidationError

from hrm.data.format import NO_IDENTITY, SPLITS, DatasetMetadata
from hrm.data.grid import Shape
from hrm.data.writer import SplitWriter, new_dataset, write_identifiers
from hrm.errors import UserError, first_mistake

SET_NAME = "all"
SHARED = "shared"  # name of the one identifier, where puzzles have no names
LARGEST_VOCABULARY = 256  # tokens are stored as uint8


class FolderWriter:
    """Writes examples into an empty folder, which `finish` makes a data set.

    Args:
        folder: of `new_dataset`.
        vocab_size: tokens are 0 … vocab_size - 1; None: as many as there are symbols, or as occur.
        symbols: token -> character, for drawing and for reading puzzles.
        task: whose rules these puzzles keep, by its name.
        grid_shape: of examples that are added flat, where they are grids.
        box_shape: of grids that are divided into boxes; None: the whole grid is one.
        pad_id: the token of rows that fill up a batch.
        ignore_label_id: the token of labels that do not count; None: all count.

    Raises:
        UserError: a number is out of range, or symbols cannot be shown.
    """

    def __init__(
        self,
        folder: Path,
        *,
        vocab_size: int | None = None,
        symbols: str | None = None,
        task: str = "grids",
        grid_shape: Shape | None = None,
        box_shape: Shape | None = None,
        pad_id: int = 0,
        ignore_label_id: int | None = None,
    ):
        self._folder = folder
        self._vocab_size = len(symbols) if vocab_size is None and symbols else vocab_size
        self._grid_shape = None if grid_shape is None else (grid_shape[0], grid_shape[1])
        self._box_shape = box_shape
        self._fields = {
            "pad_id": pad_id,
            "ignore_label_id": ignore_label_id,
            "blank_identifier_id": NO_IDENTITY,
            "task": task,
            "symbols": symbols,
        }
        self._length: int | None = None  # T
        self._most = -1  # the largest token so far
        self._numbers: dict[str, int] = {}  # name of a puzzle -> how many came before it
        self._splits: dict[str, _Split] = {}
        self._metadata(1)  # refuses what is wrong from the beginning

    def add(
        self,
        group: str | int | None,
        puzzle: str | None,
        inputs: Any,
        labels: Any,
        split: str = "train",
    ) -> None:
        """Add one example.

        Args:
            group: names a puzzle and its versions, of which an epoch draws one; its examples must
                be added one after the other. None: a group of its own.
            puzzle: names the identity, a row of the puzzle embedding. Examples of one group and one
                puzzle, added one after the other, are drawn together. None: a puzzle of its own,
                without an identity; where no puzzle of the training split has a name, all share
                one. A test puzzle has the identity of the training puzzle of its name, else none.
            inputs, labels: integers, a grid [rows, columns] or flat [T]; all examples alike.
            split: train or test.

        Raises:
            UserError: the example does not fit; names group and puzzle.
        """
        where = f"group {group!r}, puzzle {puzzle!r}"
        if split not in SPLITS:
            raise UserError(f"{where}: split {split!r}: must be train or test")
        if not (puzzle is None or isinstance(puzzle, str)):
            raise UserError(f"{where}: the puzzle's name must be text or None")
        if isinstance(group, bool) or not isinstance(group, str | int | None):
            raise UserError(f"{where}: the group's name must be text, a whole number or None")
        row = self._tokens(inputs, f"{where}: inputs")
        answer = self._tokens(labels, f"{where}: labels")
        if split not in self._splits:
            assert self._length is not None
            self._splits[split] = _Split(SplitWriter(self._folder / split, SET_NAME, self._length))
        number = -1
        if puzzle is not None:
            number = self._numbers.setdefault(puzzle, len(self._numbers))
        self._splits[split].add(group, number, row, answer, where)

    def finish(self) -> DatasetMetadata:
        """Write what is left; returns the metadata of the training split.

        Raises:
            UserError: there is no training example.
        """
        if "train" not in self._splits:
            raise UserError("no training example was added; add some with split='train'")
        for own in self._splits.values():
            own.end_group()
        named = np.frombuffer(self._splits["train"].numbers, np.int32)
        named, first = np.unique(named[named >= 0], return_index=True)
        named = named[np.argsort(first)]  # in the order in which they were added
        identifiers = np.full(len(self._numbers) + 1, NO_IDENTITY, np.int32)  # the last: no name
        identifiers[named] = np.arange(len(named))
        metadata = self._metadata(max(1, len(named)))
        identifiers[identifiers == NO_IDENTITY] = NO_IDENTITY if len(named) else 0
        names = list(self._numbers)
        write_identifiers(self._folder, (names[n] for n in named) if len(named) else [SHARED])
        fields = metadata.model_dump(
            exclude={"sets", "seq_len", "total_groups", "mean_puzzle_examples"}
        )
        written = {
            split: own.writer.finish(identifiers[np.frombuffer(own.numbers, np.int32)], **fields)
            for split, own in self._splits.items()
        }
        return written["train"]

    def close(self) -> None:
        """Close the files."""
        for own in self._splits.values():
            own.writer.__exit__()

    def _metadata(self, identifiers: int) -> DatasetMetadata:
        pad_id = self._fields["pad_id"]
        most = max(self._most, pad_id if isinstance(pad_id, int) else 0)
        vocab_size = most + 1 if self._vocab_size is None else self._vocab_size
        if vocab_size > LARGEST_VOCABULARY:
            raise UserError(f"vocab_size={vocab_size}: must be at most {LARGEST_VOCABULARY}")
        try:
            return DatasetMetadata(
                vocab_size=vocab_size,
                seq_len=self._length or int(np.prod(self._grid_shape or 1)),
                num_puzzle_identifiers=identifiers,
                total_groups=0,
                mean_puzzle_examples=0,
                sets=(SET_NAME,),
                grid_shape=self._grid_shape,
                box_shape=self._box_shape or self._grid_shape,
                **self._fields,
            )
        except ValidationError as error:
            key, reason = first_mistake(error)
            raise UserError(f"{key}: {reason}") from None

    def _tokens(self, given: Any, where: str) -> np.ndarray:
        """One row of tokens, [1, T] uint8.

        Raises:
            UserError: another shape or dtype than that of other examples, or a token too large.
        """
        try:
            tokens = np.asarray(given)
        except ValueError:
            raise UserError(f"{where}: rows differ in length") from None
        if tokens.dtype.kind not in "iu" or tokens.ndim not in (1, 2) or not tokens.size:
            raise UserError(
                f"{where}: {tokens.dtype} of shape {list(tokens.shape)}, expected integers, a grid "
                "[rows, columns] or flat"
            )
        if self._length is None:
            if tokens.ndim == 2 and self._grid_shape is None:
                self._grid_shape = tokens.shape[0], tokens.shape[1]
            self._length = int(np.prod(self._grid_shape or tokens.shape))
        if tokens.shape not in ((self._length,), self._grid_shape):
            known = f"{list(self._grid_shape)} or " if self._grid_shape else ""
            raise UserError(
                f"{where}: shape {list(tokens.shape)}, expected {known}[{self._length}] as all "
                "examples of a data set"
            )
        limit = (LARGEST_VOCABULARY if self._vocab_size is None else self._vocab_size) - 1
        least, most = int(tokens.min()), int(tokens.max())
        if least < 0 or most > limit:
            wrong = least if least < 0 else most
            raise UserError(f"{where}: token {wrong} is not in 0..{limit}")
        self._most = max(self._most, most)
        return tokens.astype(np.uint8).reshape(1, -1)


class _Split:
    """A split that is being written: what came last, and what must not come again."""

    def __init__(self, writer: SplitWriter):
        self.writer = writer
        self.numbers = array("i")  # of each puzzle; -1: it has no name
        self._group: str | int | None = None
        self._known_groups: set[str | int] = set()
        self._known_puzzles: set[int] = set()  # of the group
        self._puzzle: int | None = None  # that has not ended
        self._ended = 0  # puzzles of groups that have

    def add(
        self,
        group: str | int | None,
        puzzle: int,
        inputs: np.ndarray,
        labels: np.ndarray,
        where: str,
    ) -> None:
        if group is None or group != self._group:
            if group is not None and group in self._known_groups:
                raise UserError(
                    f"{where}: this group comes again after another; add all of a group's examples "
                    "one after the other"
                )
            self.end_group()
            self._group = group
            if group is not None:
                self._known_groups.add(group)
        if puzzle < 0 or puzzle != self._puzzle:
            if puzzle in self._known_puzzles:
                raise UserError(
                    f"{where}: this puzzle comes again after another of its group; add all of a "
                    "puzzle's examples one after the other"
                )
            self._end_puzzle()
            self._puzzle = puzzle
            if puzzle >= 0:
                self._known_puzzles.add(puzzle)
        self.writer.add_examples(inputs, labels)

    def _end_puzzle(self) -> None:
        if self._puzzle is not None:
            self.writer.end_puzzle(NO_IDENTITY)  # its identifier is known at the end
            self.numbers.append(self._puzzle)
        self._puzzle = None

    def end_group(self) -> None:
        self._end_puzzle()
        if self.writer.puzzles > self._ended:
            self.writer.end_group()
            self._ended = self.writer.puzzles
        self._known_puzzles.clear()


class DatasetWriter(FolderWriter):
    """Writes a data set from Python: whole or not at all, and with bounded memory.

        with DatasetWriter("data/mine", symbols="_.#") as writer:
            for question, answer in pairs:
                writer.add(None, None, question, answer)

    The folder appears at the end of the block; where an error leaves the block, nothing does.

    Args:
        output_dir: the folder to make.
        overwrite: a data set that is there is replaced.
        known: the other arguments of `FolderWriter`: `vocab_size`, `symbols`, `task`, `grid_shape`,
            `box_shape`, `pad_id`, `ignore_label_id`.

    Raises:
        UserError: on entering: the folder is there or cannot be written; on leaving: there is no
            training example, or the disk is full.
    """

    def __init__(self, output_dir: str | Path, *, overwrite: bool = False, **known: Any):
        super().__init__(Path(output_dir), **known)
        self._output_dir, self._overwrite = Path(output_dir), overwrite
        self._writing: AbstractContextManager[Self] | None = None

    def __enter__(self) -> Self:
        self._writing = self._dataset()
        return self._writing.__enter__()

    def __exit__(self, *raised: Any) -> bool | None:
        assert self._writing is not None
        writing, self._writing = self._writing, None
        return writing.__exit__(*raised)

    @contextmanager
    def _dataset(self) -> Iterator[Self]:
        with new_dataset(self._output_dir, self._overwrite) as self._folder:
            try:
                yield self
                self.finish()
            finally:
                self.close()

    def add(
        self,
        group: str | int | None,
        puzzle: str | None,
        inputs: Any,
        labels: Any,
        split: str = "train",
    ) -> None:
        """As `FolderWriter.add`, within the `with` block."""
        if self._writing is None:
            raise UserError("add examples within `with DatasetWriter(…) as writer:`")
        super().add(group, puzzle, inputs, labels, split)
