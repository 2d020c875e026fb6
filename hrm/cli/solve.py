"""`hrm solve`: puzzles solved by a trained model, and drawn as it thinks."""

import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import click
from pydantic import Field, model_validator

from hrm.cli.options import SchemaCommand
from hrm.config import (
    Config,
    Count,
    DeviceName,
    FileName,
    Halting,
    NonNegative,
    PositiveInt,
    Seed,
    Select,
    WeightsName,
    refuse_idle_noise,
)
from hrm.errors import UserError, write_output

if TYPE_CHECKING:
    from hrm.inference import Solution, Solver
    from hrm.inference.sources import Puzzle
    from hrm.progress import Progress
    from hrm.tasks import Poll, Task

CHUNK = 4096  # puzzles between outputs
CELLS, FEWEST_CELLS = ".0123456789# \n", 9  # of a puzzle that can be told from a path
PUZZLE_FILES = (".txt", ".csv", ".tsv", ".sdm", ".sdk", ".ss", ".json")
MORE = "note: more attempts may solve what is not: "
WAYS = "--votes 8, or --noise 0.3 --rollouts 16"
GUESSES = "--guesses 100, or "
HELP = """
hrm solve .3..1.3...4.4... --trace                 # by a model of the package
hrm solve checkpoints/quickstart/first --file puzzles.txt --format csv
hrm solve checkpoints/quickstart/first --index 3        # of its own test split
hrm solve checkpoints/arc/first 007bbfb7.json           # a task of ARC

Solve puzzles with a trained model, and watch it think. A file has one puzzle a
line, or columns source,question,answer,rating, or is a task in ARC's JSON; a
task is known by its name, which is the file's. Without puzzles, standard input
is read. Exit code: 0 all are solved, 1 some are not, 2 the input is wrong.
"""


class SolveConfig(Config):
    """Which puzzles, how they are solved, and what is shown."""

    checkpoint: Path | None = Field(
        None, description="checkpoint or run; if not given, a model of the package"
    )
    puzzles: tuple[str, ...] = Field(
        (), description="puzzles, one character a cell, or files of ARC tasks"
    )
    file: Path | None = Field(None, description="read puzzles from a file")
    data: Path | None = Field(None, description="take the puzzles of a data set")
    split: FileName = Field("test", description="which part of the data set")
    index: Count | None = Field(None, description="only this one (of its own data by default)")

    halting: Halting = Field("learned", description="all steps, or until sure")
    steps: PositiveInt | None = Field(None, description="ACT steps at most (the run's own)")
    votes: PositiveInt | None = Field(
        None, description="versions to solve; if not given 1, of an ARC file's puzzle 64"
    )
    restarts: Count = Field(0, description="then N other start states")
    noise: NonNegative = Field(0.0, description="on the states before each step, in rollouts")
    rollouts: PositiveInt = Field(1, description="then N in all, the first without noise")
    guesses: Count = Field(0, description="then N with guesses, at most")
    select: Select | None = Field(
        None, description="which answer counts; if not given, valid where rules are known"
    )
    seed: Seed = Field(0, description="of the versions, states and noise")
    batch_size: PositiveInt = Field(64, description="puzzles side by side")
    weights: WeightsName = Field("auto", description="auto: averaged ones if saved")
    device: DeviceName = Field("auto", description="where to compute")

    format: Literal["grid", "line", "json", "csv"] = Field("grid", description="of the output")
    trace: bool = Field(False, description="show the answer after every ACT step")
    gif: Path | None = Field(None, description="draw the thinking as an animation")
    png: Path | None = Field(None, description="draw the thinking as a picture")

    @model_validator(mode="before")
    @classmethod
    def _take_a_puzzle_as_such(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The first word is a checkpoint unless it is a puzzle."""
        first = values.get("checkpoint")
        if first is None or not is_puzzle(str(first)):
            return values
        return values | {"checkpoint": None, "puzzles": (str(first), *values.get("puzzles", ()))}

    @model_validator(mode="after")
    def _check(self) -> "SolveConfig":
        if self.puzzles and self.file is not None:
            raise ValueError("give puzzles as arguments or by --file, in one way only")
        refuse_idle_noise(self.noise, self.rollouts)
        return self


def run(read: Callable[[], SolveConfig]) -> None:
    """Solve; ends the process with the exit code."""
    sys.exit(solve(read()))


def solve(config: SolveConfig) -> int:
    """Solve, print, sum up on stderr; returns the exit code.

    Raises:
        UserError: a puzzle cannot be read or contradicts itself; nothing is solved then.
    """
    from hrm.device import keep_memory
    from hrm.inference.output import CSV_FIELDS, Summary, as_text, csv_line
    from hrm.progress import Progress
    from hrm.threads import sharing_cores

    keep_memory()
    solver, found = open_model(config)
    task = solver.task
    if task.without_name and any(p.name is None and p.identifier is None for p in found):
        way_out = "give a file that has a name, or an example by --index"
        print(f"note: {task.without_name}; {way_out}", file=sys.stderr)
    task.refuse_contradictions([p.inputs for p in found], [p.place for p in found])
    poll = voting(config, solver, found)
    side_by_side = len(found) * max(votes_of(config, found, task), config.rollouts)
    arch = solver.model.model.inner.config
    numbers = side_by_side * arch.state_numbers(arch.seq_len, arch.vocab_size)
    size = CHUNK if poll is None else max(1, CHUNK // votes_of(config, found, task))
    drawn = config.gif or config.png
    if drawn and len(found) > 1:
        raise UserError(f"--gif and --png draw one puzzle, not {len(found)}; name it with --index")
    if config.format == "csv":
        write_output(csv_line(CSV_FIELDS))
    summary = Summary()
    for start in range(0, len(found), size):
        chunk = found[start : start + size]
        polls = None if poll is None else [poll(puzzle) for puzzle in chunk]
        began = time.perf_counter()
        if polls is None:
            counted = Progress("puzzles solved", len(found), start)
        else:
            counted = Progress("versions solved", sum(len(one.identifiers) for one in polls))
        with counted as progress, sharing_cores(solver.device, numbers):
            trace = config.trace or bool(drawn)
            solutions = solve_chunk(config, solver, chunk, polls, trace, start, progress)
        summary.add(chunk, solutions, time.perf_counter() - began)
        texts = (
            as_text(puzzle, solution, config.format, task, config.trace)
            for puzzle, solution in zip(chunk, solutions, strict=True)
        )
        write_output("".join(texts))
    if drawn:
        draw(config, solver, found[0], solutions[0])
    print(summary, file=sys.stderr)
    if summary.valid < summary.judged and plain(config):
        print(MORE + GUESSES * task.takes_guesses + WAYS, file=sys.stderr)
    return 1 if summary.unsolved else 0


def is_puzzle(word: str) -> bool:
    """Whether a word is a puzzle, not a checkpoint: it looks so, and nothing lies there."""
    from hrm.tasks.sudoku.notation import BLANKS, DASHES

    cells = sum(letter in CELLS for letter in word)
    blanks = max(word.count(blank) for blank in BLANKS + DASHES)
    looks_so = cells > len(word) / 2 or blanks > len(word) / 3
    return len(word) >= FEWEST_CELLS and looks_so and not os.path.exists(word)


def open_model(config: SolveConfig) -> "tuple[Solver, list[Puzzle]]":
    """The model that is named, or the first of the package that the puzzles fit; and the puzzles.

    Raises:
        UserError: there is no such model, no puzzle, or one that cannot be read.
    """
    from hrm.checkpoint import shipped_models
    from hrm.inference import Solver

    how = config.device, config.weights, config.data
    if config.checkpoint is not None:
        path = config.checkpoint
        if path.suffix.lower() in PUZZLE_FILES and path.is_file():
            raise UserError(f"checkpoint={path}: is none; if it holds puzzles, name it by --file")
        solver = Solver.from_checkpoint(path, *how)
        return solver, read_puzzles(config, solver)
    typed = b""
    if not (config.puzzles or config.file or config.data or config.index is not None):
        typed = stdin().read()
    mistakes: dict[int, UserError] = {}  # by the cells of a puzzle
    for name, folder in shipped_models().items():
        solver = Solver.from_checkpoint(folder, *how)
        notes = io.StringIO()
        try:
            with redirect_stderr(notes):
                found = read_puzzles(config, solver, io.BufferedReader(io.BytesIO(typed)))
        except UserError as error:
            mistakes.setdefault(solver.metadata.seq_len, error)
            continue
        sys.stderr.write(notes.getvalue())
        print(f"note: {name} is asked, a model of this package; see hrm models", file=sys.stderr)
        return solver, found
    typed_cells = len(config.puzzles[0]) if config.puzzles else next(iter(mistakes))
    raise mistakes[min(mistakes, key=lambda cells: abs(cells - typed_cells))]


def stdin() -> BinaryIO:
    """Standard input, where it is no terminal.

    Raises:
        UserError: nothing can be read there.
    """
    if sys.stdin is None or sys.stdin.isatty():  # None: it is closed
        raise UserError("no puzzle; give some as arguments, or use --file or --index")
    return sys.stdin.buffer


def plain(config: SolveConfig) -> bool:
    """Whether each puzzle is tried once."""
    return (config.votes or 1) + config.restarts + config.rollouts + config.guesses == 2


def solve_chunk(
    config: SolveConfig,
    solver: "Solver",
    chunk: "Sequence[Puzzle]",
    polls: "Sequence[Poll] | None",
    trace: bool,
    start: int = 0,
    progress: "Progress | None" = None,
) -> "list[Solution]":
    """Solutions of some puzzles, in their order; `start` is the first one's position.

    Args:
        polls: of each puzzle the versions that the model knows by name; None: none vote.
    """
    import numpy as np

    from hrm.inference.polls import solve_by_vote

    how: dict[str, Any] = {
        "halting": config.halting,
        "steps": config.steps,
        "restarts": config.restarts,
        "noise": config.noise,
        "rollouts": config.rollouts,
        "guesses": config.guesses,
        "select": config.select,
        "trace": trace,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "offset": start,
        "progress": progress,
    }
    if polls is not None:
        return solve_by_vote(solver, polls, **how)
    return solver.solve(
        np.stack([puzzle.inputs for puzzle in chunk]),
        votes=config.votes or 1,
        puzzle_identifiers=np.array([solver.identifier_of(puzzle.identifier) for puzzle in chunk]),
        **how,
    )


def votes_of(config: SolveConfig, found: "Sequence[Puzzle]", task: "Task") -> int:
    """How many versions of each puzzle are to be asked, at most."""
    return config.votes or (1 if found[0].name is None else task.votes_of_file)


def voting(
    config: SolveConfig, solver: "Solver", found: "Sequence[Puzzle]"
) -> "Callable[[Puzzle], Poll] | None":
    """What finds the versions of a puzzle that the model knows by name; None where none vote.

    Raises:
        UserError: of a puzzle of a file, the model does not know the name.
    """
    task, first = solver.task, found[0]
    votes = votes_of(config, found, task)
    if not task.votes_by_name or (first.name is None and (first.identifier is None or votes == 1)):
        return None
    names = solver.names(config.data)
    known = task.polls(names)

    def poll(puzzle: "Puzzle") -> "Poll":
        name = puzzle.name
        if name is None:
            assert puzzle.identifier is not None
            if puzzle.identifier >= len(names):
                raise UserError(f"{puzzle.place}: the model does not know its name; use votes=1")
            name = names[puzzle.identifier]
        return known.of(name, puzzle.inputs, votes, puzzle.place)

    for puzzle in found if first.name is not None else ():
        poll(puzzle)  # so that an unknown name is told before anything is solved
    return poll


def read_puzzles(
    config: SolveConfig, solver: "Solver", typed: BinaryIO | None = None
) -> "list[Puzzle]":
    """The puzzles that the options name.

    Args:
        typed: what has been read from standard input already.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    found = read_given(config, solver, typed)
    if config.index is None or (config.file is None and not config.puzzles):
        return found
    if config.index >= len(found):
        given = f"{len(found)} puzzle{'s are' if len(found) > 1 else ' is'} given"
        raise UserError(f"--index {config.index}: {given}, the first has the number 0")
    return [found[config.index]]


def read_given(config: SolveConfig, solver: "Solver", typed: BinaryIO | None) -> "list[Puzzle]":
    """All puzzles of the source that the options name; of a data set only those asked for."""
    from hrm.inference import sources

    task = solver.task
    files = [config.file] if config.file is not None else list(map(Path, config.puzzles))
    if task.file_suffix and files and all(f.suffix.lower() == task.file_suffix for f in files):
        return [puzzle for path in files for puzzle in sources.read_named(path, task)]
    if config.puzzles:
        return sources.from_arguments(config.puzzles, task)
    if config.file is not None:
        return sources.read_lines(config.file, task)
    if config.data is not None or (config.index is not None and solver.data_path is not None):
        return from_data(config, solver)
    return sources.read_stream(typed or stdin(), "stdin", task)


def from_data(config: SolveConfig, solver: "Solver") -> "list[Puzzle]":
    """Puzzles of a data set, with a note where the model may know them, or does not by name.

    Raises:
        UserError: there is none, or they do not fit the model.
    """
    from hrm.data.missing import training_data
    from hrm.inference.sources import from_split

    data, own = config.data, solver.examples
    if data is None and own is not None:
        return from_split(own, config.split, solver.metadata, config.index, origin=solver.origin)
    if data is None:
        assert solver.data_path is not None
        data = training_data(solver.data_path, "--data")
    found = from_split(data, config.split, solver.metadata, config.index, origin=solver.origin)
    for note in solver.notes_on(data, config.split):
        print(f"note: {note}", file=sys.stderr)
    return found


def draw(config: SolveConfig, solver: "Solver", puzzle: "Puzzle", solution: "Solution") -> None:
    """Write the pictures that were asked for.

    Raises:
        UserError: a file cannot be written.
    """
    from hrm.inference.output import pictures
    from hrm.viz.picture import save_gif, save_png, side_by_side_pictures

    try:
        if path := config.gif:
            save_gif(pictures(puzzle, solution, solver.task, every_step=True), path)
        if path := config.png:
            steps = pictures(puzzle, solution, solver.task, every_step=False)
            save_png(side_by_side_pictures(steps), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None


class SolveCommand(SchemaCommand[SolveConfig]):
    """Becomes `hrm serve` with --serve."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **more: Any,
    ) -> click.Context:
        flags = args[: args.index("--")] if "--" in args else args
        if "--serve" not in flags:
            return super().make_context(info_name, args, parent, **more)
        from hrm.cli import serve

        others = [word for word in args if word != "--serve"]
        return serve.command.make_context(info_name, others, parent, **more)


command = SolveCommand(
    "solve",
    SolveConfig,
    run,
    HELP,
    first="checkpoint",
    rest="puzzles",
    switches=[
        click.Option(
            ["--serve"],
            is_flag=True,
            default=None,
            expose_value=False,
            help="open the web page instead, as hrm serve",
        )
    ],
)
