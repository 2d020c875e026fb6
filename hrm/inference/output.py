"""Solutions as people and programs read them: grids, lines, JSON, CSV, pictures, a summary."""

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image

from hrm.data.split import differs
from hrm.inference.solver import Solution, Trace
from hrm.inference.sources import Puzzle
from hrm.tasks import Task
from hrm.viz import draw_grid, legend, side_by_side, wants_color
from hrm.viz.picture import draw_picture

Format = Literal["grid", "line", "json", "csv"]
CSV_FIELDS = ("puzzle", "answer", "solved", "valid", "steps", "halt_probability")
Drawn = TypeVar("Drawn")
DIGITS = 4  # of probabilities that are written


def is_solved(puzzle: Puzzle, solution: Solution) -> bool | None:
    """Whether the answer is the known one, else whether it keeps the rules; None: not known.

    Where several answers may be given, it is enough that one of them is right.
    """
    if _has_answer(puzzle):
        return _right_try(puzzle, solution) is not None
    return solution.valid


def as_text(puzzle: Puzzle, solution: Solution, format: Format, task: Task, trace: bool) -> str:
    """One solution in a format, line breaks included.

    Args:
        trace: with what was answered after every ACT step, which the solution must hold.
    """
    if format == "line":
        return f"{solution.answer}\n"
    if format == "json":
        return f"{json.dumps(_as_values(puzzle, solution, task, trace))}\n"
    if format == "csv":
        values = _as_values(puzzle, solution, task, trace=False)
        return csv_line([values[name] for name in CSV_FIELDS])
    color = wants_color(sys.stdout)
    frames = _frames(puzzle, solution, task, trace)
    blocks = side_by_side(_draw(frames, puzzle, task, draw_grid, color=color), _width())
    explained = f"\n{legend(color, task.grid)}\n\n" if trace else ""
    return f"{puzzle.place}\n{blocks}\n{explained}{verdict(puzzle, solution, task)}\n\n"


def csv_line(values: Sequence[object]) -> str:
    """A line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _as_values(puzzle: Puzzle, solution: Solution, task: Task, trace: bool) -> dict[str, Any]:
    values: dict[str, Any] = {
        "place": puzzle.place,
        "puzzle": task.grid.text(puzzle.inputs),
        "answer": solution.answer,
        "solved": is_solved(puzzle, solution),
        "valid": solution.valid,
        "steps": solution.steps,
        "total_steps": solution.total_steps,
        "halt_probability": round(solution.halt_probability, DIGITS),
        "confidence": rounded(solution.confidence),
    }
    if solution.guessed:
        values["guessed"] = list(solution.guessed)
    if solution.choices:
        values["votes"] = solution.votes
        values["attempts"] = [
            {
                "answer": task.grid.text(choice.tokens),
                "votes": choice.votes,
                "halt_probability": round(choice.halt_probability, DIGITS),
            }
            for choice in solution.choices
        ]
    if trace:
        assert solution.trace is not None
        values["trace"] = [
            {
                "answer": task.grid.text(tokens),
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


@dataclass(frozen=True)
class Frame:
    """A grid to draw, and what it is to be compared with; arguments as of `draw_grid`."""

    tokens: np.ndarray
    title: str
    previous: np.ndarray | None = None
    answer: np.ndarray | None = None


def _frames(
    puzzle: Puzzle, solution: Solution, task: Task, trace: bool, every_step: bool = False
) -> list[Frame]:
    """The puzzle, its answer after the ACT steps, the answers that may be given.

    Args:
        trace: with the steps; else only what came of them.
        every_step: else steps that change nothing share a frame.
    """
    frames = [Frame(puzzle.inputs, task.title(puzzle.inputs))]
    if trace:
        assert solution.trace is not None
        frames += _steps(puzzle, solution.trace, every_step)
    for number, choice in enumerate(solution.choices, 1):
        votes = f"{choice.votes} of {solution.votes} vote{'s' * (solution.votes > 1)}"
        title = f"attempt {number}, {votes}"
        frames.append(Frame(choice.tokens, title, answer=puzzle.answer))
    if not (trace or solution.choices):
        title = f"answer, halt {solution.halt_probability:.1%}"
        frames.append(Frame(solution.tokens, title, answer=puzzle.answer))
    return frames


def _steps(puzzle: Puzzle, trace: Trace, every_step: bool) -> Iterator[Frame]:
    numbers = range(len(trace.tokens))
    for start, end in ((n, n + 1) for n in numbers) if every_step else _stretches(trace):
        steps = f"step {end}" if end == start + 1 else f"steps {start + 1}-{end}"
        title = f"{steps}, halt {trace.halt_probability[end - 1]:.1%}"
        previous = trace.tokens[start - 1] if start else None
        yield Frame(trace.tokens[start], title, previous, puzzle.answer)


def _stretches(trace: Trace) -> list[tuple[int, int]]:
    """Steps [start, end) that gave one answer."""
    changed = (trace.tokens[1:] != trace.tokens[:-1]).any(axis=1)
    starts = [0, *(np.flatnonzero(changed) + 1).tolist()]
    return list(zip(starts, [*starts[1:], len(trace.tokens)], strict=True))


def _draw(
    frames: Sequence[Frame], puzzle: Puzzle, task: Task, draw: Callable[..., Drawn], **how: Any
) -> list[Drawn]:
    """Frames drawn by `draw_grid` or `draw_picture`, of a canvas only what one of them uses.

    Args:
        how: further arguments of the function.
    """
    grid = task.grid
    known = () if puzzle.answer is None else (puzzle.answer,)
    used = grid.used_part(*(frame.tokens for frame in frames), *known)

    def cut(tokens: np.ndarray | None) -> np.ndarray | None:
        return None if tokens is None else grid.cut(tokens, used)

    return [
        draw(
            cut(frame.tokens),
            grid.part(used),
            inputs=cut(puzzle.inputs),
            previous=cut(frame.previous),
            answer=cut(None if frame.answer is None else grid.whole(frame.answer)),
            title=frame.title,
            **how,
        )
        for frame in frames
    ]


def pictures(puzzle: Puzzle, solution: Solution, task: Task, every_step: bool) -> list[Image.Image]:
    """The puzzle, then its answers, one image each.

    Args:
        every_step: else steps that change nothing share a picture.
    """
    return _draw(_frames(puzzle, solution, task, True, every_step), puzzle, task, draw_picture)


def verdict(puzzle: Puzzle, solution: Solution, task: Task) -> str:
    """Whether the answer is right, in one line."""
    steps = f"{solution.steps} ACT step{'s' * (solution.steps > 1)}"
    if solution.total_steps > solution.steps:
        steps += f" ({solution.total_steps} in all {'versions' if solution.votes else 'attempts'})"
    if guesses := len(solution.guessed):
        steps += f", with {guesses} guess{'es' * (guesses > 1)}"
    if solution.choices:
        return _verdict_of_votes(puzzle, solution, steps)
    if _has_answer(puzzle):
        assert puzzle.answer is not None
        if wrong := int(_wrong(puzzle, solution.tokens).sum()):
            other = ", though it keeps the rules" if solution.valid else ""
            cells = int((puzzle.answer >= 0).sum())
            return f"not solved: {wrong} of {cells} cells wrong after {steps}{other}"
        return f"solved exactly in {steps}{_right_from(puzzle, solution)}"
    if solution.valid is None:
        return f"answered in {steps}; the right answer is not known"
    if solution.valid:
        return f"solved: a valid solution in {steps}"
    found = task.contradiction(puzzle.inputs)
    note = f"; it has no solution: {found.reason}" if found else ""
    return f"not solved: no valid solution after {steps}{note}"


def _verdict_of_votes(puzzle: Puzzle, solution: Solution, steps: str) -> str:
    if not _has_answer(puzzle):
        return f"answered in {steps}; the right answer is not known"
    number = _right_try(puzzle, solution)
    if number is None:
        tried = "neither attempt is" if len(solution.choices) > 1 else "the answer is not"
        return f"not solved: {tried} right after {steps}"
    return f"solved exactly by attempt {number} in {steps}"


def _right_try(puzzle: Puzzle, solution: Solution) -> int | None:
    """Which of the answers that may be given is right, from 1; None: none is."""
    tries = [choice.tokens for choice in solution.choices] or [solution.tokens]
    right = [not _wrong(puzzle, tokens).any() for tokens in tries]
    return right.index(True) + 1 if any(right) else None


def _right_from(puzzle: Puzzle, solution: Solution) -> str:
    if solution.trace is None:
        return ""
    wrong = [bool(_wrong(puzzle, tokens).any()) for tokens in solution.trace.tokens]
    first = int(np.flatnonzero(wrong).max(initial=-1)) + 2
    return f" (right from step {first} on)"


def _has_answer(puzzle: Puzzle) -> bool:
    return puzzle.answer is not None and bool((puzzle.answer >= 0).any())


def _wrong(puzzle: Puzzle, tokens: np.ndarray) -> np.ndarray:
    assert puzzle.answer is not None
    return differs(tokens, puzzle.answer)


@dataclass
class Summary:
    """Counts over many solutions."""

    puzzles: int = 0
    solved: int = 0
    unsolved: int = 0  # the rest: not known
    judged: int = 0  # by the rules, where they are known
    valid: int = 0
    steps: int = 0  # of all attempts
    seconds: float = 0.0

    def add(self, puzzles: Sequence[Puzzle], solutions: Sequence[Solution], seconds: float) -> None:
        solved = [is_solved(*pair) for pair in zip(puzzles, solutions, strict=True)]
        self.puzzles += len(solved)
        self.solved += solved.count(True)
        self.unsolved += solved.count(False)
        self.judged += sum(solution.valid is not None for solution in solutions)
        self.valid += sum(bool(solution.valid) for solution in solutions)
        self.steps += sum(solution.total_steps for solution in solutions)
        self.seconds += seconds

    def __str__(self) -> str:
        unknown = self.puzzles - self.solved - self.unsolved
        rate = self.puzzles / max(self.seconds, 1e-9)
        parts = [
            f"{self.puzzles:,} puzzle{'s' * (self.puzzles > 1)}: "
            f"{self.solved:,} solved ({self.solved / self.puzzles:.1%})",
            *([f"{unknown:,} with an answer that cannot be checked"] if unknown else []),
            *([f"{self.valid:,} valid"] if self.judged else []),
            f"{self.steps / self.puzzles:.1f} ACT steps on average",
            f"{rate:,.{0 if rate >= 10 else 1}f} puzzles/s",
        ]
        return ", ".join(parts)
