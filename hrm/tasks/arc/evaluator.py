"""ARC's evaluator: all versions of a test pair vote on its answer; two tries count.

A prediction is cropped, and brought back from the version that it was made for. The test pair is
found by the input, brought back likewise. Which answer comes first, `voting.py` says; first
given is what was stored first: on rank 0 before rank 1, and on a rank in the order of `add`.

Votes are kept, not logits: which answer, and sigmoid(q_halt). A grid is kept once, and only those
that go into the submission leave their rank.
"""

import hashlib
import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isqrt
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hrm.errors import UserError
from hrm.progress import say
from hrm.ranks import ALONE, Ranks
from hrm.tasks.arc.crop import content, crop, grid_of
from hrm.tasks.arc.encoding import SIDE
from hrm.tasks.arc.solutions import Names, read_test_puzzles
from hrm.tasks.arc.voting import EMPTY, TRIES, Votes, ranked

Submission = dict[str, list[dict[str, list[list[int]]]]]
NEEDED = ("inputs", "puzzle_identifiers", "preds", "q_halt_logits")
DIGEST_NUMBERS = 4  # a SHA-256, as int64


class Evaluator:
    """Lets the predictions for all versions of the test pairs vote.

    Args:
        data_path: folder of the data set, with `test_puzzles.json` and `identifiers.json`.
        submission_k: answers per test pair in the submission.
        pass_ks: numbers of tries to score.
        aggregated_voting: keep the votes after `result`, so that each evaluation votes together
            with all earlier ones.

    Raises:
        UserError: a file is missing or damaged.
    """

    name: ClassVar[str] = "ARC"

    def __init__(
        self,
        data_path: str | Path,
        submission_k: int = TRIES,
        pass_ks: Sequence[int] = (1, 2, 5, 10, 100, 1000),
        aggregated_voting: bool = False,
    ):
        self._puzzles = read_test_puzzles(Path(data_path))
        self._versions = Names(Path(data_path), {t: n for n, t in enumerate(self._puzzles)})
        tasks = enumerate(self._puzzles.values())
        asked = [(task, pair.question) for task, pairs in tasks for pair in pairs]
        self._questions = {key: number for number, key in enumerate(dict.fromkeys(asked))}
        self._submission_k, self._pass_ks = submission_k, tuple(pass_ks)
        self._aggregated_voting = aggregated_voting
        self._forget()

    def refuse_fewer_names(self, identifiers: int) -> None:
        """Raise `UserError` unless so many identifiers have a name."""
        if identifiers > len(self._versions):
            raise UserError(
                f"{self._versions.path}: names {len(self._versions)} identifiers of {identifiers}; "
                "name the data set that the puzzles are of, or build it again"
            )

    def _forget(self) -> None:
        # An answer is a grid for a question; it goes by its place in the order of first votes.
        self._answers: dict[tuple[int, bytes], int] = {}
        self._voted = array("i")  # the answer of each vote
        self._sureness = array("d")  # sigmoid(q_halt) of each vote

    def add(self, batch: Mapping[str, Any]) -> None:
        """Take in predictions.

        Padding, whose identifier is that of `<blank>` or negative, is dropped, and so is what is
        for no test pair: of another task, or with an input that is none of the task's.

        Args:
            batch: tensors or arrays: `inputs` and `preds`, tokens [B, S * S] of square canvases,
                `puzzle_identifiers` [B], all integers, and `q_halt_logits` [B], any real dtype;
                NaN counts as not sure at all.

        Raises:
            UserError: a name is missing, a shape is wrong, or an identifier has no name.
        """
        tensors = self._checked(batch)
        identifiers = tensors["puzzle_identifiers"]
        tasks = np.where(identifiers >= 0, self._versions.tasks[np.maximum(identifiers, 0)], -1)
        rows = np.flatnonzero(tasks >= 0)
        sureness = torch.as_tensor(tensors["q_halt_logits"][rows]).sigmoid().nan_to_num().tolist()
        grids = crop(tensors["inputs"][rows]), crop(tensors["preds"][rows])
        places = tasks[rows].tolist(), identifiers[rows].tolist()
        for task, identifier, given, answer, sure in zip(*places, *grids, sureness, strict=True):
            version = self._versions[identifier]
            question = self._questions.get((task, content(version.undo(given))))
            if question is not None:
                vote = question, content(version.undo(answer))
                self._voted.append(self._answers.setdefault(vote, len(self._answers)))
                self._sureness.append(sure)

    def _checked(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of a batch; float64 for q_halt."""
        if missing := [name for name in NEEDED if name not in batch]:
            raise UserError(f"ARC predictions: {missing[0]} is missing; give {', '.join(NEEDED)}")
        tensors = {name: torch.as_tensor(batch[name]).detach().cpu() for name in NEEDED}
        tensors["q_halt_logits"] = tensors["q_halt_logits"].double()
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        identifiers, tokens = arrays["puzzle_identifiers"], arrays["inputs"].shape[-1]
        if identifiers.ndim != 1 or tokens > SIDE**2 or isqrt(tokens) ** 2 != tokens:
            tokens = SIDE**2
        for name, values in arrays.items():
            shape = (len(identifiers), tokens) if name in ("inputs", "preds") else identifiers.shape
            if identifiers.ndim != 1 or values.shape != shape:
                raise UserError(
                    f"ARC predictions: {name} is of shape {list(values.shape)}, expected B rows "
                    f"({tokens} tokens each in inputs and preds)"
                )
        self.refuse_fewer_names(1 + int(identifiers.max(initial=-1)))
        return arrays

    def update(self, step: Any) -> None:
        """Take in an `hrm.rollout.RolloutStep`, whose puzzles have all halted in it."""
        inputs, identifiers = step.data["inputs"], step.data["puzzle_identifiers"]
        answers, q_halt = step.outputs["logits"].argmax(-1), step.outputs["q_halt_logits"]
        self.add(dict(zip(NEEDED, (inputs, identifiers, answers, q_halt), strict=True)))

    def reduce(self, ranks: Ranks) -> tuple[dict[str, float], dict[str, str]]:
        """The metrics, on every rank; on rank 0 also the text of `ARC/submission.json`."""
        metrics, submission = self.result(ranks)
        files = {f"{self.name}/submission.json": json.dumps(submission)}
        return metrics, files if ranks.is_first else {}

    def result(self, ranks: Ranks = ALONE) -> tuple[dict[str, float], Submission]:
        """Count the votes of all ranks, and forget them unless `aggregated_voting`.

        Every rank calls it. Rank 0 says how many test pairs have no prediction; these count as
        failed.

        Returns:
            metrics: on every rank, of the pairs whose solution is known; none where none is.
                For each K of `pass_ks`: `ARC/pass@K`, the share of a task's test pairs whose
                solution is among the first K answers, as a mean over tasks;
                `ARC/tasks_solved@K`, the share of tasks of which all pairs are solved so;
                `ARC/pairs_solved@K`, the share of all pairs.
            submission: on rank 0, else {}: task -> for each of its test pairs `attempt_1` to
                `attempt_<submission_k>`. Where there are fewer answers, the first is repeated; an
                empty one, and one that is missing, is [[0]].
        """
        shares = ranks.collect_rows(self._as_tensors())
        metrics, winners = ranks.agree(lambda: self._count(shares))
        submission = self._submission(ranks, winners)
        if not self._aggregated_voting:
            self._forget()
        return metrics, submission

    def _as_tensors(self) -> dict[str, Tensor]:
        """Answers, [A, 5] int64: question and SHA-256 of the grid; answer and sureness of votes."""
        digests = b"".join(_digest(grid) for _, grid in self._answers)
        answers = np.empty((len(self._answers), 1 + DIGEST_NUMBERS), np.int64)
        answers[:, 0] = [question for question, _ in self._answers]
        answers[:, 1:] = np.frombuffer(digests, np.int64).reshape(-1, DIGEST_NUMBERS)
        return {
            "answers": torch.from_numpy(answers),
            "voted": torch.tensor(self._voted, dtype=torch.int32),
            "sureness": torch.tensor(self._sureness, dtype=torch.float64),
        }

    def _count(
        self, shares: dict[str, list[Tensor]]
    ) -> tuple[dict[str, float], list[list["_Place"]]]:
        """The metrics, and where the first answers to each question are."""
        found: list[dict[bytes, _Answer]] = [{} for _ in self._questions]
        for rank, answers in enumerate(shares["answers"]):
            known = []
            for place, (question, *digest) in enumerate(answers.tolist()):
                key = np.array(digest, np.int64).tobytes()
                known.append(found[question].setdefault(key, _Answer((rank, place))))
            votes = shares["voted"][rank].tolist(), shares["sureness"][rank].tolist()
            for number, sure in zip(*votes, strict=True):
                known[number].votes.append(sure)
        digests = [ranked({digest: one.votes for digest, one in of.items()}) for of in found]
        places = [[of[d].place for d in own] for of, own in zip(found, digests, strict=True)]
        return self._metrics(digests), [of[: self._submission_k] for of in places]

    def _metrics(self, digests: list[list[bytes]]) -> dict[str, float]:
        """Scores by the answers to each question, the first one first."""
        tries: list[list[float]] = []  # how many it takes, of each task and pair with a solution
        pairs_without = pairs_in_all = 0
        for task, pairs in enumerate(self._puzzles.values()):
            of_task = []
            for pair in pairs:
                answers = digests[self._questions[task, pair.question]]
                pairs_without += not answers
                pairs_in_all += 1
                if pair.solution is not None:
                    right = _digest(pair.solution)
                    of_task.append(answers.index(right) + 1 if right in answers else inf)
            tries += [of_task] if of_task else []
        if pairs_without:
            line = f"{pairs_without} of {pairs_in_all} test pairs have no prediction"
            say(f"note: {self.name}: {line}, and count as failed", sys.stderr)
        if not tries:
            return {}
        passed = {k: [[n <= k for n in of_task] for of_task in tries] for k in self._pass_ks}
        measures = {
            "pass": lambda by_task: _mean([_mean(of_task) for of_task in by_task]),
            "tasks_solved": lambda by_task: _mean([all(of_task) for of_task in by_task]),
            "pairs_solved": lambda by_task: _mean([one for of_task in by_task for one in of_task]),
        }
        return {
            f"{self.name}/{measure}@{k}": score(by_task)
            for measure, score in measures.items()
            for k, by_task in passed.items()
        }

    def _submission(self, ranks: Ranks, winners: list[list["_Place"]]) -> Submission:
        """The answers at these places, for each pair, on rank 0; {} elsewhere."""
        own = [place for of in winners for rank, place in of if rank == ranks.rank]
        grids = [grid for _, grid in self._answers]
        packed = np.zeros((len(own), 2 + SIDE**2), np.uint8)
        for row, place in zip(packed, own, strict=True):
            row[: len(grids[place])] = np.frombuffer(grids[place], np.uint8)
        shares = ranks.collect_rows({"grids": torch.from_numpy(packed)}).get("grids", [])
        if not ranks.is_first:
            return {}
        rows = [iter(share.numpy()) for share in shares]
        attempts = []
        for of in winners:
            answers = [grid_of(next(rows[rank]).tobytes()) or EMPTY for rank, _ in of]
            answers = answers or [EMPTY]
            answers += answers[:1] * (self._submission_k - len(answers))
            attempts.append({f"attempt_{n}": grid for n, grid in enumerate(answers, 1)})
        return {
            name: [attempts[self._questions[task, pair.question]] for pair in pairs]
            for task, (name, pairs) in enumerate(self._puzzles.items())
        }


_Place = tuple[int, int]  # rank, and the answer's number there


@dataclass(slots=True)
class _Answer:
    """An answer to a question, with the votes of all ranks."""

    place: _Place  # where it was stored first
    votes: Votes = field(default_factory=Votes)


def _digest(grid: bytes) -> bytes:
    return hashlib.sha256(grid).digest()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
