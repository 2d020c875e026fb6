"""ARC tasks for tests, and the files that hold them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...conftest import ROOT

DATA = ROOT.parent / "shared/data"
TINY = DATA / "arc-tiny-public"

Json = dict[str, Any]


def task(tests: int = 1) -> Json:
    """Rows of one colour become columns; test inputs are never alike."""
    grids = [[[0] * n, [n] * n] for n in range(1, 4 + tests)]
    pairs = [{"input": grid, "output": np.transpose(grid).tolist()} for grid in grids]
    return {"train": pairs[:3], "test": pairs[3:]}


def other_task() -> Json:
    """Every cell becomes two; not a version of `task`."""
    grids = [[[5, 0]], [[0, 7], [7, 0]], [[1, 2, 3]], [[4]]]
    pairs = [{"input": g, "output": [[c for c in row for _ in (0, 1)] for row in g]} for g in grids]
    return {"test": pairs[3:], "train": pairs[:3]}


def write_combined(prefix: Path, **subsets: dict[str, Json]) -> Path:
    """Challenges and solutions of subsets; returns the prefix."""
    for name, tasks in subsets.items():
        challenges = {
            key: {
                part: [{"input": p["input"]} if part == "test" else p for p in pairs]
                for part, pairs in value.items()
            }
            for key, value in tasks.items()
        }
        solutions = {key: [p["output"] for p in value["test"]] for key, value in tasks.items()}
        for kind, values in (("challenges", challenges), ("solutions", solutions)):
            path = prefix.with_name(f"{prefix.name}_{name}_{kind}.json")
            path.write_text(json.dumps(values))
    return prefix


def write_folders(root: Path, **subsets: dict[str, Json]) -> Path:
    """A folder a subset, a file a task; returns the folder of all."""
    for name, tasks in subsets.items():
        (root / name).mkdir(parents=True)
        for key, value in tasks.items():
            (root / name / f"{key}.json").write_text(json.dumps(value))
    return root
