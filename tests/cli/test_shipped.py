"""The models of the package: named, found by what is to be solved, listed, and small."""

import io
import json
import sys

import pytest

import hrm
from hrm.checkpoint import load_checkpoint, shipped_models
from hrm.checkpoint.finding import FIRST_SHIPPED, SHIPPED
from hrm.checkpoint.manifest import verify
from hrm.data.split import Split
from hrm.errors import UserError

from ..conftest import Call

MOST_BYTES = 4_000_000
PUZZLES = {
    "sudoku-9x9": ".7.42961...9..3...4....8.732.87.43...4793..85"
    "3.....7.9.21.46857....8.1...56.974..",
    "sudoku-6x6": "2.6..515....42..5...5..43.254..416.3",
    "sudoku-4x4": ".3..1.3...4.4...",
    "maze-9x9": "   #   #  # # # #  #   #  G #######  #     #  # # # #  # #   #  ### ### S    #   ",
}


def solved(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_they_are_small_and_whole():
    assert next(iter(shipped_models())) == FIRST_SHIPPED
    assert set(shipped_models()) == set(PUZZLES)
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= MOST_BYTES
    for name, folder in shipped_models().items():
        verify(folder)
        card = (folder / "README.md").read_text()
        assert f"\n# {name}\n" in card and "license: apache-2.0" in card
        assert load_checkpoint(folder).origin.data is not None
        assert len(Split.open(folder / "test")) == 12


@pytest.mark.parametrize("name", PUZZLES)
def test_each_solves_a_puzzle_without_being_named(call: Call, name):
    code, out, err = call("solve", PUZZLES[name], "--format", "json")
    assert code == 0 and solved(out)[0]["valid"]
    assert f"note: {name} is asked, a model of this package" in err
    assert call("solve", name, PUZZLES[name], "--format", "json")[1] == out


def test_the_model_is_chosen_by_what_is_read(call: Call, tmp_path, monkeypatch, data_4x4):
    text = f"{PUZZLES['sudoku-6x6']}\n"
    (tmp_path / "mine.txt").write_text(text)
    code, out, err = call("solve", "--file", str(tmp_path / "mine.txt"), "--format", "line")
    assert (code, len(out.strip())) == (0, 36) and "sudoku-6x6" in err
    code, out, err = call("solve", "--data", str(data_4x4), "--index", "0", "--format", "line")
    assert len(out.strip()) == 16 and "sudoku-4x4" in err
    assert "not the data" in err and "identifiers.json" not in err, "it knows none"


def test_examples_are_there_without_data(call: Call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in PUZZLES:
        code, out, err = call("solve", name, "--index", "0", "--format", "json")
        assert code == 0 and solved(out)[0]["valid"], name
        assert "note" not in err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_at_a_terminal_an_example_is_asked_for_by_its_number(call: Call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", Terminal())
    code, out, err = call("solve", "--index", "3", "--format", "json")
    assert code == 0 and f"note: {FIRST_SHIPPED} is asked" in err
    assert call("solve", FIRST_SHIPPED, "--index", "3", "--format", "json")[1] == out
    code, out, err = call("solve")
    assert (code, out) == (2, "") and err.startswith("error: no puzzle; give some")


def test_a_puzzle_may_be_drawn(call: Call):
    puzzle = PUZZLES["sudoku-4x4"]
    drawn = "\n".join(puzzle[row : row + 4].replace(".", "_") for row in range(0, 16, 4))
    code, out, _ = call("solve", drawn, "--format", "json")
    assert (code, out) == (0, call("solve", puzzle, "--format", "json")[1])


def test_a_file_of_puzzles_is_no_checkpoint(call: Call, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(f"question\n{PUZZLES['sudoku-4x4']}\n")
    code, out, err = call("solve", str(path))
    assert (code, out) == (2, "") and err.count("\n") == 1 and "name it by --file" in err
    code, out, err = call("solve", "--file", str(path), "--format", "line")
    assert code == 0 and err.count("read as CSV") == 1, "not once for each model that is tried"


def test_mistakes_are_those_of_the_puzzle(call: Call):
    code, out, err = call("solve", PUZZLES["sudoku-6x6"].replace("2", "9"))
    assert (code, out) == (2, "") and "character '9'" in err
    code, out, err = call("solve", PUZZLES["sudoku-9x9"][:-1])
    assert (code, out) == (2, "") and "81" in err and "80" in err
    code, out, err = call("solve", "somewhere/else", PUZZLES["sudoku-9x9"])
    assert (code, out) == (2, "") and "checkpoint=somewhere/else: not found" in err
    assert "sudoku-9x9" in err


def test_a_folder_of_the_same_name_comes_first(call: Call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sudoku-9x9").mkdir()
    code, _, err = call("solve", "sudoku-9x9", PUZZLES["sudoku-9x9"])
    assert code == 2 and "checkpoint=sudoku-9x9: holds neither" in err


def test_from_python():
    solver = hrm.pretrained(device="cpu")
    [solution] = solver.solve([PUZZLES["sudoku-9x9"]])
    assert solution.valid
    assert hrm.pretrained("sudoku-4x4", "cpu").metadata.seq_len == 16
    with pytest.raises(UserError, match="'sudoku-16x16': no such model .* sudoku-9x9"):
        hrm.pretrained("sudoku-16x16")


def test_they_are_listed(call: Call):
    listed = call("models")[1].split("Architectures")[0]
    for name in shipped_models():
        assert f"\n{name}\n" in listed
