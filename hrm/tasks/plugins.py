"""Tasks and builders of other distributions, found by the entry points that they declare.

    [project.entry-points."hrm.tasks"]
    stones = "stones:StonesTask"        # a class that derives from hrm.tasks.Task

    [project.entry-points."hrm.builders"]
    stones = "stones.builder"           # a module with BuildOptions, build and HELP

Only what is installed is ever imported, and only when it is asked for by its name.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hrm.errors import UserError

TASK_GROUP, BUILDER_GROUP = "hrm.tasks", "hrm.builders"


def plug_ins(group: str) -> dict[str, str]:
    """Names that are declared, and by which distribution; nothing is imported."""
    return {point.name: _owner(point) for point in entry_points(group=group)}


def load(group: str, name: str) -> tuple[Any, str] | None:
    """What is declared under a name, and its place for messages; None where there is nothing.

    Raises:
        UserError: it cannot be imported, or two distributions declare it; names them.
    """
    points = list(entry_points(group=group, name=name))
    if not points:
        return None
    if len(points) > 1:
        owners = " and ".join(sorted(map(_owner, points)))
        raise UserError(f"{group}: both {owners} declare {name!r}; uninstall one of them")
    [point] = points
    place = f"plug-in {_owner(point)}: {group} {name} = {point.value}"
    try:
        return point.load(), place
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        raise UserError(
            f"{place}: cannot be loaded ({type(error).__name__}: {told}); mend or uninstall it"
        ) from None


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
