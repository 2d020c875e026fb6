"""What the page and the server say to each other; grids are strings, one character per cell."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hrm.rollout import Halting

LONGEST_ID, LONGEST_PUZZLE = 500, 4096
MOST_STEPS, MOST_PUZZLES = 256, 256
LARGEST_NUMBER = 2**53 - 1  # that JavaScript counts to

Id = Annotated[str, Field(max_length=LONGEST_ID)]
Puzzle = Annotated[str, Field(max_length=LONGEST_PUZZLE)]
Index = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Thinking(_Asked):
    """With which model, and for how long; without `steps` as long as in training."""

    checkpoint: Id
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    halting: Halting = "learned"


class ThinkRequest(Thinking):
    puzzle: Puzzle


class SolveRequest(Thinking):
    puzzles: Annotated[list[Puzzle], Field(min_length=1, max_length=MOST_PUZZLES)]


class CheckRequest(Thinking):
    """Examples [start, start + count) of a split."""

    data: Id
    split: Id
    start: Index = 0
    count: Annotated[int, Field(ge=1, le=MOST_PUZZLES)]


class Health(BaseModel):
    status: Literal["ok"]
    running: Count
    waiting: Count
    models: list[str]


class CheckpointInfo(BaseModel):
    id: str
    task: str | None
    grid_shape: tuple[int, int]
    box_shape: tuple[int, int] | None
    symbols: str
    blank: str | None
    max_steps: int
    data_path_id: str | None
    step: int | None


class Checkpoints(BaseModel):
    checkpoints: list[CheckpointInfo]
    default: str | None


class SplitInfo(BaseModel):
    examples: Count
    groups: Count


class DatasetInfo(BaseModel):
    id: str
    task: str | None
    grid_shape: tuple[int, int]
    box_shape: tuple[int, int] | None
    symbols: str
    splits: dict[str, SplitInfo]


class Datasets(BaseModel):
    datasets: list[DatasetInfo]


class StepAnswer(BaseModel):
    """One line of `/api/think`."""

    step: int
    answer: str
    confidence: list[Probability]
    halt_probability: Probability
    valid: bool | None
    halted: bool


class Answer(BaseModel):
    answer: str
    confidence: list[Probability]
    halt_probability: Probability
    valid: bool | None
    steps: int


class Answers(BaseModel):
    solutions: list[Answer]


class Example(BaseModel):
    """`answer` has `?` where it is not known; [first, last) are the versions of one puzzle."""

    index: Count
    examples: Count
    puzzle: str
    answer: str
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
    reset: bool


class Error(BaseModel):
    """`column` is the cell at fault, counted from 0."""

    error: str
    column: int | None = None
