"""`hrm build`: data sets, each by the builder of its task."""

import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from hrm.cli.main import Commands, start
from hrm.cli.options import SchemaCommand
from hrm.errors import UserError, run_command, write_output
from hrm.tasks.plugins import BUILDER_GROUP, load, plug_ins

PARTS = ("BuildOptions", "build", "HELP")  # of a builder's module
# Name -> module, and what it builds.
BUILDERS = {
    "sudoku": ("hrm.tasks.sudoku.builder", "Sudoku: published, from CSV files, or generated"),
    "maze": ("hrm.tasks.maze.builder", "Mazes: published, from CSV files, or generated"),
    "arc": ("hrm.tasks.arc.builder", "ARC-AGI: from JSON files, or made up"),
    "grids": ("hrm.tasks.grids.builder", "your own grids, from JSON Lines"),
}
HELP = """
hrm build sudoku --generate 2x2 --num-aug 100 --output-dir data/sudoku-4x4

Build a data set to train on. hrm build sudoku --help shows the flags of one.
"""


def find(name: str) -> SchemaCommand[Any]:
    """The command of a builder.

    Raises:
        UserError: it is that of a plug-in, and the plug-in is broken.
    """
    module = import_module(BUILDERS[name][0]) if name in BUILDERS else _plugged_in(name)
    return SchemaCommand(name, module.BuildOptions, partial(run, module), module.HELP)


def _plugged_in(name: str) -> Any:
    found = load(BUILDER_GROUP, name)
    assert found is not None
    module, place = found
    for part in PARTS:
        if not hasattr(module, part):
            raise UserError(f"{place}: has no {part}; a builder has {', '.join(PARTS)}")
    return module


def run(builder: ModuleType, read: Callable[[], Any]) -> None:
    """Build, and say what was built; an interruption leaves nothing behind."""
    started = time.perf_counter()
    summary = builder.build(read())
    write_output(f"{summary} ({time.perf_counter() - started:.1f} s)\n")


def run_builder(name: str, typed: str) -> None:
    """Run a builder as a script, which the user has typed as `typed`."""
    run_command(lambda: start(find(name), sys.argv[1:], typed))


TABLE = {name: f"of the plug-in {owner}" for name, owner in plug_ins(BUILDER_GROUP).items()}
TABLE = TABLE | {name: what for name, (_, what) in BUILDERS.items()}
command = Commands("build", TABLE, find, HELP)
