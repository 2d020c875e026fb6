"""A user's own function that makes versions of examples."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hrm.errors import UserError
from hrm.files import looked_in
from hrm.tasks.grids.jsonl import NUMBERS, Example, as_grid, kind_of

FUNCTION = "augment"  # where none is named


class Hook:
    """Versions of examples, made by the function that `--augment` names.

    The function is given input and output, arrays [rows, columns] of int64 or of single characters,
    and a generator; it returns both anew, as arrays or lists. The generator begins alike for all
    examples of a puzzle, so what is drawn before looking at the grids is the same for all of them.

    Args:
        name: `FILE.py:FUNCTION` or `MODULE:FUNCTION`.

    Raises:
        UserError: there is no such function, or its file cannot be run.
    """

    def __init__(self, name: str, seed: int):
        source, colon, function = name.rpartition(":")
        if not colon:
            source, function = name, FUNCTION
        self._shown, self._seed = f"--augment {name}", seed
        self.path = Path(source) if source.endswith(".py") else None  # of the function's file
        try:
            module = _module(source)
        except FileNotFoundError:
            raise UserError(
                f"{self._shown}: no such file{looked_in(Path(source))}; name FILE.py:FUNCTION or "
                "MODULE:FUNCTION"
            ) from None
        except (Exception, SystemExit) as error:
            raise UserError(f"{self._shown}: cannot be imported: {_told(error)}") from None
        self._function: Callable[..., Any] | None = getattr(module, function, None)
        if not callable(self._function):
            raise UserError(f"{self._shown}: {source} has no function {function!r}")

    def versions(
        self, example: Example, puzzle: int, count: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """So many versions of an example, as `as_grid` makes them.

        Args:
            puzzle: its number, of which the generator is a function.

        Raises:
            UserError: the function fails, or what it returns is no pair of grids.
        """
        assert self._function is not None
        given = [_as_array(grid) for grid in (example.input, example.output)]
        for number in range(1, count + 1):
            rng = np.random.default_rng([self._seed, puzzle, number])
            try:
                made = self._function(*(grid.copy() for grid in given), rng)
            except Exception as error:
                raise UserError(f"{example.place}: {self._shown}: {_told(error)}") from None
            yield self._checked(made, example)

    def _checked(self, made: Any, example: Example) -> tuple[np.ndarray, np.ndarray]:
        where = f"{example.place}: {self._shown}"
        if not isinstance(made, tuple | list) or len(made) != 2:
            raise UserError(f"{where}: must return two grids, input and output")
        grids = []
        for name, grid in zip(("input", "output"), made, strict=True):
            try:
                grids.append(as_grid(_plain(grid)))
            except ValueError as error:
                raise UserError(f"{where}: the {name} that it returns {error}") from None
            if grids[-1].dtype != example.input.dtype:
                raise UserError(
                    f"{where}: the {name} that it returns has {kind_of(grids[-1])}, expected "
                    f"{kind_of(example.input)}"
                )
        return grids[0], grids[1]


def _module(source: str) -> ModuleType:
    path = Path(source)
    if path.suffix != ".py":
        return importlib.import_module(source)
    if not path.is_file():
        raise FileNotFoundError
    spec = importlib.util.spec_from_file_location(f"hook {path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for theirs there
    spec.loader.exec_module(module)
    return module


def _plain(value: Any) -> Any:
    """Arrays, and numpy's numbers and text in lists, as Python's own."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _as_array(grid: np.ndarray) -> np.ndarray:
    return grid.astype(np.int64) if grid.dtype == NUMBERS else grid.view("<U1")


def _told(error: BaseException) -> str:
    """What an error in someone else's code was, and where."""
    text = " ".join(str(error).split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {text}{place}"
