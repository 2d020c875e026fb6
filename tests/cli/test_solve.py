"""`hrm solve` as typed: what it prints, its exit codes, and one line for each mistake."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hrm.cli.solve import GUESSES, MORE, WAYS, command
from hrm.data.format import DatasetMetadata, read_split
from hrm.inference import Solution, Solver, Trace
from hrm.inference.output import Summary, as_text, is_solved, verdict
from hrm.inference.sources import Puzzle
from hrm.tasks import task_of
from hrm.tasks.sudoku.task import SudokuTask

from ..conftest import ROOT, Call, Run, saved_run

TASK = task_of(
    DatasetMetadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=-1,
        vocab_size=5,
        seq_len=16,
        num_puzzle_identifiers=1,
        total_groups=1,
        mean_puzzle_examples=1,
        sets=("test",),
        task="sudoku",
        grid_shape=(4, 4),
        box_shape=(2, 2),
        symbols=".1234",
    )
)
RIGHT = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1])
WRONG = np.where(np.arange(16) == 1, 3, RIGHT)
GIVEN = np.where(np.arange(16) % 3 == 0, RIGHT, 0)
BLANK = "." * 16


@pytest.fixture(scope="module")
def run_dir(data_4x4, tmp_path_factory):
    return saved_run(data_4x4, tmp_path_factory.mktemp("runs") / "fresh")


def solution(*steps: np.ndarray, valid: bool | None = None, total: int = 0) -> Solution:
    logits = np.linspace(-2, 2, len(steps), dtype=np.float32)
    probabilities = np.full((len(steps), 16, 5), 0.05, np.float32)
    for number, tokens in enumerate(steps):
        probabilities[number, np.arange(16), tokens] = 0.8
    return Solution(
        inputs=GIVEN,
        tokens=steps[-1],
        answer=TASK.grid.text(steps[-1]),
        valid=valid,
        steps=len(steps),
        halt_probability=0.875,
        confidence=probabilities[-1].max(-1),
        total_steps=total or len(steps),
        trace=Trace(np.stack(steps), probabilities, logits, -logits),
    )


@pytest.mark.parametrize(
    ("answer", "given", "solved", "line"),
    [
        (RIGHT, solution(RIGHT, WRONG, RIGHT, RIGHT, valid=True), True,
         "solved exactly in 4 ACT steps (right from step 3 on)"),
        (RIGHT, solution(RIGHT, WRONG, valid=False), False,
         "not solved: 1 of 16 cells wrong after 2 ACT steps"),
        (WRONG, solution(RIGHT, valid=True), False,
         "not solved: 1 of 16 cells wrong after 1 ACT step, though it keeps the rules"),
        (None, solution(RIGHT, valid=True), True, "solved: a valid solution in 1 ACT step"),
        (None, solution(RIGHT, valid=True, total=7), True,
         "solved: a valid solution in 1 ACT step (7 in all attempts)"),
        (None, solution(WRONG, valid=False), False,
         "not solved: no valid solution after 1 ACT step"),
        (np.full(16, -100), solution(RIGHT, RIGHT), None,
         "answered in 2 ACT steps; the right answer is not known"),
    ],
)  # fmt: skip
def test_the_verdict_goes_by_the_answer_else_by_the_rules(answer, given, solved, line):
    puzzle = Puzzle("p", GIVEN, answer)
    assert is_solved(puzzle, given) is solved
    assert verdict(puzzle, given, TASK) == line


def test_steps_that_change_nothing_share_a_grid():
    puzzle = Puzzle("here", GIVEN, RIGHT)
    drawn = as_text(puzzle, solution(WRONG, RIGHT, RIGHT), "grid", TASK, trace=True)
    place, titles, *grid = drawn.splitlines()
    assert place == "here" and titles.startswith("puzzle, 6 givens")
    assert "step 1, halt 11.9%" in titles and titles.endswith("steps 2-3, halt 88.1%")
    assert grid[1].count("!3") == 1 and grid[1].count("+2") == 1


def test_json_tells_all():
    puzzle = Puzzle("here", GIVEN, RIGHT)
    values = json.loads(as_text(puzzle, solution(WRONG, RIGHT, valid=True), "json", TASK, True))
    trace = values.pop("trace")
    assert values == {
        "place": "here",
        "puzzle": TASK.grid.text(GIVEN),
        "answer": TASK.grid.text(RIGHT),
        "solved": True,
        "valid": True,
        "steps": 2,
        "total_steps": 2,
        "halt_probability": 0.875,
        "confidence": [0.8] * 16,
    }
    assert [step["answer"] for step in trace] == [TASK.grid.text(WRONG), TASK.grid.text(RIGHT)]
    assert [step["halt_probability"] for step in trace] == [0.1192, 0.8808]
    assert trace[0]["confidence"] == [0.8] * 16


def test_the_summary_counts():
    summary = Summary()
    puzzles = [Puzzle("a", GIVEN), Puzzle("b", GIVEN, RIGHT), Puzzle("c", GIVEN)]
    found = [solution(RIGHT, valid=True), solution(WRONG, WRONG, valid=False), solution(RIGHT)]
    summary.add(puzzles, found, seconds=0.5)
    assert str(summary) == (
        "3 puzzles: 1 solved (33.3%), 1 with an answer that cannot be checked, 1 valid, "
        "1.3 ACT steps on average, 6.0 puzzles/s"
    )
    assert summary.unsolved == 1


def test_a_puzzle_of_the_test_split_step_by_step(run_script: Run, run_dir, data_4x4):
    options = ["--index", "0", "--trace", "--halting", "max_steps"]
    done = run_script("solve.py", f"checkpoint={run_dir}", *options)
    assert done.returncode == 1
    lines = done.stdout.rstrip().splitlines()
    assert lines[0] == f"{data_4x4 / 'test'}[0]"
    assert "givens" in lines[1] and "step 1, halt 0.7%" in lines[1]
    assert "\x1b" not in done.stdout
    assert lines[-1].startswith("not solved: ") and lines[-1].endswith("after 4 ACT steps")
    assert done.stderr.startswith("1 puzzle: 0 solved (0.0%), 0 valid, 4.0 ACT steps on average")
    assert done.stderr.splitlines()[1:] == [MORE + GUESSES + WAYS]


def test_puzzles_come_from_arguments_files_data_and_stdin(
    call: Call, run_script: Run, run_dir, data_4x4, tmp_path
):
    metadata, sets = read_split(data_4x4 / "test")
    texts = [TASK.grid.text(row) for row in sets["test"].inputs]
    rows = zip(texts, (TASK.grid.text(row) for row in sets["test"].labels), strict=True)
    lines, table = tmp_path / "lines.txt", tmp_path / "table.csv"
    lines.write_text("\n".join(texts) + "\n\n")
    table.write_text(
        "source,question,answer,rating\r\n"
        + "".join(f'here,"{question}",{answer},3\r\n' for question, answer in rows)
    )
    base = ["--format", "line", f"checkpoint={run_dir}"]
    expected = "".join(f"{s.answer}\n" for s in Solver.from_checkpoint(run_dir).solve(texts))
    ways = ([*texts], ["--file", str(lines)], ["--file", str(table)], ["--data", str(data_4x4)])
    for way in ways:
        code, out, err = call("solve", *base, *way)
        assert (code, out) == (1, expected), way[0]
        assert err.startswith("40 puzzles: 0 solved")
    done = run_script("solve.py", *base, stdin=lines.read_bytes().decode())
    assert (done.returncode, done.stdout) == (1, expected)


def test_csv_out_can_be_read_back(call: Call, run_dir):
    _, out, _ = call("solve", f"checkpoint={run_dir}", "--format", "csv", BLANK)
    [row] = csv.DictReader(io.StringIO(out))
    assert row["puzzle"] == BLANK and len(row["answer"]) == 16
    assert (row["solved"], row["valid"]) == ("False", "False") and row["steps"] == "4"


def test_an_answer_that_cannot_be_checked_is_no_failure(call: Call, run_dir, monkeypatch):
    monkeypatch.setattr(SudokuTask, "are_valid", lambda _, tokens, *__: [None] * len(tokens))
    code, out, err = call("solve", f"checkpoint={run_dir}", BLANK)
    assert code == 0 and "answered in" in out and "cannot be checked" in err


def test_all_solved_is_exit_code_0(call: Call, run_dir, monkeypatch):
    monkeypatch.setattr(SudokuTask, "are_valid", lambda _, tokens, *__: [True] * len(tokens))
    code, _, err = call("solve", f"checkpoint={run_dir}", BLANK, BLANK)
    assert code == 0 and err.startswith("2 puzzles: 2 solved (100.0%), 2 valid")


def test_more_steps_votes_and_restarts_are_taken(call: Call, run_dir):
    options = ["--steps", "6", "--votes", "3", "--restarts", "2", "--halting", "max_steps"]
    code, out, err = call("solve", f"checkpoint={run_dir}", *options, BLANK)
    assert code == 1 and "6 ACT steps (30 in all attempts)" in out
    assert "30.0 ACT steps on average" in err


def test_pictures_show_every_step(call: Call, run_dir, tmp_path):
    gif, png = tmp_path / "out.gif", tmp_path / "out.png"
    options = ["--index", "0", "--halting", "max_steps", "--gif", str(gif), "--png", str(png)]
    code, _, err = call("solve", f"checkpoint={run_dir}", *options)
    assert code == 1 and "error" not in err
    with Image.open(gif) as frames, Image.open(png) as picture:
        assert frames.n_frames >= 2 and frames.info["loop"] == 0
        assert picture.width > 200 and picture.height > 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gif", "out.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["12"], "puzzle 1: 2 characters, expected 16 (4x4)"),
        ([BLANK, "x" * 16], "puzzle 2, column 1: character 'x' is not one of '.1234'"),
        (["11" + "." * 14], "puzzle 1, column 2: contradicts itself: 1 is given 2 times in row 1"),
        (["--index", "40"], "--index 40: "),
        (["--index", "0", "--split", "other"], "no split 'other', only test, train"),
        (["--halting", "never"], "hrm solve: --halting never: Input should be"),
        (["--steps", "0"], "hrm solve: --steps 0: Input should be greater than 0"),
        (["--votes", "many"], "hrm solve: --votes many: Input should be a valid integer"),
        (["--stepz", "1"], "--stepz"),
        (["indexes=1"], "indexes=1: unknown key; did you mean index?"),
        (["index=40"], "--index 40: "),
        (["--file", "nowhere"], "nowhere: not found"),
        (["--file", "."], ".: is a folder, not a file"),
        (["--file", "/dev/null"], "/dev/null: holds no puzzle"),
        (["--gif", "x.gif", BLANK, BLANK], "--gif and --png draw one puzzle, not 2"),
        (["--png", "no/where.png", BLANK], "no/where.png: cannot be written"),
        (
            ["--gif", "/dev/null", BLANK],
            "/dev/null: cannot be written (it is not an ordinary file)",
        ),
        (["--device", "abacus", BLANK], "hrm solve: --device abacus: "),
        (["--file", "x.txt", BLANK], "hrm solve: give puzzles as arguments or by --file, in one "),
        (["--index", "1", BLANK], "--index 1: 1 puzzle is given, the first has the number 0"),
        (["--index", "2", BLANK, BLANK], "--index 2: 2 puzzles are given, the first has "),
        (["--serve", BLANK], "serve takes no puzzles; type or paste them into the page"),
    ],
)
def test_mistakes_are_reported_in_one_line(call: Call, run_dir, arguments, message):
    code, out, err = call("solve", f"checkpoint={run_dir}", *arguments)
    assert code == 2 and (out == "" or "cannot be written" in message)
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n1234\n", ":2: 4 characters"),
        (BLANK.encode() + b"\n" + b"1..5" + b"." * 12, ":2, column 4: character '5'"),
        (b"\xff\xfe\x00", ": begins as UTF-16, but is not"),
        (b"\xb7" * 16, ":1, column 1: byte 0xb7 is not UTF-8; save the file as UTF-8"),
        (b"source,question,answer,rating\n", ": holds no puzzle"),
        (b"source,question,answer,rating\nx,y\n", ":2: 2 fields, expected 4"),
        (b"source,question,answer,rating\nx,1x..,,\n", ":2: question, column 2: character 'x'"),
        (
            b"source,question,answer,rating\nx," + BLANK.encode() + b",9,0\n",
            ":2: answer, column 1: character '9'",
        ),
        (b'source,question,answer,rating\nx,"....,,\n', ":2: unexpected end of data"),
    ],
)
def test_mistakes_in_a_file_name_line_and_column(call: Call, run_dir, tmp_path, content, message):
    path = tmp_path / "in.txt"
    path.write_bytes(content)
    code, out, err = call("solve", f"checkpoint={run_dir}", "--file", str(path))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}{message}") and err.count("\n") == 1


def test_no_traceback_as_a_command(run_script: Run, run_dir):
    done = run_script("solve.py", f"checkpoint={run_dir}", "12")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: puzzle 1: 2 characters, expected 16 (4x4)\n"


def test_a_reader_that_leaves_is_no_mistake(run_dir, data_4x4):
    options = [f"checkpoint={run_dir}", "--data", str(data_4x4), "--format", "json", "--trace"]
    command = subprocess.Popen(
        [sys.executable, str(ROOT / "solve.py"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    command.stdout.close()
    assert command.stderr.read() == "" and command.wait() == 141
    command.stderr.close()


def test_a_full_disk_is_reported_in_one_line(run_dir, data_4x4):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, str(ROOT / "solve.py"), f"checkpoint={run_dir}", BLANK],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr == "error: standard output: cannot be written (No space left on device)\n"


def test_a_closed_standard_input_is_no_puzzle(call: Call, run_dir, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    code, out, err = call("solve", f"checkpoint={run_dir}")
    assert (code, out) == (2, "") and err == "error: stdin: holds no puzzle\n"


@pytest.mark.parametrize(
    "word, is_puzzle",
    [
        ("53..7....", True),
        ("." * 81, True),
        ("###S  G##", True),
        ("8__________36_____", True),
        ("8----------36-----", True),
        ("8··········36·····", True),
        ("....\n12..\n....\n3..4", True),
        ("step_1200", False),
        ("checkpoints/one", False),
        ("sudoku-9x9", False),
        ("12345678", False),
    ],
)
def test_the_first_word_is_a_puzzle_or_a_checkpoint(word, is_puzzle):
    config = command.read([word, "1..."])
    assert (config.checkpoint is None) == is_puzzle
    assert config.puzzles == ((word, "1...") if is_puzzle else ("1...",))


def test_a_folder_whose_name_looks_like_a_puzzle_is_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2026.11.26").mkdir()
    assert command.read(["2026.11.26", "1..."]).puzzles == ("1...",)


@pytest.mark.parametrize("puzzle", ["0012003400000000", "1e10", "# S ${x}", "{a: b}", ""])
def test_puzzles_are_taken_literally(puzzle):
    config = command.read(["--votes", "3", puzzle, "checkpoint=x"])
    assert (config.puzzles, config.votes) == ((puzzle,), 3)


def test_a_puzzle_may_begin_with_a_dash_after_two_dashes():
    config = command.read(["x", "1...", "--votes", "2", "--", "--serve", "-.-.", "a=b/votes=3"])
    assert config.puzzles == ("1...", "--serve", "-.-.", "a=b/votes=3") and config.votes == 2


def test_more_attempts_are_named_where_there_was_one(call: Call, run_dir):
    for words, told in (((), True), (("--votes", "2"), False), (("--restarts", "1"), False)):
        code, _, err = call("solve", str(run_dir), BLANK, *words)
        assert code == 1 and (MORE + GUESSES + WAYS in err) == told
