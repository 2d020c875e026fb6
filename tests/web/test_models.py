"""Which models are loaded, and kinds of puzzles beyond the Sudoku of the other tests."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from hrm.data.format import DatasetMetadata, PuzzleArrays, array_path, write_metadata
from hrm.inference import Solver
from hrm.inference.batcher import Batcher
from hrm.web.catalogue import Catalogue
from hrm.web.guard import Refused
from hrm.web.hosting import MOST_MODELS, Models

from ..conftest import saved_run
from ..inference.test_solver import make_solver
from .serving import client_of, in_this_process, serve

PUZZLE = "1" + "." * 15
MAZE = "S ##" + "#  #" + "## #" + "## G"
PATH = "So##" + "#oo#" + "##o#" + "##oG"


def test_damaged_weights_are_told_and_others_still_served(runs, data_4x4, tmp_path):
    for name in ("good", "bad"):
        saved_run(data_4x4, tmp_path / name)
    weights = tmp_path / "bad/step_7/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with serve(tmp_path, data_4x4.parent) as url, client_of(url) as client:
        bad, good = (
            client.post("/api/solve", json={"checkpoint": name, "puzzles": [PUZZLE]})
            for name in ("bad", "good")
        )
        assert bad.status_code == 422 and str(tmp_path) not in bad.text
        assert bad.json() == {"error": "checkpoint 'bad' cannot be loaded; choose another one"}
        assert good.status_code == 200
        assert client.get("/health").json()["models"] == ["good"]


def test_a_wrong_puzzle_loads_no_model(runs, data_4x4):
    def load(path: Path) -> Solver:
        pytest.fail("loaded")

    with serve(runs, data_4x4.parent, load) as url, client_of(url) as client:
        for path, puzzle in (("think", {"puzzle": "1"}), ("solve", {"puzzles": ["1"]})):
            asked = {"checkpoint": "tests/patient", **puzzle}
            assert client.post(f"/api/{path}", json=asked).status_code == 422


def test_a_model_is_loaded_once_whoever_asks_at_once(runs, data_4x4):
    loaded: list[Path] = []

    def load(path: Path) -> Solver:
        loaded.append(path)
        return make_solver()

    async def main() -> None:
        models, known = (
            Models(in_this_process(load)),
            Catalogue(runs, data_4x4.parent).checkpoints(),
        )
        asked = list(known.items()) * 20
        batchers = await asyncio.gather(*(models.get(*one) for one in asked))
        assert len(set(map(id, batchers))) == len(loaded) == len(known)
        await models.close()
        assert models.names == [] and models.running == models.waiting == 0

    asyncio.run(main())


def test_loaded_models_are_given_while_another_one_loads(runs, data_4x4):
    async def main() -> None:
        known = Catalogue(runs, data_4x4.parent).checkpoints()
        (first, facts), (second, others) = known.items()
        loading = asyncio.Event()
        loop = asyncio.get_running_loop()

        def load(path: Path) -> Solver:
            if path == others.path:
                asyncio.run_coroutine_threadsafe(loading.wait(), loop).result(60)
            return make_solver()

        models = Models(in_this_process(load))
        held = await models.get(first, facts)
        slow = asyncio.create_task(models.get(second, others))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(models.get(first, facts), 60) is held
        loading.set()
        await slow
        await models.close()

    asyncio.run(main())


def test_who_leaves_while_a_model_loads_leaves_none_behind(runs, data_4x4):
    loaded, begin = [], threading.Event()

    def load(path: Path) -> Batcher:
        assert begin.wait(60)
        loaded.append(Batcher(make_solver()))
        return loaded[-1]

    async def main() -> None:
        [name, facts] = next(iter(Catalogue(runs, data_4x4.parent).checkpoints().items()))
        models = Models(load)
        asking = asyncio.create_task(models.get(name, facts))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        begin.set()
        while not loaded or not loaded[0].closed:
            await asyncio.sleep(0.01)
        assert models.names == []

    asyncio.run(asyncio.wait_for(main(), 60))


def test_an_error_while_loading_leaves_room(runs, data_4x4):
    async def main() -> None:
        [name, facts] = next(iter(Catalogue(runs, data_4x4.parent).checkpoints().items()))
        errors = [MemoryError(), None]

        def load(path: Path) -> Solver:
            if error := errors.pop(0):
                raise error
            return make_solver()

        models = Models(in_this_process(load))
        with pytest.raises(MemoryError):
            await models.get(name, facts)
        assert models.names == []
        await models.get(name, facts)
        for number in range(MOST_MODELS + 2):
            errors.append(None)
            await models.get(f"other {number}", facts)
        assert len(models.names) == MOST_MODELS and name not in models.names
        await models.close()

    asyncio.run(main())


def write_data(folder: Path, symbols: str, puzzle: str, answer: str, **changes: object) -> None:
    """A data set of one puzzle, train and test alike."""
    metadata = DatasetMetadata(
        vocab_size=len(symbols),
        seq_len=len(puzzle),
        num_puzzle_identifiers=1,
        pad_id=0,
        ignore_label_id=None,
        blank_identifier_id=-1,
        total_groups=1,
        mean_puzzle_examples=1.0,
        sets=("all",),
        symbols=symbols,
        **changes,
    )
    rows = [np.uint8([[symbols.index(c) for c in text]]) for text in (puzzle, answer)]
    ends = np.int32([0, 1])
    arrays = PuzzleArrays(*rows, np.int32([0]), ends, ends)
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        write_metadata(folder / split, metadata)
        for name in PuzzleArrays.__dataclass_fields__:
            np.save(array_path(folder / split, "all", name), getattr(arrays, name))


@pytest.fixture
def other_kinds(tmp_path) -> Iterator[httpx.Client]:
    write_data(tmp_path / "data/maze", "_# SGo", MAZE, PATH)
    write_data(tmp_path / "data/words", "abé\u6570", "aé\u6570bab", "bababa", grid_shape=(2, 3))
    for name in ("maze", "words"):
        saved_run(tmp_path / "data" / name, tmp_path / "checkpoints" / name)
    with serve(tmp_path / "checkpoints", tmp_path / "data") as url:
        with client_of(url) as client:
            yield client


def test_mazes(other_kinds):
    client = other_kinds
    listed = client.get("/api/checkpoints").json()["checkpoints"][0]
    assert (listed["id"], listed["task"], listed["data_path_id"]) == ("maze", "maze", "maze")
    assert (listed["symbols"], listed["box_shape"]) == ("_# SGo", None)
    assert listed["rules"] == {
        "blank": " ",
        "empty": "_ ",
        "aliases": {},
        "units": [],
        "wall": "#",
        "colors": {},
        "ends": "",
        "without_name": None,
        "votes_by_name": False,
        "most_versions": 8,
        "judged": True,
    }
    example = client.get("/api/example", params={"data": "maze", "split": "test"}).json()
    assert (example["puzzle"], example["answer"]) == (MAZE, PATH)
    asked = {"checkpoint": "maze", "puzzles": [MAZE], "steps": 1}
    [solution] = client.post("/api/solve", json=asked).json()["solutions"]
    assert solution["valid"] is False and len(solution["answer"]) == 16
    too_many = client.post("/api/solve", json=asked | {"votes": 9})
    assert too_many.status_code == 422
    assert too_many.json() == {"error": "votes=9: a maze of 4x4 cells has 8 symmetric versions"}
    [voted] = client.post("/api/solve", json=asked | {"votes": 8}).json()["solutions"]
    assert (voted["attempts"], voted["total_steps"]) == (8, 8)
    wrong = client.post("/api/solve", json=asked | {"puzzles": [MAZE.replace(" ", ".")]})
    assert wrong.status_code == 422 and wrong.json()["column"] == 1


def test_puzzles_without_known_rules(other_kinds):
    client = other_kinds
    listed = client.get("/api/datasets").json()["datasets"][1]
    assert (listed["id"], listed["task"], listed["grid_shape"]) == ("words", "grids", [2, 3])
    rules = listed["rules"]
    assert (rules["blank"], rules["units"], rules["most_versions"]) == (None, [], 1)
    assert rules["judged"] is False
    example = client.get("/api/example", params={"data": "words", "split": "test"}).json()
    asked = {"checkpoint": "words", "puzzle": example["puzzle"], "steps": 1}
    assert example["puzzle"] == "aé\u6570bab"
    answer = client.post("/api/think", json=asked).json()
    assert answer["valid"] is None and answer["last"] and answer["best"] == 1
    refused = client.post("/api/think", json=asked | {"votes": 2})
    assert refused.status_code == 422 and "use votes=1" in refused.json()["error"]
    lines = client.post("/api/think", json=asked | {"restarts": 2}).text.splitlines()
    assert len(lines) == 3  # no answer is known to be valid


def test_a_checkpoint_is_checked_on_its_own_kind_of_puzzles(other_kinds):
    asked = {"checkpoint": "words", "data": "maze", "split": "test", "count": 1}
    refused = other_kinds.post("/api/check", json=asked)
    assert refused.status_code == 422 and "model was trained with" in refused.json()["error"]


def test_all_models_busy_is_a_refusal(runs, data_4x4, monkeypatch):
    async def main() -> None:
        facts = next(iter(Catalogue(runs, data_4x4.parent).checkpoints().values()))
        models = Models(in_this_process(lambda path: make_solver()))
        for number in range(MOST_MODELS):
            await models.get(str(number), facts)
        monkeypatch.setattr("hrm.inference.batcher.Batcher.idle", False)
        with pytest.raises(Refused, match="busy"):
            await models.get("one more", facts)
        await models.close()

    asyncio.run(main())
