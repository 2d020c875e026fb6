"""The contract of a task: reading, showing, judging and turning its puzzles.

`Task` itself is the task of which nothing is known: its grids are drawn, and never judged. A task
of its own derives from it and answers what it knows. Nothing outside of `hrm.tasks` asks which task
it is dealing with.

Shapes: N puzzles, T tokens per puzzle, V vocabulary, U units.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from hrm.data.format import DatasetMetadata
from hrm.data.grid import Grid, infer_symbols
from hrm.errors import UserError
from hrm.tasks.reading import Notation, PuzzleError

CHUNK = 4096  # puzzles checked at a time
FIRST_LETTER = 0x100  # Ā; from here on letters are taken for tokens without a symbol


@dataclass(frozen=True)
class Contradiction:
    """Why a puzzle cannot have an answer, such as a given that stands twice in a unit."""

    reason: str
    cell: int | None  # the one at fault (of two the second), where it is a single one


@dataclass(frozen=True)
class Unit:
    """Cells that must not hold a symbol twice, such as a row."""

    name: str
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Difficulty:
    """How hard puzzles are, by a whole number."""

    values: np.ndarray  # N, int32; more than `most`: not found out; -1: without a solution
    most: int
    name: str  # what is counted, such as guesses
    meaning: str  # one sentence


@dataclass(frozen=True)
class Symmetry:
    """A change of a puzzle that changes its answer alike."""

    place: np.ndarray  # T, int64: which cell comes to stand here
    tokens: np.ndarray  # V, int64: what each token becomes

    def apply(self, puzzles: np.ndarray) -> np.ndarray:
        """Versions of puzzles, [..., T] -> [..., T], same dtype."""
        return self.tokens[puzzles[..., self.place]].astype(puzzles.dtype)

    def undo(self, answers: np.ndarray) -> np.ndarray:
        """Answers to the versions -> answers to the puzzles, [..., T], same dtype."""
        return np.argsort(self.tokens)[self.undo_cells(answers)].astype(answers.dtype)

    def undo_cells(self, values: np.ndarray) -> np.ndarray:
        """One value per cell of a version -> of the puzzle, [..., T]."""
        return values[..., np.argsort(self.place)]

    def undo_probabilities(self, values: np.ndarray) -> np.ndarray:
        """One value per cell and token of a version -> of the puzzle, [..., T, V]."""
        return values[..., np.argsort(self.place), :][..., self.tokens]


class Evaluator(Protocol):
    """What a task finds out in an evaluation besides the metrics that all tasks have."""

    def update(self, step: Any) -> None:
        """Take in an `hrm.rollout.RolloutStep`, whose puzzles have all halted in it."""

    def reduce(self, ranks: Any) -> tuple[dict[str, float], dict[str, str]]:
        """Metrics and artefacts of all ranks, an `hrm.ranks.Ranks`.

        Artefacts are texts of files, by name (`<evaluator>/<file>`), on rank 0; none elsewhere.
        """


@runtime_checkable
class VotingEvaluator(Evaluator, Protocol):
    """One in which all versions of a puzzle vote, also those that were saved earlier."""

    def add(self, batch: Mapping[str, Any]) -> None:
        """Take in puzzles by what is saved of them: `inputs`, `preds` (the predictions) [B, T],
        `puzzle_identifiers` and `q_halt_logits` [B]; tensors or arrays."""


@dataclass(frozen=True)
class NamedPuzzle:
    """A puzzle of a file that names it."""

    place: str  # where it stands, for messages
    name: str
    inputs: np.ndarray  # T, int32
    answer: np.ndarray | None  # T, int64, negative where unknown


@dataclass(frozen=True)
class Choice:
    """An answer that votes were given to."""

    tokens: np.ndarray  # T, int32
    votes: int
    halt_probability: float  # a mean over the votes
    first: int  # which version gave it first, from 0


class Poll(Protocol):
    """A puzzle that is asked in V versions which a model knows by name, and whose answers vote.

    The first version is the puzzle itself.
    """

    tries: int  # answers that may be given to the puzzle
    inputs: np.ndarray  # V T, int32
    identifiers: np.ndarray  # V, int32

    def undo(
        self, version: int, answer: np.ndarray, confidence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """An answer to a version as one to the puzzle: tokens, [T] integers, and a value a cell."""

    def count(self, answers: np.ndarray, halt_probability: Sequence[float]) -> list[Choice]:
        """The answers to the versions, [V, T] integers, as answers to the puzzle, best first."""


class Polls(Protocol):
    """The versions that a model knows of each puzzle."""

    def of(self, name: str, inputs: np.ndarray, most: int, place: str) -> Poll:
        """Up to `most` versions of a puzzle, [T] integers.

        Args:
            place: where the puzzle stands, for messages.

        Raises:
            UserError: the name is not known.
        """


class Task:
    """Grids of which no rule is known."""

    name: ClassVar[str] = "grids"
    best_metric: ClassVar[str] = "exact_accuracy"  # of an evaluation; higher is better
    judges: ClassVar[bool] = False  # whether `are_valid` knows the rules
    takes_guesses: ClassVar[bool] = False  # whether cells of an answer may be given as well
    file_suffix: ClassVar[str | None] = None  # of files that `read_file` reads
    votes_by_name: ClassVar[bool] = False  # whether `polls` knows versions; else by `symmetries`
    votes_of_file: ClassVar[int] = 1  # versions to ask of a puzzle of a file, if not said
    without_name: ClassVar[str | None] = None  # what to say of a puzzle without a name

    def __init__(self, metadata: DatasetMetadata):
        self.metadata = metadata

    @classmethod
    def fits(cls, metadata: DatasetMetadata) -> bool:
        """Whether a data set can be of this task, from its shapes and symbols alone."""
        return True

    @classmethod
    def infer_symbols(cls, metadata: DatasetMetadata) -> str:
        """Token -> character, for data sets that do not say it."""
        return infer_symbols(metadata.inferred_grid_shape(), metadata.vocab_size)

    @cached_property
    def grid(self) -> Grid:
        """How the puzzles are drawn."""
        return Grid(self.shape, self.metadata.box_shape, self.symbols)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; one row where nothing is known."""
        return self.metadata.inferred_grid_shape() or (1, self.metadata.seq_len)

    @property
    def symbols(self) -> str:
        """Token -> character, for every token of the vocabulary; letters where none is known."""
        size = self.metadata.vocab_size
        known = (self.metadata.symbols or self.infer_symbols(self.metadata))[:size]
        others = (chr(code) for code in range(FIRST_LETTER, sys.maxunicode))
        free = (letter for letter in others if letter.isalpha() and letter not in known)
        return known + "".join(islice(free, size - len(known)))

    @cached_property
    def notation(self) -> Notation:
        """Which characters may be written for a puzzle."""
        return Notation(self.symbols)

    def read(self, text: str, place: str = "puzzle") -> np.ndarray:
        """A puzzle from text, [T] int32; raises `PuzzleError`, see `Notation.reading`."""
        return self.notation.read(text, self.shape, place)

    def read_all(self, puzzles: Any) -> np.ndarray:
        """Puzzles as tokens.

        Args:
            puzzles: N of them: strings as `read` takes them, or tokens of the data set as arrays
                or nested lists, flat [T] or as a grid [rows, columns]. Kinds may be mixed.

        Returns:
            [N, T] int32.

        Raises:
            UserError: a puzzle does not fit the data set.
        """
        if isinstance(puzzles, str):
            raise UserError("puzzles: give a list of puzzles, not one string")
        if not isinstance(puzzles, np.ndarray) or puzzles.dtype == object:
            rows = [self._read_one(puzzle, f"puzzle {n}") for n, puzzle in enumerate(puzzles)]
            return np.stack(rows) if rows else np.zeros((0, self.metadata.seq_len), np.int32)
        return self.checked_tokens(puzzles, "puzzles")

    def _read_one(self, puzzle: Any, place: str) -> np.ndarray:
        if isinstance(puzzle, str):
            return self.read(puzzle, place)
        try:
            tokens = np.asarray(puzzle)
        except ValueError:
            raise PuzzleError("its rows differ in length", place) from None
        return self.checked_tokens(tokens[None], place)[0]

    def checked_tokens(self, tokens: np.ndarray, place: str) -> np.ndarray:
        """Tokens of N puzzles, [N, T] or [N, rows, columns] -> [N, T] int32.

        Raises:
            PuzzleError: another shape or dtype, or a token that the vocabulary does not have.
        """
        vocab_size, seq_len = self.metadata.vocab_size, self.metadata.seq_len
        rows, columns = self.shape
        if tokens.dtype.kind not in "iu" or tokens.shape[1:] not in ((seq_len,), self.shape):
            raise PuzzleError(
                f"{tokens.dtype} of shape {list(tokens.shape)}, expected integers of shape "
                f"[puzzles, {seq_len}] or [puzzles, {rows}, {columns}]",
                place,
            )
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocab_size:
            raise PuzzleError(f"tokens must be in 0..{vocab_size - 1}", place)
        return tokens.reshape(-1, seq_len).astype(np.int32)

    def read_file(self, path: Path) -> list[NamedPuzzle]:
        """Puzzles of a file of the task's own form, which ends in `file_suffix`.

        Raises:
            UserError: it cannot be read.
        """
        raise NotImplementedError(f"{self.name} has no form of its own")

    def polls(self, names: Sequence[str]) -> Polls:
        """The versions that a model knows, where `votes_by_name`.

        Args:
            names: of all puzzles and versions that a model knows, by identifier.
        """
        raise NotImplementedError(f"versions of {self.name} have no names of their own")

    def tidied(self, answers: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Answers of a model without what means nothing in them, such as what is around a grid.

        Args:
            answers: [N, T] integers.
            inputs: [N, T] integers.

        Returns:
            [N, T], dtype of the answers.
        """
        return answers

    def title(self, inputs: np.ndarray) -> str:
        """What stands above a drawn puzzle, [T] integers."""
        return "puzzle"

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Cells that must not hold a symbol twice, blanks aside; none where no such rule is."""
        return ()

    def contradictory(self, inputs: np.ndarray) -> np.ndarray:
        """Which puzzles contradict themselves, [N, T] integers -> [N] bool."""
        blanks = np.full((len(inputs), 1), -1)
        given = np.hstack([np.where(self.grid.givens(inputs), inputs, -1), blanks])
        cells = np.sort(given[:, self._cells_of_units], axis=-1)
        return ((cells[..., 1:] == cells[..., :-1]) & (cells[..., 1:] >= 0)).any(axis=(1, 2))

    @cached_property
    def _cells_of_units(self) -> np.ndarray:
        """[U, cells of the largest unit] integers; -1 behind the cells of smaller ones."""
        longest = max((len(unit.cells) for unit in self.units), default=1)
        rows = [unit.cells + (-1,) * (longest - len(unit.cells)) for unit in self.units]
        return np.array(rows, np.int64).reshape(len(rows), longest)

    def contradiction(self, inputs: np.ndarray) -> Contradiction | None:
        """The first fault of a puzzle, [T] integers, None where it has none.

        Here: a given that stands twice in a unit.
        """
        if not self.contradictory(inputs[None])[0]:
            return None
        givens = self.grid.givens(inputs)
        for unit in self.units:
            own = np.array([cell for cell in unit.cells if givens[cell]], np.int64)
            for token in np.unique(inputs[own]):
                cells = own[inputs[own] == token]
                if len(cells) > 1:
                    symbol = self.grid.symbol(int(token))
                    reason = f"{symbol} is given {len(cells)} times in {unit.name}"
                    return Contradiction(reason, int(cells[1]))
        return None

    def refuse_contradictions(self, puzzles: Sequence[np.ndarray], places: Sequence[str]) -> None:
        """Raise `PuzzleError` for the first of the puzzles, N of [T], that contradicts itself."""
        for start in range(0, len(puzzles), CHUNK):
            wrong = self.contradictory(np.stack(puzzles[start : start + CHUNK]))
            if wrong.any():
                number = start + int(wrong.argmax())
                found = self.contradiction(puzzles[number])
                assert found is not None
                raise PuzzleError(f"contradicts itself: {found.reason}", places[number], found.cell)

    def are_valid(self, answers: np.ndarray, inputs: np.ndarray) -> list[bool | None]:
        """Whether each answer keeps the givens and the rules; None where no rule is known.

        Args:
            answers: [N, T] integers.
            inputs: [N, T] integers.
        """
        return [None] * len(answers)

    @property
    def most_versions(self) -> int:
        """Different versions of a puzzle that the symmetries make, itself included."""
        return 1

    def symmetries(self, count: int, seed: int) -> list[Symmetry]:
        """`count` symmetries at random.

        Raises:
            UserError: none are known, or there are not as many.
        """
        raise UserError(f"votes: no symmetric versions are known for {self.name}; use votes=1")

    def evaluators(
        self, data_path: Path, split: str, aggregated_voting: bool = False
    ) -> list[Evaluator]:
        """New evaluators of a split of the data set in a folder.

        They begin anew after `reduce`, so that they can be used again.

        Args:
            aggregated_voting: where puzzles' answers are voted on, votes count again in all later
                evaluations.

        Raises:
            UserError: what they need is not in the folder.
        """
        return []

    def difficulty(self, inputs: np.ndarray) -> Difficulty | None:
        """How hard puzzles, [N, T], are; None where it is not known."""
        return None
