"""Finds the task of a data set."""

from functools import lru_cache

from hrm.data.format import DatasetMetadata
from hrm.tasks.base import Task
from hrm.tasks.grids.task import GridsTask
from hrm.tasks.maze.task import MazeTask
from hrm.tasks.sudoku.task import SudokuTask

TASKS: dict[str, type[Task]] = {task.name: task for task in (SudokuTask, MazeTask, GridsTask)}


@lru_cache
def task_of(metadata: DatasetMetadata) -> Task:
    """The task that the metadata name.

    Where they name none (foreign data), it is the first that fits. An unknown name, and data that
    the named task cannot be about, are grids: drawn, never judged.
    """
    if metadata.task is None:
        return next(task for task in TASKS.values() if task.fits(metadata))(metadata)
    named = TASKS.get(metadata.task, GridsTask)
    return (named if named.fits(metadata) else GridsTask)(metadata)
