"""ARC-AGI, as a task."""

from pathlib import Path

from hrm.data.format import DatasetMetadata
from hrm.tasks.arc.crop import COLOUR, COLOURS, TOKENS
from hrm.tasks.base import Evaluator, Task

TEST_SPLIT = "test"


class ArcTask(Task):
    """A grid is to be changed by a rule that demonstrations show."""

    name = "arc"
    best_metric = "ARC/pass@2"

    @classmethod
    def fits(cls, metadata: DatasetMetadata) -> bool:
        """Grids of 30 x 30 cells with the original's vocabulary."""
        return (metadata.seq_len, metadata.vocab_size) == (TOKENS, COLOUR + COLOURS)

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
