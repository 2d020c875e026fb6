"""The commands as a user types them, run in this process; and the keys that each of them knows."""

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest.mock import patch

from hrm.cli.check import CheckConfig
from hrm.cli.evaluate import EvaluateConfig
from hrm.cli.export import ExportConfig
from hrm.cli.main import root, start
from hrm.cli.models import ModelsConfig
from hrm.cli.push import PushConfig
from hrm.cli.serve import ServeConfig
from hrm.cli.solve import SolveConfig
from hrm.cli.sweep import SweepOptions
from hrm.errors import run_command
from hrm.report.runs import ReportConfig
from hrm.tasks.arc.builder import BuildOptions as ArcOptions
from hrm.tasks.grids.builder import BuildOptions as GridsOptions
from hrm.tasks.maze.builder import BuildOptions as BuildMazeOptions
from hrm.tasks.sudoku.builder import BuildOptions

SCHEMAS = {
    "build sudoku": BuildOptions,
    "build maze": BuildMazeOptions,
    "build arc": ArcOptions,
    "build grids": GridsOptions,
    "evaluate": EvaluateConfig,
    "solve": SolveConfig,
    "serve": ServeConfig,
    "report": ReportConfig,
    "models": ModelsConfig,
    "check": CheckConfig,
    "export": ExportConfig,
    "push": PushConfig,
    "sweep": SweepOptions,
}
KEYS = {name: set(schema.model_fields) for name, schema in SCHEMAS.items()}


def command(name: str, *words: object, stdin: str = "") -> tuple[int, str, str]:
    """Run a command with these words after its name.

    Returns:
        Exit code, standard output, standard error.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    given = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin.encode())))
    with (
        patch.object(sys, "stdin", given),
        redirect_stdout(out),
        redirect_stderr(err),
        _signal_handlers_kept(),
    ):
        try:
            run_command(lambda: start(root, [*name.split(), *map(str, words)], "hrm"))
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def done(name: str, *words: object, stdin: str = "") -> str:
    """Standard output of a command that has nothing to complain about."""
    code, out, err = command(name, *words, stdin=stdin)
    assert code in (0, 1) and "error" not in err, err
    return out


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
