"""Small ARC data sets, predictions for them, and what a plain evaluator makes of these."""

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrm.data.writer import SplitWriter, write_identifiers
from hrm.tasks.arc.versions import Version

SIDE = 30
Grid = list[list[int]]
Key = tuple[tuple[int, ...], bytes]


def tokens_of(grid: np.ndarray) -> np.ndarray:
    """A grid of at most 30 x 30 with its end marks, [900] uint8."""
    tokens = np.zeros((SIDE, SIDE), np.uint8)
    rows, columns = grid.shape
    tokens[rows : rows + 1, :columns] = 1
    tokens[:rows, columns : columns + 1] = 1
    tokens[:rows, :columns] = grid + 2
    return tokens.ravel()


def brute_force_crop(tokens: np.ndarray) -> np.ndarray:
    """Looks at every rectangle, the flat ones first; [900] integers."""
    cells = tokens.reshape(SIDE, SIDE)
    best = np.zeros((0, 0), np.uint8)
    for rows in range(1, SIDE + 1):
        for columns in range(1, SIDE + 1):
            part = cells[:rows, :columns]
            if part.min() < 2 or part.max() > 11:
                break  # nor does a wider one hold colours alone
            if part.size > best.size:
                best = (part - 2).astype(np.uint8)
    return best


def puzzles_of(rng: np.random.Generator, pairs: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    """Tasks with so many test pairs, as in `test_puzzles.json`; two demonstrations each."""

    def grid() -> Grid:
        return rng.integers(10, size=rng.integers(1, 5, size=2)).tolist()

    return {
        f"task{n:04}": {
            "train": [{"input": grid(), "output": grid()} for _ in range(2)],
            "test": [{"input": [[k, n, k]], "output": grid()} for k in range(count)],
        }
        for n, count in enumerate(pairs)
    }


def versions_of(rng: np.random.Generator, count: int) -> list[Version]:
    """So many at random, the identity first."""
    drawn = [
        Version(int(rng.integers(8)), (0, *(1 + rng.permutation(9)).tolist())) for _ in range(count)
    ]
    return [Version(), *drawn][:count]


@dataclass
class Made:
    """An ARC data set in a folder."""

    path: Path
    puzzles: dict[str, Any]
    names: list[str]  # by identifier


def write_files(folder: Path, puzzles: dict[str, Any], versions: list[Version]) -> Made:
    """`test_puzzles.json` and `identifiers.json` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["<blank>"]
    for task in puzzles:
        names += [task, *(version.name(task) for version in versions[1:])]
    (folder / "test_puzzles.json").write_text(json.dumps(puzzles))
    write_identifiers(folder, names)
    return Made(folder, puzzles, names)


def write_data(folder: Path, puzzles: dict[str, Any], versions: list[Version], **more: Any) -> Made:
    """A whole data set: demonstrations in split train, test pairs in split test."""
    made = write_files(folder, puzzles, versions)
    for split, kind in (("train", "train"), ("test", "test")):
        with SplitWriter(folder / split, "all", SIDE * SIDE) as writer:
            identifier = 0
            for puzzle in puzzles.values():
                for version in versions:
                    identifier += 1
                    inputs, labels = (
                        np.stack(
                            [
                                tokens_of(version.apply(np.array(pair[side], np.uint8)))
                                for pair in puzzle[kind]
                            ]
                        )
                        for side in ("input", "output")
                    )
                    writer.add_puzzle(identifier, inputs, labels)
                writer.end_group()
            kept = dict(vocab_size=12, num_puzzle_identifiers=len(made.names), pad_id=0)
            kept |= dict(ignore_label_id=0, blank_identifier_id=0)
            writer.finish(**(kept | more))
    return made


Batch = dict[str, np.ndarray]


def predictions_of(made: Made, rng: np.random.Generator, answers: int = 3) -> Batch:
    """For every version of every test pair, one of few answers, the solution among them.

    Some have no end marks, some nothing at all. The halting values are of few kinds.
    """
    rows: list[tuple[np.ndarray, int, np.ndarray]] = []
    for identifier, name in enumerate(made.names[1:], 1):
        task, version = Version.parse(name)
        for pair in made.puzzles[task]["test"]:
            right = np.array(pair.get("output", [[5]]), np.uint8)
            choice = rng.integers(answers)
            answer = right if choice == 0 else np.full((choice, 2), choice, np.uint8)
            tokens = tokens_of(version.apply(answer)).astype(np.int64)
            fate = rng.integers(8)
            if fate == 0:
                tokens[tokens == 1] = 0
            if fate == 1:
                tokens[0] = 1
            given = version.apply(np.array(pair["input"], np.uint8))
            rows.append((tokens_of(given).astype(np.int32), identifier, tokens))
    inputs, identifiers, preds = zip(*rows, strict=True)
    q_halt = rng.choice(np.float32([-3, -0.7, 0.1, 0.3, 40]), len(rows))
    return {
        "inputs": np.stack(inputs),
        "puzzle_identifiers": np.array(identifiers, np.int32),
        "preds": np.stack(preds),
        "q_halt_logits": q_halt,
    }


def padding(rows: int) -> Batch:
    """Rows that are no predictions, though they look sure."""
    return {
        "inputs": np.full((rows, SIDE * SIDE), 3, np.int32),
        "puzzle_identifiers": np.zeros(rows, np.int32),
        "preds": np.full((rows, SIDE * SIDE), 3, np.int64),
        "q_halt_logits": np.full(rows, 9, np.float32),
    }


def take(batch: Batch, rows: Any) -> Batch:
    return {name: values[rows] for name, values in batch.items()}


def joined(*batches: Batch) -> Batch:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def key_of(grid: Any) -> Key:
    cells = np.array(grid, np.uint8)
    return cells.shape, cells.tobytes()


def ranking(made: Made, batches: list[Batch]) -> dict[tuple[str, Key], list[tuple[Any, Grid]]]:
    """(Task, input) -> answers as (count, mean of sureness as a fraction), the first one first."""
    found: dict[tuple[str, Key], dict[Key, tuple[Grid, list[Fraction]]]] = {}
    for batch in batches:
        sureness = torch.from_numpy(batch["q_halt_logits"]).double().sigmoid().tolist()
        for row, identifier in enumerate(batch["puzzle_identifiers"].tolist()):
            if identifier == 0:
                continue
            task, version = Version.parse(made.names[identifier])
            given, answer = (
                version.undo(brute_force_crop(batch[name][row])) for name in ("inputs", "preds")
            )
            votes = found.setdefault((task, key_of(given)), {})
            kept = votes.setdefault(key_of(answer), (answer.tolist(), []))
            kept[1].append(Fraction(sureness[row]))
    return {
        asked: sorted(
            (((len(q), sum(q) / len(q)), grid) for grid, q in votes.values()),
            key=lambda item: item[0],
            reverse=True,
        )
        for asked, votes in found.items()
    }


def plain_result(
    made: Made, batches: list[Batch], tries: int = 2
) -> tuple[dict[str, float], dict[str, Any]]:
    """`ARC/pass@1`, `ARC/pass@2` and the submission, for data whose solutions are all known."""
    ranked = ranking(made, batches)
    metrics, submission = {}, {}
    for k in (1, 2):
        scores = []
        for task, puzzle in made.puzzles.items():
            solved = 0
            for pair in puzzle["test"]:
                first = ranked.get((task, key_of(pair["input"])), [])[:k]
                solved += pair["output"] in [grid for _, grid in first]
            scores.append(solved / len(puzzle["test"]))
        metrics[f"ARC/pass@{k}"] = sum(scores) / len(scores)
    for task, puzzle in made.puzzles.items():
        submission[task] = []
        for pair in puzzle["test"]:
            grids = [grid or [[0]] for _, grid in ranked.get((task, key_of(pair["input"])), [])]
            grids = (grids or [[[0]]])[:tries]
            grids += grids[:1] * (tries - len(grids))
            submission[task].append({f"attempt_{n}": grid for n, grid in enumerate(grids, 1)})
    return metrics, submission
