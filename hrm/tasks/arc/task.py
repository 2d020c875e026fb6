"""ARC, as a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hrm.data.format import IGNORE_LABEL_ID, TEST_SPLIT, DatasetMetadata
from hrm.data.grid import Grid
from hrm.errors import UserError
from hrm.tasks.arc.crop import crop
from hrm.tasks.arc.encoding import END, FIRST_COLOUR, PAD, SIDE, SYMBOLS, VOCAB_SIZE, encode
from hrm.tasks.arc.json_files import read_tasks
from hrm.tasks.arc.palette import COLORS
from hrm.tasks.arc.poll import ArcPolls
from hrm.tasks.arc.puzzles import NO_ANSWER
from hrm.tasks.arc.versions import Version, Versions
from hrm.tasks.base import Evaluator, NamedPuzzle, Symmetry, Task
from hrm.tasks.reading import Notation, Reading

DIGITS = set(SYMBOLS[FIRST_COLOUR:])


@dataclass(frozen=True)
class ArcNotation(Notation):
    """A canvas, one character per token; or a grid alone: lines of as many digits each."""

    def reading(
        self, text: str, shape: tuple[int, int], place: str = "puzzle", beside: str = ""
    ) -> Reading:
        lines = text.split()
        alike = len({len(line) for line in lines}) == 1 and set("".join(lines)) <= DIGITS
        if not alike or max(len(lines), len(lines[0])) > shape[0]:
            return super().reading(text, shape, place, beside)
        grid = np.array([list(map(int, line)) for line in lines], np.uint8)
        return Reading(1, _placed(grid, (0, 0), shape[0]), None)


class ArcTask(Task):
    """A grid is to be changed by a rule that the puzzle's demonstrations show."""

    name = "arc"
    best_metric = "ARC/pass@2"
    file_suffix = ".json"
    votes_by_name, votes_of_file = True, 64
    without_name = (
        "a grid alone does not say which rule is asked for, so the answer means nothing unless "
        "the model was trained on one rule"
    )

    @classmethod
    def fits(cls, metadata: DatasetMetadata) -> bool:
        """The original's vocabulary on its canvas, or ours on any square one."""
        shape = metadata.inferred_grid_shape()
        if shape is None or shape[0] != shape[1] or metadata.vocab_size != VOCAB_SIZE:
            return False
        return metadata.symbols == SYMBOLS if metadata.symbols else shape == (SIDE, SIDE)

    @classmethod
    def infer_symbols(cls, metadata: DatasetMetadata) -> str:
        return SYMBOLS

    @cached_property
    def grid(self) -> Grid:
        colors = dict(zip(SYMBOLS[FIRST_COLOUR:], COLORS, strict=True))
        return Grid(self.shape, self.metadata.box_shape, self.symbols, None, colors, SYMBOLS[END])

    @cached_property
    def notation(self) -> Notation:
        return ArcNotation(self.symbols)

    def tidied(self, answers: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The grids that are read out of answers, with their end marks, and nothing around them.

        They begin where the grids of the inputs do.
        """
        found = []
        for answer, given in zip(answers, inputs, strict=True):
            corner = self._corner(given)
            canvas = np.full(self.shape, PAD, answers.dtype)
            rows, columns = (side - start for side, start in zip(self.shape, corner, strict=True))
            canvas[:rows, :columns] = answer.reshape(self.shape)[corner[0] :, corner[1] :]
            [grid] = crop(canvas.reshape(1, -1))
            found.append(_placed(grid, corner, self.shape[0]))
        return np.array(found, answers.dtype).reshape(answers.shape)

    def _corner(self, tokens: np.ndarray) -> tuple[int, int]:
        """Row and column of the canvas, [T] integers, where what is on it begins."""
        used = tokens.reshape(self.shape) != PAD
        return int(used.any(axis=1).argmax()), int(used.any(axis=0).argmax())

    def read_file(self, path: Path) -> list[NamedPuzzle]:
        """The test inputs of a file of one task, which is named as the file, or of several."""
        side = self.shape[0]
        puzzles = []
        for task in read_tasks(path, side):
            of_task = "" if task.name == path.stem else f"{task.name}, "
            for number, (question, answer) in enumerate(task.pairs["test"]):
                is_known = answer is not NO_ANSWER
                known = _labels(_placed(answer, (0, 0), side)) if is_known else None
                place = f"{path}: {of_task}test[{number}]"
                tokens = _placed(question, (0, 0), side)
                puzzles.append(NamedPuzzle(place, task.name, tokens, known))
        return puzzles

    def polls(self, names: Sequence[str]) -> ArcPolls:
        return ArcPolls(names, self.shape[0])

    def symmetries(self, count: int, seed: int) -> list[Symmetry]:
        """None: the versions that a model knows are those of a task, by their names."""
        raise UserError(
            "votes: versions of a grid are known by the name of its task; give a task's file, or "
            "an example by --index, or use votes=1"
        )

    def evaluators(
        self, data_path: Path, split: str, aggregated_voting: bool = False
    ) -> list[Evaluator]:
        """The vote on the test pairs; none on another split, whose grids are moved about.

        Raises:
            UserError: a file is missing or damaged.
        """
        if split != TEST_SPLIT:
            return []
        from hrm.tasks.arc import evaluator

        voting = evaluator.Evaluator(data_path, aggregated_voting=aggregated_voting)
        voting.refuse_fewer_names(self.metadata.num_puzzle_identifiers)
        return [voting]


def _placed(grid: np.ndarray, corner: tuple[int, int], side: int) -> np.ndarray:
    """A grid, [rows, columns] uint8, as tokens, [T] int32; it begins at the corner."""
    return encode(grid, Versions.of([Version()]), np.array([corner]), side)[0].astype(np.int32)


def _labels(answer: np.ndarray) -> np.ndarray:
    """A right answer, [T] integers, as data sets label it: padding is not."""
    return np.where(answer == PAD, IGNORE_LABEL_ID, answer).astype(np.int64)
