"""Other ways to ask a model for the same answer: symmetric versions, other start states.

Shapes: T tokens per puzzle, V vocabulary, D hidden size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from hrm.data.sudoku_symmetry import random_symmetries
from hrm.errors import UserError
from hrm.models.hrm_act_v1 import HRMInner
from hrm.models.layers import truncated_normal
from hrm.viz import GridLook

MAZE_SYMMETRIES = 8  # rotations and reflections of a square


@dataclass(frozen=True)
class Symmetry:
    """A change of a puzzle that changes its answer alike."""

    place: np.ndarray  # T, int64: which cell comes to stand here
    tokens: np.ndarray  # V, int64: what each token becomes

    def apply(self, puzzles: np.ndarray) -> np.ndarray:
        """Versions of puzzles, [N, T] -> [N, T], same dtype."""
        return self.tokens[puzzles[:, self.place]].astype(puzzles.dtype)

    def undo(self, answers: np.ndarray) -> np.ndarray:
        """Answers to the versions -> answers to the puzzles, [..., T], same dtype."""
        return np.argsort(self.tokens)[self.undo_cells(answers)].astype(answers.dtype)

    def undo_cells(self, values: np.ndarray) -> np.ndarray:
        """One value per cell of a version -> of the puzzle, [..., T]."""
        return values[..., np.argsort(self.place)]

    def undo_probabilities(self, values: np.ndarray) -> np.ndarray:
        """One value per cell and token of a version -> of the puzzle, [..., T, V]."""
        return values[..., np.argsort(self.place), :][..., self.tokens]


def symmetries(look: GridLook, count: int, vocab_size: int, seed: int) -> list[Symmetry]:
    """`count` symmetries by lot, none of them the identity for a maze.

    Raises:
        UserError: none are known for this task, or there are not as many.
    """
    rng = np.random.default_rng(seed)
    if look.is_sudoku:
        assert look.box_shape is not None
        blank = look.symbols.index(".")
        places, digits = random_symmetries(rng, count, look.box_shape)
        tokens = np.tile(np.arange(vocab_size), (count, 1))
        tokens[:, blank : blank + digits.shape[1]] = digits + blank
        return [Symmetry(*version) for version in zip(places, tokens, strict=True)]
    if look.is_maze and look.shape[0] == look.shape[1]:
        if count >= MAZE_SYMMETRIES:
            raise UserError(f"votes={count + 1}: a maze has {MAZE_SYMMETRIES} symmetric versions")
        cells = np.arange(np.prod(look.shape)).reshape(look.shape)
        versions = [np.rot90(flipped, turns) for flipped in (cells, cells.T) for turns in range(4)]
        return [
            Symmetry(versions[n].ravel(), np.arange(vocab_size))
            for n in 1 + rng.permutation(MAZE_SYMMETRIES - 1)[:count]
        ]
    raise UserError("votes: symmetric versions are known for Sudoku and square mazes only")


@contextmanager
def other_start(inner: HRMInner, seed: int) -> Iterator[None]:
    """While inside, puzzles start from z_H and z_L drawn anew, as `H_init` and `L_init` were."""
    states = (inner.H_init, inner.L_init)
    kept = [state.clone() for state in states]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for state in states:
                state.copy_(truncated_normal(len(state), std=1.0))
        yield
    finally:
        for state, old in zip(states, kept, strict=True):
            state.copy_(old)
