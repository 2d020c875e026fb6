"""Solutions as people and programs read them: grids, lines, JSON, CSV, pictures, a summary."""

import csv
import io
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from hrm.data.split import differs
from hrm.inference.puzzles import contradiction
from hrm.inference.solver import Solution, Trace
from hrm.inference.tasks import Task
from hrm.viz import GridLook, draw_grid, legend, side_by_side, wants_color
from hrm.viz.picture import draw_picture

Format = Literal["grid", "line", "json", "csv"]
CSV_FIELDS = ("puzzle", "answer", "solved", "valid", "steps", "halt_probability")
DIGITS = 4  # of probabilities that are written


def is_solved(task: Task, solution: Solution) -> bool | None:
    """Whether the answer is the known one, else whether it keeps the rules; None: not known."""
    if _has_answer(task):
        return not _wrong(task, solution.tokens).any()
    return solution.valid


def as_text(task: Task, solution: Solution, format: Format, look: GridLook, trace: bool) -> str:
    """One solution in a format, line breaks included.

    Args:
        trace: with what was answered after every ACT step, which the solution must hold.
    """
    if format == "line":
        return f"{solution.answer}\n"
    if format == "json":
        return f"{json.dumps(_as_values(task, solution, look, trace))}\n"
    if format == "csv":
        values = _as_values(task, solution, look, trace=False)
        return csv_line([values[name] for name in CSV_FIELDS])
    drawn = _draw_trace if trace else _draw_answer
    color = wants_color(sys.stdout)
    blocks = side_by_side(drawn(task, solution, look, color), _width())
    explained = f"\n{legend(color)}\n\n" if trace else ""
    return f"{task.place}\n{blocks}\n{explained}{verdict(task, solution, look)}\n\n"


def csv_line(values: Sequence[object]) -> str:
    """A line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _as_values(task: Task, solution: Solution, look: GridLook, trace: bool) -> dict[str, Any]:
    values: dict[str, Any] = {
        "place": task.place,
        "puzzle": look.text(task.inputs),
        "answer": solution.answer,
        "solved": is_solved(task, solution),
        "valid": solution.valid,
        "steps": solution.steps,
        "total_steps": solution.total_steps,
        "halt_probability": round(solution.halt_probability, DIGITS),
        "confidence": rounded(solution.confidence),
    }
    if trace:
        assert solution.trace is not None
        values["trace"] = [
            {
                "answer": look.text(tokens),
                "halt_probability": round(float(sure), DIGITS),
                "confidence": rounded(probabilities.max(-1)),
            }
            for tokens, sure, probabilities in zip(
                solution.trace.tokens,
                solution.trace.halt_probability,
                solution.trace.probabilities,
                strict=True,
            )
        ]
    return values


def rounded(values: np.ndarray) -> list[float]:
    """Probabilities with as many digits as are of use to a reader."""
    return [round(value, DIGITS) for value in values.tolist()]


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _draw_answer(task: Task, solution: Solution, look: GridLook, color: bool) -> list[str]:
    answer = draw_grid(
        solution.tokens,
        look,
        inputs=task.inputs,
        answer=task.answer,
        color=color,
        title=f"answer, halt {solution.halt_probability:.1%}",
    )
    return [_draw_puzzle(task, look, color), answer]


def _draw_puzzle(task: Task, look: GridLook, color: bool) -> str:
    return draw_grid(
        task.inputs, look, inputs=task.inputs, color=color, title=_puzzle_title(task, look)
    )


def _puzzle_title(task: Task, look: GridLook) -> str:
    return f"puzzle, {int(look.givens(task.inputs).sum())} givens" if look.is_sudoku else "puzzle"


def _draw_trace(task: Task, solution: Solution, look: GridLook, color: bool) -> list[str]:
    """The puzzle, then the answer of every ACT step; steps that change nothing share a grid."""
    trace = solution.trace
    assert trace is not None
    return [_draw_puzzle(task, look, color)] + [
        draw_grid(trace.tokens[start], look, color=color, **_seen_at(task, trace, start, end))
        for start, end in _stretches(trace)
    ]


def _stretches(trace: Trace) -> list[tuple[int, int]]:
    """Steps [start, end) that gave one answer."""
    changed = (trace.tokens[1:] != trace.tokens[:-1]).any(axis=1)
    starts = [0, *(np.flatnonzero(changed) + 1).tolist()]
    return list(zip(starts, [*starts[1:], len(trace.tokens)], strict=True))


def _seen_at(task: Task, trace: Trace, start: int, end: int) -> dict[str, Any]:
    """What `draw_grid` and `draw_picture` need besides the answer of steps [start, end)."""
    steps = f"step {end}" if end == start + 1 else f"steps {start + 1}-{end}"
    return {
        "inputs": task.inputs,
        "previous": trace.tokens[start - 1] if start else None,
        "answer": task.answer,
        "title": f"{steps}, halt {trace.halt_probability[end - 1]:.1%}",
    }


def pictures(task: Task, solution: Solution, look: GridLook, every_step: bool) -> list[Image.Image]:
    """The puzzle, then its answers, one image each.

    Args:
        every_step: else steps that change nothing share a picture.
    """
    trace = solution.trace
    assert trace is not None
    steps = range(len(trace.tokens))
    stretches = [(step, step + 1) for step in steps] if every_step else _stretches(trace)
    first = draw_picture(task.inputs, look, inputs=task.inputs, title=_puzzle_title(task, look))
    return [first] + [
        draw_picture(trace.tokens[start], look, **_seen_at(task, trace, start, end))
        for start, end in stretches
    ]


def verdict(task: Task, solution: Solution, look: GridLook) -> str:
    """Whether the answer is right, in one line."""
    steps = f"{solution.steps} ACT step{'s' * (solution.steps > 1)}"
    if solution.total_steps > solution.steps:
        steps += f" ({solution.total_steps} in all attempts)"
    if _has_answer(task):
        assert task.answer is not None
        if wrong := int(_wrong(task, solution.tokens).sum()):
            other = ", though it keeps the rules" if solution.valid else ""
            cells = int((task.answer >= 0).sum())
            return f"not solved: {wrong} of {cells} cells wrong after {steps}{other}"
        return f"solved exactly in {steps}{_right_from(task, solution)}"
    if solution.valid is None:
        return f"answered in {steps}; the right answer is not known"
    if solution.valid:
        return f"solved: a valid solution in {steps}"
    found = contradiction(task.inputs, look)
    note = f"; it has no solution: {found.reason}" if found else ""
    return f"not solved: no valid solution after {steps}{note}"


def _right_from(task: Task, solution: Solution) -> str:
    if solution.trace is None:
        return ""
    wrong = [bool(_wrong(task, tokens).any()) for tokens in solution.trace.tokens]
    first = int(np.flatnonzero(wrong).max(initial=-1)) + 2
    return f" (right from step {first} on)"


def _has_answer(task: Task) -> bool:
    return task.answer is not None and bool((task.answer >= 0).any())


def _wrong(task: Task, tokens: np.ndarray) -> np.ndarray:
    assert task.answer is not None
    return differs(tokens, task.answer)


@dataclass
class Summary:
    """Counts over many solutions."""

    puzzles: int = 0
    solved: int = 0
    unsolved: int = 0  # the rest: not known
    valid: int = 0
    steps: int = 0  # of all attempts
    seconds: float = 0.0

    def add(self, tasks: Sequence[Task], solutions: Sequence[Solution], seconds: float) -> None:
        solved = [is_solved(*pair) for pair in zip(tasks, solutions, strict=True)]
        self.puzzles += len(solved)
        self.solved += solved.count(True)
        self.unsolved += solved.count(False)
        self.valid += sum(bool(solution.valid) for solution in solutions)
        self.steps += sum(solution.total_steps for solution in solutions)
        self.seconds += seconds

    def __str__(self) -> str:
        unknown = self.puzzles - self.solved - self.unsolved
        parts = [
            f"{self.puzzles:,} puzzle{'s' * (self.puzzles > 1)}: "
            f"{self.solved:,} solved ({self.solved / self.puzzles:.1%})",
            *([f"{unknown:,} with an answer that cannot be checked"] if unknown else []),
            f"{self.valid:,} valid",
            f"{self.steps / self.puzzles:.1f} ACT steps on average",
            f"{self.puzzles / max(self.seconds, 1e-9):,.0f} puzzles/s",
        ]
        return ", ".join(parts)
