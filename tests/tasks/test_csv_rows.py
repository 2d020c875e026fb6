"""CSV files as people have them: builder and solver read the same, and refuse the same."""

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hrm.errors import UserError
from hrm.inference.sources import read_lines
from hrm.tasks import csv_rows, task_of
from hrm.tasks.sudoku.csv_file import parse_csv

from ..inference.test_solver import metadata

TASK = task_of(metadata())
QUESTION, ANSWER = "....12......3..4", "4312124324313124"
PLAIN = f"source,question,answer,rating\nx,{QUESTION},{ANSWER},3\n"
KAGGLE = f"quizzes,solutions\n{QUESTION.replace('.', '0')},{ANSWER}\n"
DRAWN = "\n".join("|".join((row[:2], row[2:])) for row in ("....", "12..", "....", "3..4"))
COMMAS = "read as CSV with commas"

# Content, and what is said of it.
READ: dict[str, tuple[str | bytes, str]] = {
    "as published": (PLAIN, ""),
    "Windows": (PLAIN.replace("\n", "\r\n"), ""),
    "old Macintosh": (PLAIN.replace("\n", "\r"), ""),
    "no last line end": (PLAIN.rstrip(), ""),
    "blank lines": (f"\n \n{PLAIN}\n\n ,,,\n".replace("x,", "\nx,"), ""),
    "byte-order mark": (PLAIN.encode("utf-8-sig"), ""),
    "quotes": ('"' + PLAIN.rstrip().replace(",", '","').replace("\n", '"\r\n"') + '"\r\n', ""),
    "quotes and a mark": (b'\xef\xbb\xbf"question","answer"\n"%s","%s"' % (
        QUESTION.encode(), ANSWER.encode()), COMMAS),
    "UTF-16": (PLAIN.encode("utf-16"), "read as UTF-16"),
    "UTF-16, the other way round": (b"\xfe\xff" + PLAIN.encode("utf-16-be"), "read as UTF-16"),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), "read as UTF-16-LE"),
    "UTF-32": (PLAIN.encode("utf-32"), "read as UTF-32"),
    "Kaggle": (KAGGLE, "questions in 'quizzes', answers in 'solutions'"),
    "capitals and spaces": (KAGGLE.replace("quizzes,", " Puzzle , "), "in 'puzzle'"),
    "another order": (f"id,Solution,Puzzle,clues\n7,{ANSWER},{QUESTION},4\n", "in 'solution'"),
    "semicolons": (PLAIN.replace(",", ";"), "read as CSV with semicolons"),
    "tabs": (PLAIN.replace(",", "\t"), "read as CSV with tabs"),
    "separators at the end": (PLAIN.replace(",3\n", ",3,,\n"), ""),
    "middle dots": (PLAIN.replace(".", "·"), ""),
    "bullets and ellipses": (PLAIN.replace("....", "…•"), ""),
    "underscores, dashes and asterisks": (PLAIN.replace("..", "_*").replace(".", "-"), ""),
    "drawn in a field": (PLAIN.replace(QUESTION, f'"{DRAWN}"'), ""),
    "a source in Latin-1": (PLAIN.replace("x,", "é,").encode("latin-1"), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_builder_and_solver_read_alike(tmp_path, capsys, name):
    content, said = READ[name]
    path = tmp_path / "train.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    built = parse_csv(path)
    from_builder = capsys.readouterr().err
    [solved] = read_lines(path, TASK)
    for question, answer in (
        (built.questions[0], built.answers[0]),
        (solved.inputs, solved.answer),
    ):
        assert TASK.grid.text(question) == QUESTION
        assert TASK.grid.text(answer) == ANSWER
    assert from_builder == capsys.readouterr().err
    assert from_builder.count("\n") == bool(said) and said in from_builder
    assert solved.place == f"{path}:{built.lines[0]}"


def test_question_and_answer_are_spelled_alike(tmp_path, capsys):
    """Sixteen digits from 0 on: 0 is blank in neither, although the answer has no blank."""
    first = "0123456789ABCDEF"
    rows = [first[4 * (r % 4) + r // 4 :] + first[: 4 * (r % 4) + r // 4] for r in range(16)]
    path, answer = tmp_path / "large.csv", "".join(rows)
    path.write_text(f"puzzle,solution\n{'.' * 16}{answer[16:]},{answer}\n")
    built = parse_csv(path)
    [solved] = read_lines(path, task_of(metadata(vocab_size=17, seq_len=256)))
    for tokens in (built.answers[0], solved.answer):
        assert tokens[:4].tolist() == [16, 1, 2, 3]
    assert built.questions[0, 16:].tolist() == built.answers[0, 16:].tolist()
    np.testing.assert_array_equal(built.questions[0], solved.inputs)
    assert capsys.readouterr().err.count("large.csv:2: 0 is read as a digit, G,") == 2


REFUSED = {
    "two questions": (KAGGLE.replace("solutions", "puzzle"), ":1: both quizzes and puzzle may"),
    "NUL": (PLAIN.replace("12.", "12\0"), ":2: question, column 7: character '\\x00' is not one"),
    "a byte of Latin-1": (
        PLAIN.replace("12.", "12·").encode("latin-1"),
        ":2: question, column 7: byte 0xb7 is not UTF-8; save the file as UTF-8",
    ),
    "UTF-16 cut off": (PLAIN.encode("utf-16")[:-1], ": begins as UTF-16, but is not"),
    "too few fields": (PLAIN + "x,y\n", ":3: 2 fields, expected 4 (source,question,answer,rating)"),
    "too many fields": (PLAIN + "x,y,z,0,1\n", ":3: 5 fields, expected 4"),
    "a quote that does not end": (PLAIN.replace("x,", 'x,"'), ":2: unexpected end of data"),
    "text behind a quote": (PLAIN.replace("x,", '"x"y,'), ":2: ',' expected after '\"'"),
    "a wrong answer": (PLAIN.replace("4312", "431x"), ":2: answer, column 4: character 'x'"),
    "two puzzles a field": (PLAIN.replace(QUESTION, QUESTION * 2), ":2: question: 32 characters"),
    "header only": ("source,question,answer,rating\n", ": holds no puzzle"),
    "empty": ("", ""),
    "no names": (f"x,{QUESTION},{ANSWER},3\n", "first line must name"),
    "names of something else": (f"a,b\n{QUESTION},{ANSWER}\n", "first line must name"),
    "a very long first line": ("x" * 200_000, ":1"),
    "a very long line": (PLAIN + "x" * 200_000, ":3: field larger than field limit (131072)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("read", [parse_csv, lambda path: read_lines(path, TASK)])
def test_what_is_wrong_is_named_where_it_is_wrong(
    tmp_path: Path, name: str, read: Callable[[Path], object]
):
    content, reason = REFUSED[name]
    path = tmp_path / "train.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and reason in message and "\n" not in message


def test_a_line_without_end_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "LONGEST_LINE", 64)
    path = tmp_path / "train.csv"
    path.write_text(f"question,answer{',x' * 40}\n{QUESTION},{ANSWER}{',' * 40}\n")
    with pytest.raises(UserError, match="first line must name"):
        parse_csv(path)


def test_answers_are_needed_to_build_but_not_to_solve(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(f"question\n{QUESTION}\n")
    [puzzle] = read_lines(path, TASK)
    assert puzzle.answer is None and TASK.grid.text(puzzle.inputs) == QUESTION
    with pytest.raises(UserError, match=":1: the first line must name columns question and answer"):
        parse_csv(path)


def test_ratings_are_needed_where_they_are_asked_for(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(KAGGLE)
    with pytest.raises(UserError, match="columns question, answer and rating"):
        parse_csv(path, with_ratings=True)
    path.write_text(f"difficulty,puzzle,solution\n7,{QUESTION},{ANSWER}\n")
    assert parse_csv(path, with_ratings=True).ratings.tolist() == [7]


def test_answers_of_a_model_do_not_count(tmp_path, capsys):
    path = tmp_path / "solved.csv"
    header = "puzzle,answer,solved,valid,steps,halt_probability"
    path.write_text(f"{header}\n{QUESTION},{ANSWER},True,True,2,0.9\n")
    [puzzle] = read_lines(path, TASK)
    assert puzzle.answer is None
    assert "no answers that count, since they are a model's" in capsys.readouterr().err
    with pytest.raises(UserError, match="must name columns question and answer"):
        parse_csv(path)


def test_a_disk_that_fills_meanwhile_is_not_the_files_fault(tmp_path):
    (tmp_path / "a.csv").touch()
    with pytest.raises(OSError, match="full"), csv_rows.open_text(tmp_path / "a.csv"):
        raise OSError(errno.ENOSPC, "full")
