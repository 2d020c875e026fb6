"""Starts `hrm` and its scripts, or says in one line what is not installed.

Imports nothing but Python's own modules before that is known.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path

OLDEST_PYTHON = (3, 11)


def main() -> None:
    """Run `hrm`."""
    _start("hrm.cli.main", "main")


def run(name: str, typed: str) -> None:
    """Run one command as a script, which the user has typed as `typed`."""
    _start("hrm.cli.main", "run", name, typed)


def run_builder(name: str, typed: str) -> None:
    """Run a builder as a script, which the user has typed as `typed`."""
    _start("hrm.cli.build", "run_builder", name, typed)


def next_command(name: str, path: Path) -> str:
    """A command to go on with, run as the present one was; it can be pasted into a shell.

    Args:
        path: its input, given as `checkpoint=` where a bare word would be read as something else.
    """
    program = Path(sys.argv[0])
    script = program.with_name(f"{name}.py")
    words = ["hrm", name]
    if program.name == "pretrain.py" and script.is_file():
        words = [sys.orig_argv[0], str(script)]
    elif program.name == "__main__.py":
        words = [sys.orig_argv[0], "-m", "hrm", name]
    elif program.name == "hrm" and shutil.which("hrm") != str(program) != "hrm":
        words = [str(program), name]
    is_plain = words[-1] == name and "=" not in path.parts[0] and not str(path).startswith("-")
    return shlex.join([*words, str(path) if is_plain else f"checkpoint={path}"])


def _start(module: str, function: str, *arguments: str) -> None:
    """Import and call, or say what is not installed."""
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        _refuse(f"{sys.executable} is Python {sys.version.split()[0]}; {oldest} or later is needed")
    try:
        getattr(import_module(module), function)(*arguments)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "hrm"):
            raise
        root = Path(__file__).resolve().parents[2]
        way_out = "install hrm again with pip, which brings it"
        if (root / "pyproject.toml").is_file():
            way_out = shlex.join([sys.executable, "-m", "pip", "install", str(root)])
        _refuse(f"{package} is not installed for {sys.executable}; {way_out}")


def _refuse(reason: str) -> None:
    if os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ:
        print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)
