"""Ways to ask a model for the same answer, and which of the answers counts.

Symmetric versions, other start states and noise: solver, server and evaluation try them wave after
wave. The attempts of one wave think side by side; where a valid answer counts, the first wave that
has one is the last, and its attempts that cannot count any more are given up. Guesses come last:
which ones follows from the answers before (`guesses.py`).

Shapes: N puzzles, T tokens per puzzle, V vocabulary.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from hrm.config import Halting, Select, refuse_idle_noise
from hrm.errors import UserError
from hrm.guesses import AT_ONCE, Guesses
from hrm.models.losses import ACTLossHead
from hrm.progress import Progress
from hrm.rollout import Batch, Noise, RolloutStep, rollout
from hrm.tasks import Symmetry, Task

GUESS_STEPS = 16  # ACT steps: a wrong guess takes all, and the next one may be right


@dataclass(frozen=True)
class Attempt:
    """One way to ask; the first one asks for the puzzle as it is."""

    symmetry: Symmetry | None = None
    start_seed: int | None = None  # of other start states; None: the model's own
    noise: float = 0.0  # standard deviation of what is added to the states
    noise_seed: int = 0
    rollout: int = 0  # tells noisy attempts apart
    is_guess: bool = False  # takes `GUESS_STEPS` at most

    def steps_at_most(self, asked: int, trained: int) -> int:
        """ACT steps, where so many are asked for, and so many were taken in training at most."""
        return min(asked, trained, GUESS_STEPS) if self.is_guess else asked

    def apply(self, puzzles: np.ndarray) -> np.ndarray:
        """What the model is asked, [..., T] -> [..., T]."""
        return puzzles if self.symmetry is None else self.symmetry.apply(puzzles)

    def undo(self, answers: np.ndarray) -> np.ndarray:
        """The model's tokens -> tokens of the puzzle's answer, [..., T] -> [..., T]."""
        return answers if self.symmetry is None else self.symmetry.undo(answers)

    def undo_cells(self, values: np.ndarray) -> np.ndarray:
        """One value per cell, likewise, [..., T]."""
        return values if self.symmetry is None else self.symmetry.undo_cells(values)

    def undo_probabilities(self, values: np.ndarray) -> np.ndarray:
        """One value per cell and token, likewise, [..., T, V]."""
        return values if self.symmetry is None else self.symmetry.undo_probabilities(values)


Wave = tuple[Attempt, ...]  # of one symmetry and start state


class Answered(Protocol):
    """What answers are compared by."""

    @property
    def attempt(self) -> int: ...  # from 1
    @property
    def steps(self) -> int: ...
    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def valid(self) -> bool | None: ...
    @property
    def halt_probability(self) -> float: ...


class Tried(Answered, Protocol):
    """An answer after which guesses may follow: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def probabilities(self) -> np.ndarray | None: ...  # T V, of every token in every cell


Answer = TypeVar("Answer", bound=Answered)
Try = TypeVar("Try", bound=Tried)


@dataclass(frozen=True)
class Plan:
    """All attempts at a puzzle, in waves, and how the answer is chosen."""

    waves: tuple[Wave, ...] = ((Attempt(),),)
    select: Select = "valid"
    guesses: int = 0  # further attempts at most, at the puzzle with guesses written into it

    @cached_property
    def attempts(self) -> Wave:
        """All of them; answers name them by their number, from 1."""
        return tuple(attempt for wave in self.waves for attempt in wave)

    @property
    def width(self) -> int:
        """Attempts that are made side by side at most."""
        return max(*map(len, self.waves), AT_ONCE if self.guesses else 0)

    def is_settled(self, answers: Iterable[Answered]) -> bool:
        """Whether these answers to a puzzle make further waves needless."""
        return self.select == "valid" and any(answer.valid for answer in answers)

    def choose(self, answers: Iterable[Answer]) -> Answer:
        """The answer that counts of those to a puzzle; of equals that of the first attempt.

        `valid`: the valid answer after the fewest ACT steps, else, of those without guesses, that
        of the highest halting probability. `q_halt`: the latter in any case. `majority`: the answer
        that most attempts gave, of several such the one of the highest halting probability.
        """
        known = sorted(answers, key=lambda answer: answer.attempt)
        if self.select == "majority":
            given = Counter(answer.tokens.tobytes() for answer in known)
            return max(known, key=lambda a: (given[a.tokens.tobytes()], a.halt_probability))
        if self.is_settled(known):
            return min((a for a in known if a.valid), key=lambda a: a.steps)
        if self.guesses:
            known = [answer for answer in known if answer.attempt <= len(self.attempts)]
        return max(known, key=lambda answer: answer.halt_probability)

    def cost(self, answers: Sequence[Answered]) -> tuple[int, int]:
        """Attempts at a puzzle that were begun, and ACT steps of all of them.

        Counted as if the attempts of a wave took their steps at the same pace and ended with the
        answer that counts: so it does not depend on how many thought side by side.
        """
        begun = steps = 0
        for wave in self.waves:
            ended = [a for a in answers if begun < a.attempt <= begun + len(wave)]
            if not ended:
                break
            begun += len(wave)
            steps += self.cost_of_wave(len(wave), ended)
        guesses = [answer for answer in answers if answer.attempt > len(self.attempts)]
        return begun + len(guesses), steps + sum(guess.steps for guess in guesses)

    def cost_of_wave(self, size: int, ended: Sequence[Answered]) -> int:
        """ACT steps of the attempts of a wave; those that have not ended were given up."""
        if len(ended) == size and not self.is_settled(ended):
            return sum(answer.steps for answer in ended)
        last = min(answer.steps for answer in ended if answer.valid)
        return last * (size - len(ended)) + sum(min(answer.steps, last) for answer in ended)


Place = tuple[int, int]  # ACT steps, number: a valid answer counts before those of higher places


def can_count(best: Place | None, number: int, taken: int) -> bool:
    """Whether an attempt that has taken so many steps without halting can still be the best.

    Args:
        best: place of the best valid answer of the wave so far.
        number: of the attempt.
    """
    return best is None or (taken + 1, number) < best


def plan_attempts(
    task: Task,
    votes: int = 1,
    restarts: int = 0,
    noise: float = 0.0,
    rollouts: int = 1,
    select: Select | None = None,
    seed: int = 0,
    guesses: int = 0,
) -> Plan:
    """The puzzle as it is, `votes - 1` symmetric versions, `restarts` other starts, noise, guesses.

    The first attempt is rollout 0, without noise; the other `rollouts - 1` come in waves of 1, 2,
    4, … where a valid answer ends the search, so that few are in vain, else all in one.

    Args:
        select: None: `valid` where the task's rules are known, else `q_halt`.
        seed: of versions, start states and noise.
        guesses: at most so many attempts with guesses, where no answer before is valid.

    Raises:
        UserError: a number is out of range, or the task has not as many versions, or no rules.
    """
    for name, value, least in (
        ("votes", votes, 1),
        ("restarts", restarts, 0),
        ("guesses", guesses, 0),
    ):
        if value < least:
            raise UserError(f"{name}={value}: must be at least {least}")
    try:
        refuse_idle_noise(noise, rollouts)
    except ValueError as error:
        raise UserError(str(error)) from None
    if select == "valid" and not task.judges:
        raise UserError(f"select=valid: no rules are known for {task.name}; use q_halt or majority")
    if guesses and not task.takes_guesses:
        raise UserError(f"guesses={guesses}: none can be written into puzzles of {task.name}")
    select = select or ("valid" if task.judges else "q_halt")
    if guesses and select != "valid":
        raise UserError(f"guesses={guesses}: they end with a valid answer; use select=valid")
    versions = task.symmetries(votes - 1, seed) if votes > 1 else []
    waves: list[Wave] = [
        (Attempt(),),
        *((Attempt(symmetry),) for symmetry in versions),
        *((Attempt(start_seed=seed + number),) for number in range(restarts)),
    ]
    noisy = tuple(
        Attempt(noise=noise, noise_seed=seed, rollout=number) for number in range(1, rollouts)
    )
    while noisy:
        size = 2 ** (len(waves) - votes - restarts) if select == "valid" else len(noisy)
        waves.append(noisy[:size])
        noisy = noisy[size:]
    return Plan(tuple(waves), select, guesses)


Run = Callable[[np.ndarray, np.ndarray, Wave, int], Iterable[tuple[int, Try]]]


def search(
    plan: Plan, task: Task, inputs: np.ndarray, run: Run[Try], progress: bool = False
) -> tuple[list[Try], list[int]]:
    """Wave after wave of attempts at puzzles, until each has the answer that counts.

    Args:
        inputs: the puzzles, [N, T] int32.
        run: makes a wave's attempts at some puzzles; it is given their rows [n], what the model is
            asked instead of their inputs [n, T], the wave, and the number of attempts before.
            Returns, of each attempt that has ended, which of the n it was at, and its answer.
        progress: show that of the guesses, where they take long.

    Returns:
        The answers, and the ACT steps of all attempts at each puzzle.
    """
    found: list[list[Try]] = [[] for _ in inputs]
    costs = [0] * len(inputs)
    rows, before = np.arange(len(inputs)), 0
    first: dict[int, Try] = {}
    for wave in plan.waves:
        if not len(rows):
            break
        of_wave: list[list[Try]] = [[] for _ in rows]
        for number, answer in run(rows, inputs[rows], wave, before):
            of_wave[number].append(answer)
        for row, ended in zip(rows.tolist(), of_wave, strict=True):
            costs[row] += plan.cost_of_wave(len(wave), ended)
            found[row] += ended
            first.setdefault(row, ended[0])
            if plan.select != "majority":
                found[row] = [plan.choose(found[row])]
        rows = np.array([n for n in rows.tolist() if not plan.is_settled(found[n])], np.int64)
        before += len(wave)
    if plan.guesses:
        unsolved = {row: (inputs[row], first[row]) for row in rows.tolist()}
        for row, answer in _guess(plan, task, unsolved, run, before, progress):
            costs[row] += answer.steps
            found[row] = [plan.choose([*found[row], answer])]
    return [plan.choose(answers) for answers in found], costs


def _guess(
    plan: Plan,
    task: Task,
    puzzles: Mapping[int, tuple[np.ndarray, Try]],
    run: Run[Try],
    before: int,
    progress: bool,
) -> Iterator[tuple[int, Try]]:
    """Attempts with guesses, until each puzzle is solved or has no more of them.

    Args:
        puzzles: by row, [T] each, and the first answer to it.
        before: attempts at each of them before.
    """
    waiting = {
        row: Guesses(task, tokens, _known(answer), plan.guesses)
        for row, (tokens, answer) in puzzles.items()
    }
    made = 0  # at each puzzle
    with Progress("guesses at each puzzle", plan.guesses, enabled=progress) as shown:
        while asked := [(row, *one) for row, tree in waiting.items() for one in tree.take()]:
            rows = np.array([row for row, _, _ in asked])
            tokens = np.stack([guess.tokens for _, _, guess in asked])
            for number, answer in run(rows, tokens, (Attempt(is_guess=True),), before):
                row, place, guess = asked[number]
                yield row, replace(answer, attempt=before + place)
                if answer.valid:
                    waiting.pop(row, None)
                elif row in waiting:
                    waiting[row].branch(guess, _known(answer))
            most = max((tree.taken for tree in waiting.values()), default=plan.guesses)
            shown.update(most - made, f", {len(waiting):,} puzzles left")
            made = most


def _known(answer: Tried) -> np.ndarray:
    assert answer.probabilities is not None
    return answer.probabilities


@dataclass(frozen=True)
class RolloutOptions:
    """How long to think; as of `rollout`, and how many think side by side."""

    halting: Halting
    halt_probability: float
    max_steps: int | None
    batch_size: int


def run_wave(
    model: ACTLossHead,
    task: Task,
    puzzles: Batch,
    positions: Tensor,
    plan: Plan,
    wave: Wave,
    how: RolloutOptions,
    device: torch.device,
) -> Iterator[RolloutStep]:
    """The attempts of a wave at N puzzles, side by side.

    Attempt k of the wave at puzzle n has the number n · len(wave) + k in the steps. Where it cannot
    count any more it is given up: it never halts.

    Args:
        puzzles: rows as of `rollout`, [N, …].
        positions: [N] int64 on the host: of the puzzles in the input, for their noise.
    """
    size, kind = len(wave), wave[0]
    trained = model.model.config.halt_max_steps
    most = kind.steps_at_most(how.max_steps or trained, trained)
    inputs = puzzles["inputs"].cpu().numpy()
    asked = {**puzzles, "inputs": torch.from_numpy(kind.apply(inputs))}
    every = torch.arange(len(inputs) * size)
    batches = (
        {name: rows[(part // size).to(rows.device)].to(device) for name, rows in asked.items()}
        for part in every.split(how.batch_size)
    )
    taken, best = [0] * len(every), dict[int, Place]()

    def noise(index: Tensor) -> Noise:
        attempts = [wave[number] for number in (index % size).tolist()]
        return noise_of(attempts, positions[index // size])

    def is_wanted(number: int) -> bool:
        puzzle, place = divmod(number, size)
        return can_count(best.get(puzzle), place, taken[number])

    stops = plan.select == "valid" and size > 1
    for step in rollout(
        model,
        batches,
        how.halting,
        how.halt_probability,
        most,
        kind.start_seed,
        noise if any(attempt.noise for attempt in wave) else None,
        is_wanted if stops else None,
    ):
        if stops:
            for number in step.index[step.running].tolist():
                taken[number] += 1
            if step.halting.any():
                ended = step.select(step.halting)
                own = inputs[(ended.index // size).numpy()]
                valid = task.are_valid(answers_of(ended, kind, task, own), own)
                for number, is_valid in zip(ended.index.tolist(), valid, strict=True):
                    puzzle, place = divmod(number, size)
                    if is_valid and can_count(best.get(puzzle), place, taken[number] - 1):
                        best[puzzle] = taken[number], place
        yield step


def answers_of(step: RolloutStep, attempt: Attempt, task: "Task", inputs: np.ndarray) -> np.ndarray:
    """What was answered in a step to the puzzles `inputs`, tidied; both [B, T] int32."""
    tokens = step.outputs["logits"].argmax(-1).to(torch.int32).cpu().numpy()
    return task.tidied(attempt.undo(tokens), inputs)


def noise_of(attempts: Sequence[Attempt], positions: Tensor) -> Noise:
    """The noise of attempts at puzzles in these positions of the input, one each."""
    return Noise(
        torch.tensor([attempt.noise for attempt in attempts], dtype=torch.float32),
        torch.tensor([attempt.noise_seed for attempt in attempts], dtype=torch.int64),
        positions,
        torch.tensor([attempt.rollout for attempt in attempts], dtype=torch.int64),
    )
