"""Load a checkpoint once, solve many puzzles.

Shapes: N puzzles, T tokens per puzzle, S ACT steps, V vocabulary.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrm.attempts import Plan, RolloutOptions, Wave, plan_attempts, run_wave, search
from hrm.checkpoint import Checkpoint, load_checkpoint, shipped_models
from hrm.checkpoint.finding import FIRST_SHIPPED
from hrm.config import DeviceName, Halting, Select, WeightsName
from hrm.data.format import IDENTIFIERS_FILE, DatasetMetadata
from hrm.data.missing import training_data
from hrm.data.names import read_names
from hrm.data.origin import Origin, compare_data, knows_identifiers, unknown_identifiers
from hrm.device import has_fast_bfloat16, pick_device
from hrm.errors import UserError
from hrm.guesses import guessed_cells
from hrm.hub import Repository
from hrm.models.losses import ACTLossHead
from hrm.progress import Progress
from hrm.tasks import Choice, task_of


@dataclass(frozen=True)
class Trace:
    """What a model answered after every ACT step."""

    tokens: np.ndarray  # S T, int32
    probabilities: np.ndarray  # S T V, float32: of every token in every cell
    q_halt: np.ndarray  # S, float32 logits
    q_continue: np.ndarray  # S, float32 logits

    @property
    def halt_probability(self) -> np.ndarray:
        """sigmoid(q_halt), [S] float32: how sure the model is that all of its answer is right."""
        return _sigmoid(self.q_halt)


@dataclass(frozen=True)
class Solution:
    """One puzzle's answer."""

    inputs: np.ndarray = field(repr=False)  # T, int32
    tokens: np.ndarray = field(repr=False)  # T, int32: the answer
    answer: str  # the same, one character per cell as puzzles are written
    valid: bool | None  # by the rules of the puzzle; None where they are not known
    steps: int  # ACT steps that led to this answer
    halt_probability: float  # sigmoid(q_halt) at the last step
    confidence: np.ndarray = field(repr=False)  # T, float32: probability of each cell's token
    total_steps: int  # ACT steps of all attempts
    trace: Trace | None = field(default=None, repr=False)
    attempt: int = 1  # that led to this answer, of all attempts; the first is the puzzle as it is
    probabilities: np.ndarray | None = field(default=None, repr=False)  # T V, if guesses may follow
    guessed: tuple[int, ...] = ()  # cells into which guesses were written in that attempt
    votes: int = 0  # of named versions, see `solve_by_vote`; then `choices` are the first answers
    choices: tuple[Choice, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Traits:
    """What those who ask a model need to know of it, without its weights."""

    metadata: DatasetMetadata
    origin: Origin  # what names the data set that it was trained on
    max_steps: int  # ACT steps at most in training
    learned_steps: int  # and with learned halting
    step: int | None  # of the checkpoint

    def steps_at_most(self, halting: Halting) -> int:
        """ACT steps at most where nobody says how many."""
        return self.learned_steps if halting == "learned" else self.max_steps


class Solver:
    """A model in evaluation mode on its device, and what it knows about the puzzles.

    For one thread at a time.
    """

    def __init__(
        self,
        model: ACTLossHead,
        metadata: DatasetMetadata,
        device: torch.device,
        halt_probability: float = 0.0,
        data_path: Path | None = None,
        origin: Origin | None = None,
        learned_steps: int | None = None,
        examples: Path | None = None,
        step: int | None = None,
    ):
        self.model = model.to(device).eval()
        self.metadata = metadata
        self.task = task_of(metadata)
        self.grid = self.task.grid
        self.device = device
        self.halt_probability = halt_probability  # with learned halting; see `rollout`
        self.data_path = data_path  # of the data set that the model was trained on
        self.origin = origin or Origin()  # what names it
        self.examples = examples  # data set with a test split, beside the weights
        self.step = step  # of training, after which the weights were saved
        self._learned_steps = learned_steps  # at most, with learned halting; None: as in training

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: DeviceName = "auto",
        weights: WeightsName = "auto",
        data_path: Path | None = None,
    ) -> "Solver":
        """Rebuild the model of a checkpoint (a `step_<n>`, or the newest of a run's folder).

        It computes in the dtype it was trained in, but in float32 where the device would emulate
        bfloat16. The original's checkpoints take the sequence length from `data_path`.

        Raises:
            UserError: as `load_checkpoint` and `pick_device`.
        """
        chosen = pick_device(device)
        checkpoint = load_checkpoint(Path(path), weights, data_path)
        trained = checkpoint.config.arch.forward_dtype
        if trained == "bfloat16" and not has_fast_bfloat16(chosen):
            checkpoint = checkpoint.in_dtype("float32")
        return cls.of(checkpoint, chosen)

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: torch.device) -> "Solver":
        """The solver of a checkpoint that is loaded, in the dtype that it has."""
        config = checkpoint.config
        return cls(
            checkpoint.model,
            checkpoint.metadata,
            device,
            halt_probability=config.eval_halt_probability,
            data_path=config.data_path,
            origin=checkpoint.origin,
            learned_steps=config.eval_max_steps,
            examples=checkpoint.own_examples,
            step=checkpoint.step,
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        revision: str | None = None,
        device: DeviceName = "auto",
        data_path: Path | None = None,
    ) -> "Solver":
        """A trained model that others share, by its name on the Hugging Face Hub.

        Args:
            name: `user/name`, maybe with `/folder`, or `hf://user/name@revision/folder`.
            revision: a branch, tag or commit.
            data_path: as of `from_checkpoint`, which the original's checkpoints need.

        Raises:
            UserError: as `hrm.checkpoint.find_checkpoint` and `from_checkpoint`.
        """
        repository = Repository.parse(name)
        if revision is not None:
            repository = replace(repository, revision=revision)
        return cls.from_checkpoint(str(repository), device, data_path=data_path)

    @property
    def unseen_identifier(self) -> int:
        """Identifier of a puzzle that training did not know: the shared one, else the blank."""
        return self.metadata.unseen_identifier

    def identifier_of(self, identifier: int | None) -> int:
        """A data set's identifier where the model has a row for it, else that of unseen ones."""
        return self.metadata.identifier_of(identifier)

    def names(self, data_path: Path | None = None) -> list[str]:
        """Of the identifiers that the model knows.

        Args:
            data_path: of a data set with the identifiers of training; None: training's own.

        Raises:
            UserError: it is not there, has other identifiers, or is damaged.
        """
        data = data_path or training_data(self.data_path or Path(), "--data")
        if not knows_identifiers(self.origin, data):
            raise UserError(
                f"{data}: its {IDENTIFIERS_FILE} is not that of training, by which the model knows "
                "names; name the data set that it was trained on by --data"
            )
        return read_names(data)[: self.metadata.num_puzzle_identifiers]

    def notes_on(self, data_path: Path, split: str) -> list[str]:
        """What is to be said of a data set that is not the one that the model was trained on.

        Raises:
            UserError: its files, or those of the training data, are damaged.
        """
        meeting = compare_data(self.origin, self.data_path or data_path, data_path, split)
        notes = [meeting.seen, meeting.note]
        if not meeting.knows_identifiers:
            notes.append(unknown_identifiers(data_path, self.metadata))
        return [note for note in notes if note]

    @property
    def max_steps(self) -> int:
        """ACT steps at most in training."""
        return self.model.model.config.halt_max_steps

    @property
    def traits(self) -> Traits:
        learned = self._learned_steps or self.max_steps
        return Traits(self.metadata, self.origin, self.max_steps, learned, self.step)

    def solve(
        self,
        puzzles: Any,
        *,
        halting: Halting = "learned",
        steps: int | None = None,
        votes: int = 1,
        restarts: int = 0,
        noise: float = 0.0,
        rollouts: int = 1,
        guesses: int = 0,
        select: Select | None = None,
        trace: bool = False,
        puzzle_identifiers: np.ndarray | None = None,
        batch_size: int = 64,
        seed: int = 0,
        offset: int = 0,
        progress: Progress | None = None,
    ) -> list[Solution]:
        """Solve puzzles, at most `batch_size` side by side; the order is kept.

        Args:
            puzzles: N of them, as `Task.read_all` takes them.
            halting: `learned` lets the model halt each puzzle; `max_steps` takes all steps.
            steps: ACT steps at most; None: as the checkpoint's configuration says.
            votes: versions to solve of each puzzle, the puzzle itself and symmetric ones.
            restarts: after these, attempts from other start states.
            noise: then attempts with noise of this standard deviation on the states before each
                ACT step.
            rollouts: so many of the puzzle as it is; the first, without noise, has been made.
            guesses: then so many attempts at most at the puzzle with guesses written into it.
            select: how the answer is chosen of those of all attempts, see `Plan.choose`. With
                `valid`, where the task's rules are known the default, a puzzle whose answer is
                valid needs no further attempt; else (`q_halt`, the default where they are not, and
                `majority`) all are made.
            trace: keep what was answered after every step.
            puzzle_identifiers: [N] integers; None: all are unseen.
            seed: of the symmetries, start states and noise.
            offset: position of the first puzzle, where an input is solved in parts; the noise is a
                function of a puzzle's position.
            progress: counts the puzzles that have an answer.

        Raises:
            UserError: a puzzle does not fit the model, or a number is out of range.
        """
        for name, value in (("steps", steps), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        plan = plan_attempts(self.task, votes, restarts, noise, rollouts, select, seed, guesses)
        tokens = self.task.read_all(puzzles)
        if puzzle_identifiers is None:
            puzzle_identifiers = np.full(len(tokens), self.unseen_identifier)
        identifiers = np.asarray(puzzle_identifiers, np.int32)
        if len(identifiers) != len(tokens):
            raise UserError(f"{len(tokens)} puzzles, but {len(identifiers)} puzzle identifiers")
        limit = steps or self.traits.steps_at_most(halting)
        how = RolloutOptions(halting, self.halt_probability, limit, batch_size)

        def run(
            rows: np.ndarray, asked: np.ndarray, wave: Wave, before: int
        ) -> list[tuple[int, Solution]]:
            named = {"inputs": asked, "puzzle_identifiers": identifiers[rows]}
            given = {name: torch.from_numpy(values) for name, values in named.items()}
            shown = None if before else progress
            positions = torch.from_numpy(rows + offset)
            return self._run(given, positions, plan, wave, before, how, trace, shown)

        found, costs = search(plan, self.task, tokens, run, progress is not None)
        return [
            replace(
                solution,
                inputs=puzzle,
                guessed=guessed_cells(puzzle, solution.inputs),
                total_steps=cost,
            )
            for solution, puzzle, cost in zip(found, tokens, costs, strict=True)
        ]

    @torch.inference_mode()
    def _run(
        self,
        puzzles: dict[str, Tensor],
        positions: Tensor,
        plan: Plan,
        wave: Wave,
        before: int,
        how: RolloutOptions,
        trace: bool,
        progress: Progress | None,
    ) -> list[tuple[int, Solution]]:
        """The attempts of a wave; of each that has ended, which puzzle it was at.

        Args:
            before: attempts before this wave.
        """
        if not len(positions):
            return []
        index, halted, records = [], [], []
        for step in run_wave(
            self.model, self.task, puzzles, positions, plan, wave, how, self.device
        ):
            if progress is not None:
                progress.update(int(step.halting.sum()))
            shown = step.running if trace else step.halting
            if shown.any():
                taken = step.select(shown)
                index.append(taken.index)
                halted.append(taken.index[taken.halting])
                records.append(_record(taken.outputs, taken.steps, trace or plan.guesses > 0))
        number_of, order = torch.cat(index).sort(stable=True)
        has_ended = torch.isin(number_of, torch.cat(halted))
        number_of, order = number_of[has_ended], order[has_ended]
        columns = {
            name: torch.cat([record[name] for record in records]).cpu()[order].numpy()
            for name in records[0]
        }
        kind = wave[0]
        given = puzzles["inputs"].numpy()
        asked_at = (number_of // len(wave)).numpy()
        columns["tokens"] = self.task.tidied(kind.undo(columns["tokens"]), given[asked_at])
        columns["confidence"] = kind.undo_cells(columns["confidence"])
        if "probabilities" in columns:
            columns["probabilities"] = kind.undo_probabilities(columns["probabilities"])
        numbers, counts = torch.unique_consecutive(number_of, return_counts=True)
        puzzle_of, ends = (numbers // len(wave)).numpy(), counts.cumsum(0).numpy()
        asked = given[puzzle_of]
        traces: list[Trace | None] = [None] * len(numbers)
        if trace:
            names = ("tokens", "probabilities", "q_halt", "q_continue")
            parts = (np.split(columns[name], ends[:-1]) for name in names)
            traces = [Trace(*of_puzzle) for of_puzzle in zip(*parts, strict=True)]
        last = {name: values[ends - 1] for name, values in columns.items()}
        valid = self.task.are_valid(last["tokens"], asked)
        solutions = (
            Solution(*fields)
            for fields in zip(
                asked,
                last["tokens"],
                map(self.task.grid.text, last["tokens"]),
                valid,
                last["steps"].tolist(),
                _sigmoid(last["q_halt"]).tolist(),
                last["confidence"],
                last["steps"].tolist(),
                traces,
                (numbers % len(wave) + before + 1).tolist(),
                last.get("probabilities", [None] * len(numbers)),
                strict=True,
            )
        )
        return list(zip(puzzle_of.tolist(), solutions, strict=True))


def pretrained(name: str = FIRST_SHIPPED, device: DeviceName = "auto") -> Solver:
    """A trained model that is part of the package; `hrm models` lists them.

    Raises:
        UserError: there is none of that name.
    """
    known = shipped_models()
    if name not in known:
        raise UserError(f"{name!r}: no such model is part of the package; {', '.join(known)} are")
    return Solver.from_checkpoint(known[name], device)


def _record(outputs: dict[str, Tensor], steps: Tensor, whole: bool) -> dict[str, Tensor]:
    # Of a model that has diverged they are NaN: it is sure of nothing then.
    probabilities = outputs["logits"].float().softmax(-1).nan_to_num()
    confidence, tokens = probabilities.max(-1)
    record = {
        "tokens": tokens.to(torch.int32),
        "confidence": confidence,
        "q_halt": outputs["q_halt_logits"],
        "q_continue": outputs["q_continue_logits"],
        "steps": steps,
    }
    return record | ({"probabilities": probabilities} if whole else {})


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).sigmoid().nan_to_num().numpy()
