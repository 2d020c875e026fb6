"""Finds the task of a data set: ours, or one of an installed plug-in."""

from functools import lru_cache

from hrm.data.format import DatasetMetadata
from hrm.errors import UserError
from hrm.tasks.arc.task import ArcTask
from hrm.tasks.base import Task
from hrm.tasks.grids.task import GridsTask
from hrm.tasks.maze.task import MazeTask
from hrm.tasks.plugins import TASK_GROUP, load
from hrm.tasks.sudoku.task import SudokuTask

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (SudokuTask, MazeTask, ArcTask, GridsTask)
}


@lru_cache
def task_of(metadata: DatasetMetadata) -> Task:
    """The task that the metadata name.

    Where they name none (foreign data), it is the first of ours that fits. Of an unknown name, and
    of data that the named task cannot be about, nothing is known: they are drawn, never judged.

    Raises:
        UserError: the task is that of a plug-in, and the plug-in is broken.
    """
    if metadata.task is None:
        return next((task for task in TASKS.values() if task.fits(metadata)), Task)(metadata)
    named = TASKS.get(metadata.task) or _plugged_in(metadata.task) or Task
    return (named if named.fits(metadata) else Task)(metadata)


def _plugged_in(name: str) -> type[Task] | None:
    found = load(TASK_GROUP, name)
    if found is None:
        return None
    task, place = found
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise UserError(f"{place}: is no class that derives from hrm.tasks.Task")
    if task.name != name:
        raise UserError(f"{place}: its `name` is {task.name!r}, expected {name!r}")
    return task
