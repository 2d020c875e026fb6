"""The published ARC data sets: identifiers, and how many versions each task has."""

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hrm.data.writer import write_identifiers
from hrm.tasks.arc.builder import draw_groups
from hrm.tasks.arc.json_files import read_combined
from hrm.tasks.arc.puzzles import PARTS

from .tasks import DATA

FACTS = DATA / "full_build_facts.json"
SIDE = 30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FACTS.exists(), reason="no data of the published builder here"),
]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arc")
    for name in ("arc-agi-1", "arc-agi-2", "concept"):
        with tarfile.open(DATA / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    for path in folder.glob("*/arc-agi_*.json"):
        path.rename(folder / path.name)
    return folder / "arc-agi"


@pytest.mark.parametrize("name", ["arc1", "arc2"])
def test_versions_and_identifiers_are_the_published(
    prefix: Path, name: str, tmp_path: Path
) -> None:
    facts = json.loads(FACTS.read_text())[name]
    subsets = read_combined(prefix, facts["subsets"], SIDE)
    rng = np.random.RandomState(facts["seed"])
    groups, names = draw_groups(subsets, {facts["test_set"]}, facts["num_aug"], 1, rng)
    of_task = {p.name: s.name for s in subsets for p in s.puzzles}
    found = [[of_task[g.puzzle.name], g.puzzle.name, len(g.versions)] for g in groups]
    assert found == facts["groups"]
    for split in PARTS:
        own = [(len(g.pairs_of(split)), len(g.versions)) for g in groups if g.pairs_of(split)]
        assert len(own) == facts[split]["total_groups"]
        assert sum(versions for _, versions in own) == facts[split]["total_puzzles"]
        assert sum(pairs * versions for pairs, versions in own) == facts[split]["examples"]
    write_identifiers(tmp_path, names, ", ")
    written = (tmp_path / "identifiers.json").read_bytes()
    assert len(written) == facts["identifiers_json_bytes"]
    assert hashlib.sha256(written).hexdigest() == facts["identifiers_json_sha256"]
