"""`hrm solve` on ARC: what is asked, what counts, what is drawn, what is said of the unknown."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import one_hot

from hrm.attempts import plan_attempts
from hrm.checkpoint import build_for, save_checkpoint
from hrm.checkpoint.training import TrainingRecord
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.format import read_metadata
from hrm.data.grid import Grid
from hrm.data.origin import origin_of
from hrm.evaluation import evaluate
from hrm.inference import Solver
from hrm.ranks import Ranks
from hrm.rollout import RolloutStep
from hrm.tasks.arc.palette import COLORS
from hrm.training.config import load_pretrain_config
from hrm.viz import draw_grid, legend
from hrm.viz.picture import draw_picture
from hrm.viz.svg_grid import svg_grid
from tests.conftest import SMALL_MODEL, Call

from .making import Made, puzzles_of, tokens_of, versions_of, write_data

VERSIONS = 5
Q_VALUES = ("q_halt_logits", "q_continue_logits", "target_q_continue")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    rng = np.random.default_rng(0)
    puzzles, versions = puzzles_of(rng, (1, 2)), versions_of(rng, VERSIONS)
    return write_data(tmp_path_factory.mktemp("arc") / "data", puzzles, versions)


@pytest.fixture(scope="module")
def checkpoint(made, tmp_path_factory) -> Path:
    """Of fresh weights, whose answers and halting values depend on question and identity."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    small = ("arch.hidden_size=32", "arch.num_heads=2", "arch.halt_max_steps=2")
    names = (f"data_path={made.path}", "run_name=run", "arch.puzzle_emb_ndim=32")
    config = load_pretrain_config([*names, *SMALL_MODEL, *small])
    metadata = read_metadata(made.path / "train")
    torch.manual_seed(0)
    weights = build_for(config, metadata).state_dict()
    weights["model.inner.puzzle_emb.weights"].normal_()
    weights["model.inner.q_head.weight"].normal_()
    weights["model.inner.q_head.bias"].zero_()
    head = weights["model.inner.lm_head.weight"]  # so that answers are small grids
    head.mul_(3)
    head[0].mul_(0.5)
    record = TrainingRecord({}, {"step": 7} | asdict(origin_of(made.path)))
    save_checkpoint(folder, 7, config, metadata, weights, record=record)
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_task(folder: Path, made: Made, name: str, called: str = "") -> Path:
    path = folder / f"{called or name}.json"
    path.write_text(json.dumps(made.puzzles[name]))
    return path


def rows_of(text: str) -> list[list[int]]:
    """The grid in the corner of a canvas."""
    rows = [text[n : n + 30] for n in range(0, 900, 30)]
    width = len(rows[0]) - len(rows[0].lstrip("0123456789"))
    return [list(map(int, row[:width])) for row in rows if row[0].isdigit()]


def test_the_answers_are_those_of_an_evaluation(call: Call, made, checkpoint, tmp_path):
    words = (f"checkpoint={checkpoint}", "--device", "cpu", "--halting", "max_steps")
    code, _, err = call("evaluate", *words, "--artefacts-dir", "out")
    assert code == 0, err
    [path] = tmp_path.rglob("submission.json")
    submitted = json.loads(path.read_text())
    distinct = set()
    for name in made.puzzles:
        file = write_task(tmp_path, made, name)
        _, out, _ = call("solve", *words, "--format", "json", str(file))
        found = [json.loads(line) for line in out.splitlines()]
        assert len(found) == len(made.puzzles[name]["test"])
        for solution, expected in zip(found, submitted[name], strict=True):
            assert solution["votes"] == VERSIONS and solution["total_steps"] == 2 * VERSIONS
            grids = [rows_of(attempt["answer"]) or [[0]] for attempt in solution["attempts"]]
            grids = (grids * 2)[:2]
            assert grids == [expected["attempt_1"], expected["attempt_2"]]
            assert sum(attempt["votes"] for attempt in solution["attempts"]) <= VERSIONS
            distinct.update(map(str, grids))
    assert len(distinct) > 3  # else the test would say little


def test_as_many_versions_are_asked_as_wanted(call: Call, made, checkpoint, tmp_path):
    file = write_task(tmp_path, made, "task0000")
    words = ("solve", f"checkpoint={checkpoint}", "--device", "cpu", "--format", "json")
    for given, votes in (((), VERSIONS), (("--votes", "2"), 2), (("--votes", "99"), VERSIONS)):
        _, out, _ = call(*words, str(file), *given)
        assert json.loads(out)["votes"] == votes
    own, version = (
        json.loads(call(*words, "--index", index, "--votes", "3")[1]) for index in ("0", "1")
    )
    assert own["votes"] == version["votes"] == 3
    assert own["attempts"][0]["answer"] == own["answer"]
    assert "votes" not in json.loads(call(*words, "--index", "0")[1])


def let_answer(monkeypatch, answers: dict[int | None, tuple[np.ndarray, float]]) -> None:
    """Let models give these tokens and halting values in one step, by the seed of the start."""

    def rollout(model, batches, halting, halt_probability, steps, start_seed, *_):
        tokens, q_halt = answers[start_seed]
        [batch] = batches
        every = torch.ones(len(batch["inputs"]), dtype=torch.bool)
        outputs = {name: torch.full((len(every),), q_halt) for name in Q_VALUES}
        logits = one_hot(torch.from_numpy(tokens).long(), 12).float()
        outputs["logits"] = logits.expand(len(every), -1, -1)
        yield RolloutStep(torch.arange(len(every)), every, every, every.int(), batch, outputs)

    monkeypatch.setattr("hrm.attempts.rollout", rollout)


def with_something_around(tokens: np.ndarray) -> np.ndarray:
    return np.where(np.arange(900) == 899, 5, tokens)


def test_one_answer_is_tidied_as_well(call: Call, checkpoint, monkeypatch):
    tidy = tokens_of(np.array([[1, 2]], np.uint8))
    let_answer(monkeypatch, {None: (with_something_around(tidy), 1.0)})
    words = ("--device", "cpu", "--format", "json", "--index", "0", "--votes", "1")
    _, out, _ = call("solve", f"checkpoint={checkpoint}", *words)
    assert json.loads(out)["answer"] == LOOK.text(tidy)


def test_answers_that_differ_around_their_grids_are_one(made, checkpoint, monkeypatch):
    """A surer one is outvoted by two that are equal but for what is around them."""
    sure, tidy = tokens_of(np.array([[9]], np.uint8)), tokens_of(np.array([[1, 2]], np.uint8))
    answers = {None: (sure, 3.0), 0: (tidy, 1.0), 1: (with_something_around(tidy), 2.0)}
    let_answer(monkeypatch, answers)
    solver = Solver.from_checkpoint(checkpoint, "cpu")
    tries = {"restarts": 2, "select": "majority"}
    [solution] = solver.solve([tokens_of(np.array([[3]], np.uint8))], **tries)
    assert solution.tokens.tolist() == tidy.tolist() and solution.attempt == 3
    config = PuzzleDatasetConfig(
        seed=0,
        dataset_path=made.path,
        global_batch_size=64,
        test_set_mode=True,
        epochs_per_iter=1,
        rank=0,
        num_replicas=1,
    )
    result = evaluate(
        solver.model,
        PuzzleDataset(config, split="test"),
        solver.device,
        Ranks(0, 1, 0),
        output_keys=("predictions",),
        plan=plan_attempts(solver.task, **tries),
    )
    assert (result.outputs["predictions"][:, :3] == torch.from_numpy(tidy[:3])).all()


def test_an_unknown_task_is_said_to_be(call: Call, made, checkpoint, tmp_path):
    file = write_task(tmp_path, made, "task0000", called="new")
    code, out, err = call("solve", f"checkpoint={checkpoint}", "--device", "cpu", str(file))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {file}: test[0]: the model does not know a task 'new'; ")
    assert "cannot read demonstrations" in err and "2 known: task0000, task0001" in err
    code, _, err = call("solve", f"checkpoint={checkpoint}", "--device", "cpu", "12\n30")
    assert code == 0 and "note: a grid alone does not say which rule is asked for" in err


def test_names_are_those_of_training(call: Call, made, checkpoint, tmp_path):
    file = write_task(tmp_path, made, "task0000")
    other = shutil.copytree(made.path, tmp_path / "other")
    names = json.loads((other / "identifiers.json").read_text())
    (other / "identifiers.json").write_text(json.dumps(names[::-1]))
    words = ("solve", f"checkpoint={checkpoint}", "--device", "cpu", str(file), "--data")
    code, out, err = call(*words, str(other))
    assert code == 2 and not out and "is not that of training" in err and err.count("\n") == 1
    same = shutil.copytree(made.path, tmp_path / "same")
    assert call(*words, str(same))[0] in (0, 1)


def test_a_file_that_is_no_task_is_refused_in_one_line(call: Call, made, checkpoint, tmp_path):
    for text in ("{", '{"train": [], "test": []}', "[1]", ""):
        (tmp_path / "task0000.json").write_text(text)
        for way in (["task0000.json"], ["--file", "task0000.json"]):
            code, out, err = call("solve", f"checkpoint={checkpoint}", "--device", "cpu", *way)
            assert (code, out, err.count("\n")) == (2, "", 1) and "task0000.json: " in err


def test_attempts_and_steps_are_drawn(call: Call, made, checkpoint, tmp_path):
    file = write_task(tmp_path, made, "task0001")
    words = ("solve", f"checkpoint={checkpoint}", "--device", "cpu", "--index", "1", str(file))
    words += ("--halting", "max_steps")
    code, out, err = call(*words, "--trace", "--png", "a.png", "--gif", "a.gif")
    assert code in (0, 1), err
    assert f"of {VERSIONS} votes" in out and "attempt 1, " in out and "step" in out
    assert "* changed and wrong" in out and "· answered" not in out and "\x1b" not in out
    assert f"({2 * VERSIONS} in all versions)" in out and " valid" not in err
    assert max(map(len, out.splitlines())) <= 100
    with Image.open(tmp_path / "a.gif") as gif, Image.open(tmp_path / "a.png") as png:
        assert gif.n_frames >= 4 and png.width > 300


# ---- drawing ----

COLORED = dict(zip("0123456789", COLORS, strict=True))
LOOK = Grid((30, 30), None, "_=0123456789", None, COLORED, "=")
GRID = np.array([[1, 0], [7, 9]], np.uint8)
TOKENS = tokens_of(GRID).astype(np.int64)


def cut(*tokens: np.ndarray) -> tuple[Any, ...]:
    used = LOOK.used_part(*tokens)
    return LOOK.part(used), *(LOOK.cut(own, used) for own in tokens)


def test_of_a_canvas_only_what_is_used_is_drawn():
    look, tokens = cut(TOKENS)
    assert look.shape == (3, 3) and draw_grid(tokens, look, inputs=tokens).split("\n") == [
        "┌──────┐",
        "│ 1 0 =│",
        "│ 7 9 =│",
        "│ = =  │",
        "└──────┘",
    ]
    assert LOOK.used_part(np.zeros(900, int)) == (1, 1)
    plain = Grid((3, 3), None, "_.1")
    assert plain.used_part(np.zeros(9, int)) == (3, 3) and plain.part((3, 3)) is plain


def test_colours_have_digits_and_marks_on_a_terminal():
    other = TOKENS.copy()
    other[0] = 2
    look, tokens, answer = cut(TOKENS, other)
    drawn = draw_grid(tokens, look, inputs=tokens, previous=answer, answer=answer, color=True)
    first = drawn.split("\n")[1]
    assert first.startswith("│\x1b[1;38;2;255;255;255;48;2;0;116;217m*1\x1b[0m\x1b[1;38;2;255;")
    assert first.endswith("48;2;0;0;0m 0\x1b[0m\x1b[90m =\x1b[0m│")
    assert legend(True, look) == "+ changed in this step   ! wrong   * changed and wrong"


def test_an_unlabelled_cell_beside_an_answer_is_padding():
    labels = np.where(TOKENS == 0, -100, TOKENS)
    assert LOOK.whole(labels).tolist() == TOKENS.tolist()
    assert (LOOK.whole(np.full(900, -100)) == -100).all()
    assert (Grid((3, 3), None, "_.1").whole(np.full(9, -1)) == -1).all()


def test_pictures_have_the_colours_and_mark_what_is_wrong():
    other = TOKENS.copy()
    other[0] = 9
    look, tokens, answer = cut(TOKENS, other)
    picture = draw_picture(tokens, look, inputs=tokens)
    cell, left, top = 44, 14, 44
    assert picture.getpixel((left + 6, top + 20)) == (0x00, 0x74, 0xD9)
    assert picture.getpixel((left + cell + 6, top + 20)) == (0, 0, 0)
    marked = draw_picture(tokens, look, inputs=tokens, answer=answer)
    assert marked.getpixel((left + 4, top + 20)) == (255, 255, 255)  # the frame
    svg = svg_grid(tokens, look, "grid", tokens, answer)
    assert svg.count('class="frame"') == 1 and 'fill="#0074D9"' in svg and ">1</text>" in svg
    assert svg.count('class="end"') == 4
