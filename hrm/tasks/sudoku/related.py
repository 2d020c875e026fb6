"""More puzzles to learn from, found around given ones by a search with a solver."""

from contextlib import closing
from itertools import chain

import numpy as np

from hrm.machine import usable_cores
from hrm.progress import Progress
from hrm.tasks.processes import in_order
from hrm.tasks.sudoku.generator import Puzzles, as_arrays
from hrm.tasks.sudoku.minimal import RATED_BOX, ready_to_make
from hrm.tasks.sudoku.symmetry import canonical_hash

OPTION = "--num-related"  # that asks for it


def with_related(
    train: Puzzles, test: Puzzles | None, count: int, seed: int = 0, workers: int | None = None
) -> Puzzles:
    """9x9 puzzles and, behind them, at most `count` minimal ones found around each.

    Those are as hard as the puzzle or harder, and need trials within trials if it does. None is
    equal, up to symmetry, to another one, or to a puzzle of `train` or `test`.

    Args:
        workers: processes; as many as there are cores by default. They change nothing else.

    Raises:
        UserError: numba is missing, or a process was killed.
    """
    ready_to_make(OPTION, climbs=True)
    from hrm.tasks.sudoku import nested

    questions, answers = train
    origins = (
        nested.Origin((question.tobytes(), answer.tobytes()), count, (seed, number))
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True))
    )
    workers = min(workers or usable_cores(), len(questions))
    with Progress("puzzles looked around", len(questions)) as progress:
        reports = in_order(nested.around, origins, workers, lambda _: progress.update())
        with closing(reports):
            found = as_arrays(chain.from_iterable(chain.from_iterable(reports)), RATED_BOX)
    known = [train[0], found[0]] if test is None else [train[0], test[0], found[0]]
    classes = canonical_hash(np.concatenate(known), RATED_BOX)
    first = np.unique(classes, return_index=True)[1] - (len(classes) - len(found[0]))
    new = np.sort(first[first >= 0])
    return np.concatenate([questions, found[0][new]]), np.concatenate([answers, found[1][new]])
