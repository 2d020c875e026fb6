"""ARC, as a task."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hrm.data.format import DatasetMetadata
from hrm.tasks.arc.encoding import FIRST_COLOUR, SIDE, SYMBOLS, VOCAB_SIZE, encode
from hrm.tasks.arc.versions import Version, Versions
from hrm.tasks.base import Evaluator, Task
from hrm.tasks.reading import Notation, Reading

TEST_SPLIT = "test"
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
        tokens = encode(grid, Versions.of([Version()]), np.zeros((1, 2), np.int64), shape[0])
        return Reading(1, tokens[0].astype(np.int32), None)


class ArcTask(Task):
    """A grid is to be changed by a rule that the puzzle's demonstrations show."""

    name = "arc"
    best_metric = "ARC/pass@2"

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
    def notation(self) -> Notation:
        return ArcNotation(self.symbols)

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
