"""Watch a model solve a puzzle: `python solve.py checkpoint=checkpoints/<project>/<run>`.

puzzle=53..7…        the puzzle, one character per cell, '.' for blank; or, of a data set,
data_path, split, index   one of its puzzles (default: the first of the checkpoint's test split)
halting=max_steps    take all ACT steps; `learned` lets the model decide when to halt
weights=auto         the running average where there is one; or raw, ema
device=auto          or cuda, mps, cpu
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrm.checkpoint import load_checkpoint
from hrm.config import SolveConfig, load_solve_config
from hrm.data.format import IGNORE_LABEL_ID, METADATA_FILE, has_split, read_split
from hrm.device import pick_device
from hrm.errors import UserError, run_command
from hrm.inference.solver import (
    Solution,
    Solver,
    contradiction,
    is_valid_sudoku,
    parse_puzzle,
)
from hrm.viz import GridLook, draw_grid, legend, side_by_side, wants_color, wrong_cells


@dataclass(frozen=True)
class Task:
    """A puzzle to solve, and what is known about it."""

    name: str
    inputs: np.ndarray  # T, int32
    answer: np.ndarray | None = None  # T, int64, negative where unknown
    identifier: int | None = None


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    config = load_solve_config(sys.argv[1:])
    device = pick_device(config.device)
    checkpoint = load_checkpoint(config.checkpoint, config.weights, config.data_path)
    sure = checkpoint.config.eval_halt_probability
    solver = Solver(checkpoint.model, checkpoint.metadata, device, sure)
    if config.puzzle is not None:
        task = Task("puzzle", parse_puzzle(config.puzzle, solver.metadata))
    else:
        task = read_task(config.data_path or checkpoint.config.data_path, config, solver)
    identifiers = None if task.identifier is None else np.array([task.identifier])
    [solution] = solver.solve(task.inputs[None], config.halting, identifiers)

    print(f"{task.name}, {checkpoint.path}")
    print(draw(solution, task, solver.look, wants_color(sys.stdout)))
    print(verdict(solution, task, solver.look))


def read_task(data_path: Path, config: SolveConfig, solver: Solver) -> Task:
    """Puzzle number `index` of a split, counted over its sets in the metadata's order.

    Raises:
        UserError: there is no such puzzle, or it does not fit the model.
    """
    if not has_split(data_path, config.split):
        raise UserError(
            f"data_path={data_path}: no {config.split}/{METADATA_FILE}; name a data set with "
            "data_path=… or a puzzle with puzzle=…"
        )
    metadata, sets = read_split(data_path / config.split)
    for key in ("vocab_size", "seq_len"):
        theirs, ours = getattr(metadata, key), getattr(solver.metadata, key)
        if theirs != ours:
            raise UserError(f"data_path={data_path}: {key} is {theirs}, the checkpoint's {ours}")
    index = config.index
    total = sum(len(arrays.inputs) for arrays in sets.values())
    for arrays in sets.values():
        if index < len(arrays.inputs):
            break
        index -= len(arrays.inputs)
    else:
        raise UserError(f"index={config.index}: {data_path / config.split} has {total} puzzles")
    answer = arrays.labels[index].astype(np.int64)
    if metadata.ignore_label_id is not None:
        answer[answer == metadata.ignore_label_id] = IGNORE_LABEL_ID
    puzzle = arrays.puzzle_indices.searchsorted(index, "right") - 1
    identifier = int(arrays.puzzle_identifiers[puzzle])
    if identifier >= solver.metadata.num_puzzle_identifiers:
        identifier = solver.unseen_identifier
    name = f"puzzle {config.index} of {total:,} in {data_path / config.split}"
    return Task(name, arrays.inputs[index].astype(np.int32), answer, identifier)


def draw(solution: Solution, task: Task, look: GridLook, color: bool) -> str:
    """The puzzle, then the answer of every ACT step; steps that change nothing share a grid."""
    givens = int(look.givens(task.inputs).sum())
    title = f"puzzle, {givens} givens" if look.is_sudoku else "puzzle"
    blocks = [draw_grid(task.inputs, look, inputs=task.inputs, color=color, title=title)]
    starts = [
        s
        for s in range(solution.halted_at)
        if s == 0 or (solution.steps[s] != solution.steps[s - 1]).any()
    ]
    for start, end in zip(starts, [*starts[1:], solution.halted_at], strict=True):
        blocks.append(
            draw_grid(
                solution.steps[start],
                look,
                inputs=task.inputs,
                previous=solution.steps[start - 1] if start else None,
                answer=task.answer,
                color=color,
                title=step_title(start, end, solution.halt_confidence),
            )
        )
    width = shutil.get_terminal_size((100, 24)).columns
    return f"\n{side_by_side(blocks, width)}\n\n{legend(color)}\n"


def step_title(start: int, end: int, confidence: np.ndarray) -> str:
    """Title of the grid that steps `start` to `end - 1` (counted from 0) answered alike."""
    steps = f"step {end}" if end == start + 1 else f"steps {start + 1}-{end}"
    return f"{steps}, halt {confidence[end - 1]:.1%}"


def verdict(solution: Solution, task: Task, look: GridLook) -> str:
    """Whether the final answer is right, in one line."""
    steps = f"{solution.halted_at} ACT step{'s' * (solution.halted_at > 1)}"
    if task.answer is not None and (task.answer >= 0).any():
        wrong = np.array(
            [wrong_cells(look, s, task.inputs, task.answer).sum() for s in solution.steps]
        )
        if wrong[-1]:
            cells = int((task.answer >= 0).sum())
            return f"not solved: {wrong[-1]} of {cells} cells wrong after {steps}"
        first = int(np.flatnonzero(wrong).max(initial=-1)) + 2
        return f"solved exactly in {steps} (right from step {first} on)"
    if not look.is_sudoku:
        return f"answered in {steps}; the right answer is not known"
    if is_valid_sudoku(solution.tokens, task.inputs, look):
        return f"solved: a valid solution in {steps}"
    reason = contradiction(task.inputs, look)
    note = f"; it has no solution: {reason}" if reason else ""
    return f"not solved: no valid solution after {steps}{note}"


if __name__ == "__main__":
    run_command(main)
