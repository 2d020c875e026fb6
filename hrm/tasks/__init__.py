"""Tasks: what is known of a kind of puzzle besides its data. Each is one place to add."""

from hrm.tasks.base import (
    Choice,
    Contradiction,
    Difficulty,
    Evaluator,
    Poll,
    Polls,
    Symmetry,
    Task,
    VotingEvaluator,
)
from hrm.tasks.grids.task import GridsTask
from hrm.tasks.reading import Notation, PuzzleError
from hrm.tasks.registry import TASKS, task_of

__all__ = [
    "TASKS",
    "Choice",
    "Contradiction",
    "Difficulty",
    "Evaluator",
    "GridsTask",
    "Notation",
    "Poll",
    "Polls",
    "PuzzleError",
    "Symmetry",
    "Task",
    "VotingEvaluator",
    "task_of",
]
