"""What the page and the server say to each other; grids are strings, one character per cell."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from hrm.config import Count, Halting, Select
from hrm.tasks import PuzzleError, Task

LONGEST_ID, LONGEST_PUZZLE = 500, 4096
MOST_STEPS, MOST_PUZZLES = 256, 256
MOST_VOTES, MOST_RESTARTS, MOST_ROLLOUTS, MOST_GUESSES, MOST_NOISE = 64, 16, 64, 256, 10.0
LARGEST_NUMBER = 2**53 - 1  # that JavaScript counts to

Id = Annotated[str, Field(max_length=LONGEST_ID)]
Puzzle = Annotated[str, Field(max_length=LONGEST_PUZZLE)]
Index = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ModelRequest(_Asked):
    """With which model, and for how long; without `steps` as long as in training."""

    checkpoint: Id
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    halting: Halting = "learned"


class Trying(ModelRequest):
    """How often to try, and which answer counts; by default the first that is found valid.

    The first attempt is at the puzzle as it is, the next `votes - 1` at symmetric versions of it,
    then `restarts` at the puzzle from other start states, then `rollouts - 1` with `noise` on the
    states, the last `guesses` with guesses written into it; `seed` draws all but these.
    """

    votes: Annotated[int, Field(ge=1, le=MOST_VOTES)] = 1
    restarts: Annotated[int, Field(ge=0, le=MOST_RESTARTS)] = 0
    noise: Annotated[float, Field(ge=0, le=MOST_NOISE)] = 0.0
    rollouts: Annotated[int, Field(ge=1, le=MOST_ROLLOUTS)] = 1
    guesses: Annotated[int, Field(ge=0, le=MOST_GUESSES)] = 0
    select: Select | None = None
    seed: Index = 0

    @property
    def tries(self) -> dict[str, Any]:
        """As `plan_attempts` takes them."""
        return self.model_dump(include=set(Trying.model_fields) - set(ModelRequest.model_fields))


class Identity(_Asked):
    """Which of a data set's puzzles it is, by its number in `identifiers.json`."""

    data: Id
    identifier: Index


class ThinkRequest(Trying):
    """Without `identity` the puzzle is one that was not seen in training."""

    puzzle: Puzzle
    identity: Identity | None = None


class InsideRequest(ModelRequest):
    """A look at the puzzle as it is, after `steps` ACT steps, and from a cell, counted from 0."""

    puzzle: Puzzle
    identity: Identity | None = None
    cell: Annotated[int, Field(ge=0, lt=LONGEST_PUZZLE)] = 0


class SolveRequest(Trying):
    """With `identity` all are that puzzle of a data set; without, none was seen in training."""

    puzzles: Annotated[list[Puzzle], Field(min_length=1, max_length=MOST_PUZZLES)]
    identity: Identity | None = None


class CheckRequest(ModelRequest):
    """Examples [start, start + count) of a split."""

    data: Id
    split: Id
    start: Index = 0
    count: Annotated[int, Field(ge=1, le=MOST_PUZZLES)]


class ReadRequest(_Asked):
    """A puzzle as people write it, for a checkpoint's grid."""

    checkpoint: Id
    text: Puzzle


class Health(BaseModel):
    status: Literal["ok"]
    running: Count
    waiting: Count
    models: list[str]


class Rules(BaseModel):
    """What a task knows of its puzzles, so that the page need not know it.

    `empty` are the symbols of cells that hold nothing. `aliases` are other characters that may be
    typed for a symbol. No symbol but an empty one stands twice in the cells of a unit. `wall` is
    drawn as solid. `colors` are fill and ink of the symbols that are colours, `ends` symbols that
    say where a grid ends on its canvas. `without_name` is to be said of a puzzle without identity.
    With `votes_by_name` versions are those that a model knows of a puzzle with identity, and all
    vote.
    """

    blank: str | None
    empty: str
    aliases: dict[str, str]
    units: list[tuple[int, ...]]
    wall: str | None
    colors: dict[str, tuple[str, str]]
    ends: str
    without_name: str | None
    votes_by_name: bool
    most_versions: Annotated[int, Field(ge=1, le=MOST_VOTES)]  # 1: no symmetry is known
    judged: bool  # whether answers can be found valid

    @classmethod
    def of(cls, task: Task) -> Self:
        grid, notation = task.grid, task.notation
        return cls(
            blank=grid.blank,
            empty=grid.empty,
            aliases={**notation.aliases, **notation.dashes},
            units=[unit.cells for unit in task.units],
            wall=grid.wall,
            colors=dict(grid.colors),
            ends=grid.ends,
            without_name=task.without_name,
            votes_by_name=task.votes_by_name,
            most_versions=MOST_VOTES if task.votes_by_name else min(task.most_versions, MOST_VOTES),
            judged=task.judges,
        )


class Kind(BaseModel):
    """A kind of puzzles: how they are drawn, and their rules."""

    id: str
    task: str
    grid_shape: tuple[int, int]
    box_shape: tuple[int, int] | None
    symbols: str
    rules: Rules

    @classmethod
    def of(cls, task: Task, **own: Any) -> Self:
        """`own` are the other fields."""
        return cls(
            task=task.name,
            grid_shape=task.grid.shape,
            box_shape=task.grid.box_shape,
            symbols=task.grid.symbols,
            rules=Rules.of(task),
            **own,
        )


class CheckpointInfo(Kind):
    max_steps: int
    guess_steps: int  # of an attempt with guesses, at most; 0: none can be made
    data_path_id: str | None
    step: int | None
    earlier_of: str | None = None  # id of the newest checkpoint of the same run


class Checkpoints(BaseModel):
    checkpoints: list[CheckpointInfo]
    default: str | None


class SplitInfo(BaseModel):
    examples: Count
    groups: Count


class DatasetInfo(Kind):
    splits: dict[str, SplitInfo]


class Datasets(BaseModel):
    datasets: list[DatasetInfo]


class Voted(BaseModel):
    """An answer that may be given, by the first attempt that gave it."""

    attempt: int
    votes: int


class StepAnswer(BaseModel):
    """One line of `/api/think`; those of attempts that think side by side are mixed."""

    attempt: int  # from 1
    step: int  # of this attempt, from 1
    answer: str
    confidence: list[Probability]
    halt_probability: Probability
    valid: bool | None
    halted: bool  # the attempt's last step; an attempt that is given up has none
    last: bool  # the last line
    best: int | None  # in the last line: the attempt whose answer counts
    guessed: list[int] | None = None  # cells into which guesses were written in the attempt
    versions: int | None = None  # that vote, one attempt each; None: none do
    voted: list[Voted] | None = None  # in the last line, where versions vote: the best one first


class Answer(BaseModel):
    """The answer that counts, by `select`."""

    answer: str
    confidence: list[Probability]
    halt_probability: Probability
    valid: bool | None
    steps: int  # that led to this answer
    attempts: int  # that were begun
    total_steps: int  # of all attempts, those side by side counted until one of them counts


class StatePath(BaseModel):
    """How a state moves: its places in two principal components, the start first."""

    name: str
    places: list[tuple[float, float]]
    explained: tuple[float, float]  # shares of the variance
    moved: list[float]  # root mean square of what each step changed


class BlockAttention(BaseModel):
    """How much a cell attends to each cell, per head, in the last call of a block."""

    block: str
    heads: list[list[Probability]]


class Inside(BaseModel):
    paths: list[StatePath]
    attention: list[BlockAttention]


class Answers(BaseModel):
    solutions: list[Answer]
    step: int | None  # of training: that of the checkpoint which answered


class ReadPuzzle(BaseModel):
    """A puzzle, or why the text is none; `column` is the cell at fault, counted from 0.

    `note` says how the text was read where its characters may mean something else.
    """

    puzzle: str | None = None
    note: str | None = None
    error: str | None = None
    column: int | None = None

    @classmethod
    def of(cls, text: str, task: Task) -> Self:
        try:
            reading = task.notation.reading(text, task.shape)
        except PuzzleError as error:
            return cls(error=error.reason, column=error.cell)
        note = None if reading.spelling is None else reading.spelling.meaning
        return cls(puzzle=task.grid.text(reading.tokens), note=note)


class Example(BaseModel):
    """`answer` has `?` where it is not known; [first, last) are the versions of one puzzle.

    A negative `identifier` is none.
    """

    index: Count
    examples: Count
    puzzle: str
    answer: str
    identifier: int
    group: Count
    first: Count
    last: Count


class Checked(BaseModel):
    wrong: list[int]
    checked: Count
    examples: Count


class RunInfo(BaseModel):
    id: str
    steps_done: int | None


class Runs(BaseModel):
    runs: list[RunInfo]


class Metrics(BaseModel):
    records: list[dict[str, float | None]]
    next: Count
    file: str  # by its first line: another where a run has been replaced, "" before there is one
    reset: bool


class Error(BaseModel):
    """`column` is the cell at fault, counted from 0."""

    error: str
    column: int | None = None
