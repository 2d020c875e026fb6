"""Solve puzzles with a trained model, and watch it think.

    python solve.py checkpoint=checkpoints/<project>/<run> 53..7....6..195…    # as arguments
    python solve.py checkpoint=… --file puzzles.txt --format csv     # one a line, or CSV
    python solve.py checkpoint=… --index 3 --trace                   # of its own test split
    python solve.py checkpoint=… --serve                             # as a web page

Without puzzles, --file, --data or --index, puzzles are read from standard input as from a file. A
CSV file begins with the line source,question,answer,rating.

exit code: 0 all puzzles are solved, 1 some are not, 2 something is wrong with the input
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from hrm.config import Config, FileName, PositiveInt, WeightsName, validate
from hrm.device import DeviceName, keep_memory
from hrm.errors import OneLineParser, UserError, write_output
from hrm.inference import Solution, Solver, sources
from hrm.inference.output import CSV_FIELDS, Summary, as_text, csv_line, pictures
from hrm.inference.sources import Puzzle
from hrm.rollout import Halting
from hrm.viz.picture import save_gif, save_png, side_by_side_pictures

CHUNK = 4096  # puzzles between outputs
ALIGNED = re.compile(r"([a-z_]+)=(.*)", re.DOTALL)


class SolveConfig(Config):
    """What `hrm solve` reads; described flag by flag in its help."""

    checkpoint: Path
    puzzles: tuple[str, ...] = ()
    file: Path | None = None
    data: Path | None = None
    split: FileName = "test"
    index: Annotated[int, Field(ge=0)] | None = None

    halting: Halting = "learned"
    steps: PositiveInt | None = None
    votes: PositiveInt = 1
    restarts: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    batch_size: PositiveInt = 64
    weights: WeightsName = "auto"
    device: DeviceName = "auto"

    format: Literal["grid", "line", "json", "csv"] = "grid"
    trace: bool = False
    gif: Path | None = None
    png: Path | None = None

    serve: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, lt=2**16)] = 8000
    checkpoints_root: Path = Path("checkpoints")
    data_root: Path = Path("data")

    @model_validator(mode="after")
    def _check(self) -> "SolveConfig":
        given = [bool(self.puzzles), self.file is not None, self.index is not None]
        if sum(given) > 1:
            raise ValueError("give puzzles as arguments, by --file or by --index, in one way only")
        if self.serve and any(given):
            raise ValueError("--serve takes no puzzles; type or paste them into the page")
        return self


def main() -> None:
    config = read_options(sys.argv[1:])
    if config.serve:
        serve(config)
    else:
        sys.exit(solve(config))


def solve(config: SolveConfig) -> int:
    """Solve, print, sum up on stderr; returns the exit code.

    Raises:
        UserError: a puzzle cannot be read or contradicts itself; nothing is solved then.
    """
    keep_memory()
    solver = Solver.from_checkpoint(config.checkpoint, config.device, config.weights, config.data)
    found, task = read_puzzles(config, solver), solver.task
    task.refuse_contradictions([p.inputs for p in found], [p.place for p in found])
    drawn = config.gif or config.png
    if drawn and len(found) > 1:
        raise UserError(f"--gif and --png draw one puzzle, not {len(found)}; name it with --index")
    if config.format == "csv":
        write_output(csv_line(CSV_FIELDS))
    summary = Summary()
    for start in range(0, len(found), CHUNK):
        chunk = found[start : start + CHUNK]
        began = time.perf_counter()
        solutions = solve_chunk(config, solver, chunk, trace=config.trace or bool(drawn))
        summary.add(chunk, solutions, time.perf_counter() - began)
        texts = (
            as_text(puzzle, solution, config.format, task, config.trace)
            for puzzle, solution in zip(chunk, solutions, strict=True)
        )
        write_output("".join(texts))
    if drawn:
        draw(config, solver, found[0], solutions[0])
    print(summary, file=sys.stderr)
    return 1 if summary.unsolved else 0


def solve_chunk(
    config: SolveConfig, solver: Solver, chunk: Sequence[Puzzle], trace: bool
) -> list[Solution]:
    """Solutions of some puzzles, in their order."""
    return solver.solve(
        np.stack([puzzle.inputs for puzzle in chunk]),
        halting=config.halting,
        steps=config.steps,
        votes=config.votes,
        restarts=config.restarts,
        trace=trace,
        puzzle_identifiers=np.array([solver.identifier_of(puzzle.identifier) for puzzle in chunk]),
        batch_size=config.batch_size,
        seed=config.seed,
    )


def read_puzzles(config: SolveConfig, solver: Solver) -> list[Puzzle]:
    """The puzzles that the options name.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    task = solver.task
    if config.puzzles:
        return sources.from_arguments(config.puzzles, task)
    if config.file is not None:
        return sources.read_lines(config.file, task)
    data = config.data or solver.data_path
    if data is not None and (config.data is not None or config.index is not None):
        return sources.from_split(data, config.split, solver.metadata, config.index)
    if sys.stdin.isatty():
        raise UserError("no puzzle; give some as arguments, or use --file, --index or --serve")
    return sources.read_stream(sys.stdin.buffer, "stdin", task)


def draw(config: SolveConfig, solver: Solver, puzzle: Puzzle, solution: Solution) -> None:
    """Write the pictures that were asked for.

    Raises:
        UserError: a file cannot be written.
    """
    try:
        if path := config.gif:
            save_gif(pictures(puzzle, solution, solver.task, every_step=True), path)
        if path := config.png:
            steps = pictures(puzzle, solution, solver.task, every_step=False)
            save_png(side_by_side_pictures(steps), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None


def serve(config: SolveConfig) -> None:
    """Open the web page until Ctrl-C."""
    from hrm.web import serve as run_server

    run_server(
        checkpoint=config.checkpoint,
        checkpoints_root=config.checkpoints_root,
        data_root=config.data_root,
        host=config.host,
        port=config.port,
        device=config.device,
        weights=config.weights,
    )


def read_options(arguments: Sequence[str]) -> SolveConfig:
    """`checkpoint=…`, flags, and puzzles.

    Raises:
        UserError: one of them is unknown or wrong.
    """
    values = vars(_parser().parse_intermixed_args(arguments))
    words, puzzles = values.pop("puzzles"), []
    for word in words:
        key = ALIGNED.fullmatch(word)
        if key and key[1] == "checkpoint":
            values["checkpoint"] = key[2]
        elif key:
            raise UserError(f"{word}: only checkpoint= is given so; --help shows the flags")
        else:
            puzzles.append(word)
    return validate(SolveConfig, values | {"puzzles": tuple(puzzles)}, "solve.py")


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="solve.py",
        usage="python solve.py checkpoint=PATH [PUZZLE …] [flags]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )

    def flag(group: Any, name: str, text: str, metavar: str | None = None) -> None:
        field = SolveConfig.model_fields[name]
        switch = {"action": "store_true"} if field.annotation is bool else {"metavar": metavar}
        default = field.default
        shown = "" if default is None or default is False else f" (default {default})"
        group.add_argument(f"--{name.replace('_', '-')}", help=f"{text}{shown}", **switch)

    parser.add_argument("puzzles", nargs="*", default=[], help=argparse.SUPPRESS)
    puzzles = parser.add_argument_group("puzzles")
    flag(puzzles, "file", "read puzzles from a file", "FILE")
    flag(puzzles, "data", "take the puzzles of a data set", "DIR")
    flag(puzzles, "split", "which part of the data set", "NAME")
    flag(puzzles, "index", "one puzzle of --data, or of the data that it was trained on", "N")
    thinking = parser.add_argument_group("thinking")
    flag(thinking, "halting", "learned: as soon as the model is sure; max_steps: all", "WAY")
    flag(thinking, "steps", "ACT steps at most; may be more than in training", "N")
    flag(thinking, "votes", "solve up to K symmetric versions of what is not solved", "K")
    flag(thinking, "restarts", "then try up to K other start states", "K")
    flag(thinking, "seed", "of the symmetries and start states", "N")
    flag(thinking, "batch_size", "puzzles side by side", "N")
    flag(thinking, "weights", "auto: the running average where there is one; raw; ema", "WHICH")
    flag(thinking, "device", "auto, cuda, mps or cpu", "NAME")
    output = parser.add_argument_group("output")
    flag(output, "format", "grid, line, json (one object a line) or csv", "NAME")
    flag(output, "trace", "show the answer after every ACT step")
    flag(output, "gif", "draw the thinking as an animation", "FILE")
    flag(output, "png", "draw the thinking as a picture", "FILE")
    page = parser.add_argument_group("web page")
    flag(page, "serve", "open the web page instead of solving")
    flag(page, "host", "address to listen at", "HOST")
    flag(page, "port", "0 takes a free one", "PORT")
    flag(page, "checkpoints_root", "where the page looks for checkpoints", "DIR")
    flag(page, "data_root", "where the page looks for data sets", "DIR")
    return parser
