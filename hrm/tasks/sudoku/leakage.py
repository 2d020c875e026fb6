"""Training puzzles that are test puzzles up to symmetry."""

import numpy as np

from hrm.tasks.sudoku.csv_file import CsvPuzzles
from hrm.tasks.sudoku.symmetry import are_equivalent, canonical_hash


def find_leakage(train: CsvPuzzles, test: CsvPuzzles) -> list[tuple[int, int]]:
    """Every training puzzle that a symmetry makes a test puzzle, with the first such one.

    Returns:
        (row of `train`, row of `test`), in the order of `train`.
    """
    train_hashes = canonical_hash(train.questions, train.box_shape)
    test_hashes = canonical_hash(test.questions, test.box_shape)
    suspects: dict[int, list[int]] = {}
    for other in np.flatnonzero(np.isin(test_hashes, train_hashes)).tolist():
        suspects.setdefault(int(test_hashes[other]), []).append(other)
    pairs = []
    for row in np.flatnonzero(np.isin(train_hashes, test_hashes)).tolist():
        question = train.questions[row]
        for other in suspects[int(train_hashes[row])]:
            if are_equivalent(question, test.questions[other], train.box_shape):
                pairs.append((row, other))
                break
    return pairs
