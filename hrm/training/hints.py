"""Hints: some sequences begin with a part of their answer shown.

They are new puzzles from old ones, and easier: a curriculum that uses nothing but the training
data. For tasks whose answers are written in the tokens of their questions, such as Sudoku's.
"""

import torch
from torch import Tensor

from hrm.data.format import IGNORE_LABEL_ID
from hrm.models.act import Carry, uniform_hash

CHOSEN, SHARE, FIRST_CELL = 2, 3, 4  # streams of `uniform_hash`; exploration has 0 and 1


def with_hints(
    batch: dict[str, Tensor], carry: Carry, rate: float, most: float, seed: int
) -> dict[str, Tensor]:
    """The batch as sequences that begin with it take it.

    What is drawn follows from the seed, the row of the global batch and the steps that were taken,
    so that neither ranks nor micro-batches nor a resumed run change it.

    Args:
        batch: [B, …]; `inputs` and `labels` [B, T].
        carry: of the same rows, before the step.
        rate: share of the sequences that get hints.
        most: a sequence's share of cells shown is uniform between 0 and this.
    """
    inputs, labels = batch["inputs"], batch["labels"]
    chosen = uniform_hash(seed, carry.tick, carry.row, CHOSEN) < rate
    share = most * uniform_hash(seed, carry.tick, carry.row, SHARE)
    cells = FIRST_CELL + torch.arange(inputs.shape[1], device=inputs.device)
    drawn = uniform_hash(seed, carry.tick[:, None], carry.row[:, None], cells)
    shown = (drawn < (chosen * share)[:, None]) & (labels != IGNORE_LABEL_ID)
    return {**batch, "inputs": torch.where(shown, labels, inputs)}
