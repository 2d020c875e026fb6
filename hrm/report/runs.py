"""What a report knows of each run: its metrics, its configuration, and the puzzles it solves.

Shapes: N puzzles, S ACT steps, T tokens per puzzle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrm.checkpoint import find_checkpoint
from hrm.checkpoint.layout import CONFIG_FILE, step_of
from hrm.data.grid import Grid
from hrm.data.missing import training_data
from hrm.data.split import differs
from hrm.errors import UserError
from hrm.inference.inside import Inside, look_inside
from hrm.inference.solver import Solver
from hrm.inference.sources import Puzzle, from_split
from hrm.plain_yaml import read_yaml
from hrm.progress import Progress
from hrm.records import METRICS_FILE, Record, best_evaluation, read_records
from hrm.report import analysis
from hrm.report.config import ReportConfig
from hrm.tasks import Difficulty, Task

CHUNK = 256  # puzzles whose traces are held at a time


@dataclass(frozen=True)
class Solved:
    """Puzzles with known answers, solved with all ACT steps and under learned halting."""

    grid: Grid
    places: Sequence[str]  # N: where each stands, such as data/x/test[3]
    inputs: np.ndarray  # N T, int32
    answers: np.ndarray  # N T, int64, negative where unknown
    tokens: np.ndarray  # N T, int32: after all steps
    wrong: np.ndarray  # N S, int64: wrong cells after each step
    halt_probability: np.ndarray  # N S, float32
    learned_steps: np.ndarray  # N, int64
    learned_most: int  # which learned halting may take; more than S, where so configured
    learned_right: np.ndarray  # N, bool
    learned_threshold: float  # halting probability that learned halting asks for
    difficulty: Difficulty | None  # of N puzzles
    inside: Mapping[int, Inside] = field(default_factory=dict)  # of some of the N

    @property
    def right(self) -> np.ndarray:
        """Puzzles solved exactly after each step, [N, S] bool."""
        result: np.ndarray = self.wrong == 0
        return result

    def place(self, n: int) -> str:
        """A puzzle's place in its data set, such as test[3]."""
        return self.places[n].replace("\\", "/").rpartition("/")[2]

    @property
    def givens(self) -> np.ndarray:
        """Cells that each puzzle gives, [N] int64."""
        return np.array([int(self.grid.givens(row).sum()) for row in self.inputs], np.int64)


@dataclass(frozen=True)
class RunReport:
    """One run. What could not be found out is None, and a note says why."""

    name: str
    path: Path
    records: Sequence[Record]
    config: Mapping[str, str] | None  # dotted key -> value
    checkpoint: Path | None
    weights: int | None
    data: Path | None
    solved: Solved | None
    best_metric: str = Task.best_metric
    notes: list[str] = field(default_factory=list)

    @property
    def best(self) -> Record | None:
        """The best evaluation, None without one."""
        return best_evaluation(self.records, self.best_metric)

    @property
    def step(self) -> int | None:
        """Training step of the checkpoint."""
        return step_of(self.checkpoint) if self.checkpoint else None


def read_runs(config: ReportConfig) -> list[RunReport]:
    """Read, and unless `curves_only` solve, what the options name.

    Raises:
        UserError: a run is named twice, or its metrics cannot be read.
    """
    places = [path.resolve() for path in config.runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"{config.runs[number]}: named twice")
    records = [read_records(path / METRICS_FILE) for path in config.runs]
    names = [place.name for place in places]
    if len(set(names)) < len(names):
        names = [str(path) for path in config.runs]
    return [
        _read_run(path, name, own, config)
        for path, name, own in zip(config.runs, names, records, strict=True)
    ]


def _read_run(path: Path, name: str, records: Sequence[Record], config: ReportConfig) -> RunReport:
    notes: list[str] = []
    flat = checkpoint = weights = data = solved = None
    best_metric = Task.best_metric
    try:
        flat = flatten(read_yaml(path / CONFIG_FILE))
    except UserError as error:
        notes.append(f"Its configuration is left out: {error}.")
    try:
        checkpoint = find_checkpoint(path, "run")
        solver = Solver.from_checkpoint(checkpoint, config.device, data_path=config.data)
        weights = sum(t.numel() for t in solver.model.state_dict().values())
        best_metric = solver.task.best_metric
        data = config.data or solver.data_path
        if not config.curves_only and data is not None:
            data = config.data or training_data(data, "--data")
            limit, origin = config.limit, solver.origin
            found = from_split(data, config.split, solver.metadata, limit=limit, origin=origin)
            notes += (f"{note}." for note in solver.notes_on(data, config.split))
            solved = solve(solver, found)
    except UserError as error:
        notes.append(f"What needs its model or its puzzles is left out: {error}.")
    return RunReport(
        name, path, records, flat, checkpoint, weights, data, solved, best_metric, notes
    )


def solve(solver: Solver, found: Sequence[Puzzle]) -> Solved:
    """Solve twice: with all steps, and halting when the model says so.

    Raises:
        UserError: no answer is known.
    """
    known = [t for t in found if t.answer is not None and (t.answer >= 0).any()]
    if not known:
        raise UserError(f"{found[0].place}: its right answer is not known, nor any other")
    inputs = np.stack([t.inputs for t in known])
    answers = np.stack([t.answer for t in known if t.answer is not None])
    identifiers = np.array([solver.identifier_of(t.identifier) for t in known])
    parts: list[tuple[np.ndarray, ...]] = []
    with Progress("answers", 2 * len(known)) as progress:
        for start in range(0, len(known), CHUNK):
            rows = slice(start, start + CHUNK)
            given: dict[str, Any] = {"puzzle_identifiers": identifiers[rows], "progress": progress}
            full = solver.solve(inputs[rows], halting="max_steps", trace=True, **given)
            learned = solver.solve(inputs[rows], halting="learned", **given)
            traces = [s.trace for s in full if s.trace is not None]
            learned_tokens = np.stack([s.tokens for s in learned])[:, None]
            parts.append(
                (
                    np.stack([s.tokens for s in full]),
                    analysis.wrong_by_step(np.stack([t.tokens for t in traces]), answers[rows]),
                    np.stack([t.halt_probability for t in traces]),
                    np.array([s.steps for s in learned], np.int64),
                    analysis.wrong_by_step(learned_tokens, answers[rows])[:, 0] == 0,
                )
            )
    tokens, wrong, halt_probability, steps, right = map(np.concatenate, zip(*parts, strict=True))
    inside = {
        n: _inside(
            solver, inputs[n], identifiers[n], wrong.shape[1], differs(tokens[n], answers[n])
        )
        for n in analysis.one_right_one_wrong(wrong, halt_probability[:, -1])
    }
    return Solved(
        solver.task.grid,
        [t.place for t in known],
        inputs,
        answers,
        tokens,
        wrong,
        halt_probability,
        steps,
        solver.traits.steps_at_most("learned"),
        right,
        solver.halt_probability,
        solver.task.difficulty(inputs),
        inside,
    )


def _inside(
    solver: Solver, inputs: np.ndarray, identifier: int, steps: int, wrong: np.ndarray
) -> Inside:
    """Seen from the first wrong cell, else from the first that the puzzle leaves open."""
    cell = int(np.argmax(wrong if wrong.any() else ~solver.task.grid.givens(inputs)))
    puzzle = {"inputs": inputs[None], "puzzle_identifiers": np.array([identifier])}
    given = {
        name: torch.from_numpy(values.astype(np.int32)).to(solver.device)
        for name, values in puzzle.items()
    }
    return look_inside(solver.model, given, steps, cell)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values -> dotted key and text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def differences(configs: Sequence[Mapping[str, str] | None]) -> dict[str, list[str | None]]:
    """Keys whose values are not the same everywhere, and their values; None where a key is absent.

    Configurations that are None are passed over.
    """
    known = [config for config in configs if config is not None]
    keys = dict.fromkeys(key for config in known for key in config)
    return {
        key: [config.get(key) if config is not None else None for config in configs]
        for key in keys
        if len({config.get(key) for config in known}) > 1
    }
