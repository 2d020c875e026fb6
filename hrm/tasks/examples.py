"""Which of a data set's puzzles show best what there is: a few, from easy to hard."""

import numpy as np

from hrm.data.split import Split
from hrm.tasks.registry import task_of

MOST_RATED = 200  # puzzles that are compared; rating takes time


def choose_examples(split: Split, count: int) -> list[int]:
    """Numbers of at most `count` examples, spread evenly over the split and over its difficulty.

    The easiest comes first; where the task cannot tell they stand in the split's order.
    """
    total = len(split)
    spread = np.unique(np.linspace(0, max(0, total - 1), min(total, MOST_RATED)).astype(int))
    if not len(spread) or not count:
        return []
    inputs = np.stack([split.example(number).inputs for number in spread.tolist()])
    if rated := task_of(split.metadata).difficulty(inputs):
        spread = spread[np.argsort(rated.values, kind="stable")]
    wanted = np.unique(np.linspace(0, len(spread) - 1, min(count, len(spread))).astype(int))
    return spread[wanted].tolist()
