"""What a cell is in an answer: given, answered, changed, wrong.

Shapes: T tokens per puzzle.
"""

import numpy as np

from hrm.data.grid import Grid
from hrm.data.split import differs

KINDS = ("given", "answered", "changed in this step", "wrong", "changed and wrong")
GIVEN, KEPT, CHANGED, WRONG, CHANGED_WRONG = range(len(KINDS))


def wrong_cells(
    grid: Grid, tokens: np.ndarray, inputs: np.ndarray, answer: np.ndarray | None
) -> np.ndarray:
    """Cells that differ from the answer where it is known (>= 0), else from a given: [T] bool."""
    if answer is None:
        return grid.givens(inputs) & (tokens != inputs)
    return differs(tokens, answer)


def cell_kinds(
    tokens: np.ndarray,
    grid: Grid,
    inputs: np.ndarray | None,
    previous: np.ndarray | None,
    answer: np.ndarray | None,
) -> np.ndarray:
    """The kind of every cell, [T] int64; arguments as of `draw_grid`."""
    if inputs is None:
        return np.full(len(tokens), GIVEN)
    changed = np.zeros(len(tokens), bool) if previous is None else tokens != previous
    wrong = wrong_cells(grid, tokens, inputs, answer)
    kinds = np.where(grid.givens(inputs), GIVEN, KEPT)
    kinds = np.where(changed, CHANGED, kinds)
    return np.where(wrong, np.where(changed, CHANGED_WRONG, WRONG), kinds)
