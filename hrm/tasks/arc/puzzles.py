"""ARC tasks in memory: pairs of grids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]  # input and output, [rows, columns] uint8 colours each

PARTS = ("train", "test")
TEST_PUZZLES_FILE = "test_puzzles.json"
BLANK_NAME = "<blank>"  # of the identifier that is no puzzle's
NO_ANSWER = np.zeros((1, 1), np.uint8)  # stands for an output that is not known
KNOWN = "known"  # of a pair in JSON: its output is what it looks like


@dataclass(frozen=True)
class Puzzle:
    """One ARC task: demonstrations (`train`), and pairs whose outputs are to be found (`test`)."""

    name: str
    pairs: Mapping[str, Sequence[Pair]]  # by `PARTS`, in the order of the file

    @property
    def all_pairs(self) -> list[Pair]:
        """Of both parts, in the order of the file."""
        return [pair for part in self.pairs.values() for pair in part]

    def plain(self, marked: bool = False) -> dict[str, list[dict[str, Any]]]:
        """As it is written in JSON.

        Args:
            marked: outputs that look like NO_ANSWER and are none have the mark KNOWN.
        """
        return {
            part: [_plain(*pair, marked) for pair in pairs] for part, pairs in self.pairs.items()
        }


def _plain(x: np.ndarray, y: np.ndarray, marked: bool) -> dict[str, Any]:
    is_known = marked and y is not NO_ANSWER and np.array_equal(y, NO_ANSWER)
    return {"input": x.tolist(), "output": y.tolist(), **({KNOWN: True} if is_known else {})}


@dataclass(frozen=True)
class Subset:
    """Tasks that are published together."""

    name: str
    puzzles: Sequence[Puzzle]
