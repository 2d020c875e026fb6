"""Every flag of `solve.py` acts; those of its web page stand in `test_serve_flags`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from .commands import KEYS, command, done
from .registry import Registry
from .spies import rows_per_pass
from .training import PUZZLES, TEST_PUZZLES, VERSIONS

acts = Registry()
BLANK = "." * 16
FIRST, SECOND = "1" + "." * 15, "2" + "." * 15


def solved(checkpoint: Path, *words: object) -> list[dict[str, Any]]:
    """The JSON objects that are printed."""
    out = done("solve", f"checkpoint={checkpoint}", "--format", "json", "--device", "cpu", *words)
    return [json.loads(line) for line in out.splitlines()]


def stored(data: Path, split: str, number: int) -> str:
    """A puzzle of a data set as it is printed."""
    row = np.load(data / split / f"{split}__inputs.npy")[number]
    return "".join(".1234"[token] for token in row)


# ---- puzzles ----


@acts("checkpoint")
def test_the_checkpoint_is_the_one_that_is_named(patient, moody):
    [ours], [other] = solved(patient, BLANK), solved(moody, BLANK)
    assert ours["halt_probability"] == 0.9933 != other["halt_probability"]


@acts("puzzles")
def test_puzzles_are_taken_from_the_command_line(patient):
    assert [found["puzzle"] for found in solved(patient, FIRST, SECOND)] == [FIRST, SECOND]


@acts("file")
def test_puzzles_are_read_from_a_file(patient, tmp_path):
    path = tmp_path / "puzzles.txt"
    path.write_text(f"{FIRST}\n\n{SECOND}\n")
    assert [found["puzzle"] for found in solved(patient, "--file", path)] == [FIRST, SECOND]


@acts("data")
def test_puzzles_are_taken_from_a_data_set(patient, data, other_data):
    found = solved(patient, "--data", other_data)
    assert [f["puzzle"] for f in found] == [stored(other_data, "test", n) for n in range(5)]
    [own] = solved(patient, "--index", 0)
    [other] = solved(patient, "--index", 0, "--data", other_data)
    assert own["puzzle"] == stored(data, "test", 0) != other["puzzle"] == found[0]["puzzle"]


@acts("split")
def test_the_split_is_the_one_that_is_named(patient, data):
    assert len(solved(patient, "--data", data)) == TEST_PUZZLES
    assert len(solved(patient, "--data", data, "--split", "train")) == PUZZLES * VERSIONS


@acts("index")
def test_one_puzzle_is_taken_by_its_number(patient, data):
    for number in (0, 7):
        [found] = solved(patient, "--index", number)
        assert found["puzzle"] == stored(data, "test", number)


def test_one_puzzle_of_those_given_is_taken_by_its_number(patient, tmp_path):
    path = tmp_path / "puzzles.txt"
    path.write_text(f"{FIRST}\n{SECOND}\n")
    for words in ((FIRST, SECOND), ("--file", path)):
        [found] = solved(patient, *words, "--index", 1)
        assert found["puzzle"] == SECOND


def test_puzzles_are_read_from_standard_input(patient):
    words = (f"checkpoint={patient}", "--format", "json", "--device", "cpu")
    assert json.loads(done("solve", *words, stdin=f"{FIRST}\n"))["puzzle"] == FIRST


# ---- thinking ----


@acts("halting")
@pytest.mark.parametrize("words, steps", [((), 1), (("--halting", "max_steps"), 4)])
def test_puzzles_halt_as_asked(patient, words, steps):
    assert solved(patient, BLANK, *words)[0]["steps"] == steps


@acts("steps")
@pytest.mark.parametrize("steps", [2, 6])
def test_as_many_steps_are_taken_as_asked(patient, steps):
    [found] = solved(patient, BLANK, "--halting", "max_steps", "--steps", steps)
    assert found["steps"] == steps


@acts("votes")
def test_as_many_versions_are_solved(moody):
    one, *_ = solved(moody, FIRST, "--halting", "max_steps")
    voted, *_ = solved(moody, FIRST, "--halting", "max_steps", "--votes", 5)
    assert (one["total_steps"], voted["total_steps"]) == (4, 20)
    assert voted["halt_probability"] > one["halt_probability"]  # the surest of the five


@acts("restarts")
def test_as_many_start_states_are_tried(moody):
    one, *_ = solved(moody, FIRST, "--halting", "max_steps")
    again, *_ = solved(moody, FIRST, "--halting", "max_steps", "--restarts", 3)
    assert (one["total_steps"], again["total_steps"]) == (4, 16)
    assert again["halt_probability"] > one["halt_probability"]


@acts("noise", "rollouts", "select")
def test_noise_acts_in_as_many_rollouts_as_asked(moody):
    words = (FIRST, "--halting", "max_steps", "--rollouts", 5)
    one, *_ = solved(moody, FIRST, "--halting", "max_steps")
    loud, soft = (
        solved(moody, *words, "--noise", noise, "--select", "q_halt")[0] for noise in (1, 0.1)
    )
    assert loud["total_steps"] == soft["total_steps"] == 20
    assert one["halt_probability"] < loud["halt_probability"] != soft["halt_probability"]
    # Rollouts with next to no noise agree with one another, other start states with nobody.
    tries = (*words, "--noise", 1e-5, "--restarts", 3, "--select")
    surest, most = (solved(moody, *tries, select)[0] for select in ("q_halt", "majority"))
    assert surest["halt_probability"] > one["halt_probability"] == most["halt_probability"]
    for given in (("--rollouts", 5), ("--noise", 1)):
        code, _, err = command("solve", moody, FIRST, *given)
        assert code == 2 and f"{given[0][2:]}={given[1]}" in err and err.count("\n") == 1


def test_noise_is_that_of_a_puzzles_position_in_the_whole_input(moody, monkeypatch):
    words = (FIRST, SECOND, FIRST, "--noise", 1, "--rollouts", 3, "--select", "q_halt")
    whole = solved(moody, *words)
    monkeypatch.setattr("hrm.cli.solve.CHUNK", 2)
    assert solved(moody, *words) == whole
    assert whole[0]["halt_probability"] != whole[2]["halt_probability"]


@acts("guesses")
def test_as_many_guesses_are_made(moody):
    words = (FIRST, "--halting", "max_steps")
    one, *_ = solved(moody, *words)
    more, *_ = solved(moody, *words, "--guesses", 6)
    assert not one["valid"] and (one["total_steps"], more["total_steps"]) == (4, 28)


@acts("seed")
@pytest.mark.parametrize("way", [("--votes",), ("--restarts",), ("--noise", 1, "--rollouts")])
def test_versions_start_states_and_noise_are_drawn_from_the_seed(moody, way):
    def surest(*seed: object) -> list[float]:
        found = solved(moody, FIRST, SECOND, "--halting", "max_steps", *way, 6, *seed)
        return [f["halt_probability"] for f in found]

    assert surest() == surest("--seed", 0) != surest("--seed", 100)
    assert surest("--seed", 100) == surest("--seed", 100)


@acts("batch_size")
def test_as_many_puzzles_run_side_by_side(patient, data, monkeypatch):
    seen = rows_per_pass(monkeypatch)
    solved(patient, "--data", data, "--halting", "max_steps", "--batch-size", 5)
    assert seen == [5] * 8 + [2] * 4
    seen.clear()
    solved(patient, "--data", data, "--halting", "max_steps")
    assert seen == [TEST_PUZZLES] * 4


@acts("weights")
@pytest.mark.parametrize("weights, steps", [("raw", 4), ("ema", 1), ("auto", 1)])
def test_the_weights_are_those_that_are_named(patient, weights, steps):
    """Only the running average of this checkpoint halts before the last step."""
    [found] = solved(patient, BLANK, "--weights", weights)
    assert found["steps"] == steps


@acts("device")
def test_the_device_is_the_one_that_is_named(patient, monkeypatch, no_accelerator):
    for name in ("cuda", "mps"):
        code, _, err = command("solve", f"checkpoint={patient}", "--device", name, BLANK)
        assert code == 2 and f"device={name}: not available" in err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert solved(patient, BLANK)


# ---- output ----


@acts("format")
def test_answers_are_printed_in_the_form_that_is_asked_for(patient):
    def printed(*form: str) -> str:
        return done("solve", f"checkpoint={patient}", "--device", "cpu", BLANK, *form)

    [found] = solved(patient, BLANK)
    assert printed("--format", "line") == found["answer"] + "\n"
    header, row = printed("--format", "csv").splitlines()
    assert header.startswith("puzzle,answer,solved,") and found["answer"] in row
    assert printed() == printed("--format", "grid") and "┌" in printed()


@acts("trace")
def test_every_step_is_shown_where_asked(patient):
    words = (BLANK, "--halting", "max_steps")
    assert "trace" not in solved(patient, *words)[0]
    assert len(solved(patient, *words, "--trace")[0]["trace"]) == 4


@acts("gif", "png")
def test_pictures_are_drawn_where_asked(patient, tmp_path):
    words = (f"checkpoint={patient}", "--device", "cpu", "--halting", "max_steps", BLANK)
    for flag, kind in (("--gif", "GIF"), ("--png", "PNG")):
        path = tmp_path / f"thinking{flag.replace('--', '.')}"
        done("solve", *words, flag, path)
        with Image.open(path) as picture:
            assert picture.format == kind and picture.width > 50
            assert getattr(picture, "n_frames", 1) == (5 if kind == "GIF" else 1)
    assert len(list(tmp_path.iterdir())) == 2


def test_every_flag_has_a_test():
    acts.check(KEYS["solve"])
