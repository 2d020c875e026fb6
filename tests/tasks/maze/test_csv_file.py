"""Mazes of CSV files: read as they are, and every mistake named where it is."""

from pathlib import Path

import numpy as np
import pytest

from hrm.errors import UserError
from hrm.tasks.maze.csv_file import CsvMazes, parse_csv

from ...mutations import BYTE_MUTATIONS, assert_one_line, pick

ROWS, SOLVED = (
    ("S #  ", "  #  ", " ##  ", "    G", "     "),
    ("S #  ", "o #  ", "o##  ", "ooooG", "     "),
)
QUESTION, ANSWER = "".join(ROWS), "".join(SOLVED)
OTHER = QUESTION[::-1], ANSWER[::-1]
PLAIN = f"source,question,answer,rating\nx,{QUESTION},{ANSWER},7\n"
CASES = 300


def read(path: Path, content: str | bytes) -> CsvMazes:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return parse_csv(path)


DRAWN, DRAWN_ANSWER = '"' + "\n".join(ROWS) + '"', '"' + "\r\n".join(SOLVED) + '"'
READ = {
    "as published": PLAIN,
    "without other columns": f"question,answer\n{QUESTION},{ANSWER}\n",
    "Windows, a mark": PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
    "UTF-16": PLAIN.encode("utf-16"),
    "semicolons": PLAIN.replace(",", ";"),
    "quotes": PLAIN.replace(",", '","').replace("\nx", '\n"x').replace("7\n", '7"\n')
    .replace("source", '"source').replace("rating\n", 'rating"\n'),
    "drawn over lines": PLAIN.replace(QUESTION, DRAWN).replace(ANSWER, DRAWN_ANSWER),
    "the question last": f"answer,question\n{ANSWER},{QUESTION}\n",
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_spaces_are_cells_at_both_ends_of_a_field(tmp_path, name):
    mazes = read(tmp_path / "train.csv", READ[name])
    assert mazes.shape == (5, 5) and mazes.questions.dtype == np.uint8
    for tokens, text in ((mazes.questions, QUESTION), (mazes.answers, ANSWER)):
        assert ["".join("_# SGo"[token] for token in row) for row in tokens] == [text]
    assert mazes.lines.tolist() == [10 if "drawn" in name else 2]  # where the row ends


def row(question: str = QUESTION, answer: str = ANSWER) -> str:
    return f"{PLAIN}y,{question},{answer},0\n"


def changed(text: str, cell: int, symbol: str) -> str:
    return text[:cell] + symbol + text[cell + 1 :]


GOAL = QUESTION.index("G")
WALLED = "".join(("S #  ", "  #  ", "###  ", "    G", "     "))
REFUSED = {
    "no goal": (row(changed(QUESTION, GOAL, " ")), ":3: question: no goal; one cell must be G"),
    "no start": (row(" " + QUESTION[1:]), ":3: question: no start; one cell must be S"),
    "two starts": (row(changed(QUESTION, 9, "S")), ":3: question, column 10: a second start (S)"),
    "two goals": (row(changed(QUESTION, 23, "G")), ":3: question, column 24: a second goal (G)"),
    "no way": (row(WALLED), ":3: question: there is no way from S to G"),
    "path in the question": (row(changed(QUESTION, 1, "o")), ":3: question, column 2: "),
    "unknown character": (row(changed(QUESTION, 6, "x")), ":3: question, column 7: character 'x'"),
    "padding": (row(changed(QUESTION, 6, "_")), ":3: question, column 7: character '_'"),
    "unknown in the answer": (row(answer=changed(ANSWER, 1, ".")), ":3: answer, column 2: "),
    "not a byte of UTF-8": (
        row(changed(QUESTION, 6, "é")).encode("latin-1"), ":3: question, column 7: byte 0xe9"),
    "too short": (row(QUESTION[:-1]), ":3: question: 24 characters, expected 25 (5x5)"),
    "spaces are gone": (row(answer=ANSWER.rstrip()), ":3: answer: 20 characters, expected 25"),
    "no square": ("question,answer\n####SG,####SG\n", ":2: question: 6 characters are"),
    "uneven lines": (
        row('"' + "\n".join([*ROWS[:4], "   "]) + '"'), ": question: 23 characters, expected 25"),
    "no answer": (row(answer=""), ":3: answer: 0 characters, expected 25"),
    "the maze itself": (row(answer=QUESTION), ":3: answer: its o do not lead from S to G"),
    "a gap": (row(answer=changed(ANSWER, 10, " ")), ":3: answer: its o do not lead from S to G"),
    "too many": (
        row(answer=changed(ANSWER, 6, "o")),
        ":3: answer: is not a shortest path: 7 cells are o, 6 are enough"),
    "a wall is gone": (row(answer=changed(ANSWER, 2, " ")), ":3: answer, column 3: ' ' where"),
    "through a wall": (row(answer=changed(ANSWER, 2, "o")), ":3: answer, column 3: 'o' where"),
    "the start is gone": (row(answer=" " + ANSWER[1:]), ":3: answer, column 1: ' ' where"),
    "twice": (row(), ":3: same question as in line 2"),
    "another size": (row("S  G", "SooG"), ":3: question: 4 characters, expected 25"),
    "too few fields": (PLAIN + "x,y\n", ":3: 2 fields, expected 4"),
    "missing column": (f"source,question\nx,{QUESTION}\n", ":1: the first line must name columns"),
    "header only": ("question,answer\n", ": holds no mazes"),
    "empty": ("", ":1: the first line must name columns"),
    "no header": (f"x,{QUESTION},{ANSWER},7\n", ":1: the first line must name columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named_where_it_is_wrong(tmp_path, name):
    content, reason = REFUSED[name]
    path = tmp_path / "train.csv"
    with pytest.raises(UserError) as caught:
        read(path, content)
    assert str(caught.value).startswith(str(path)) and reason in str(caught.value)
    assert_one_line(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="train.csv: not found"):
        parse_csv(tmp_path / "train.csv")
    (tmp_path / "train.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        parse_csv(tmp_path / "train.csv")


def test_any_damage_is_one_line_or_leaves_right_mazes(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "train.csv"
    data = row(*OTHER).encode()
    refused = 0
    for _ in range(CASES):
        mutated = data
        for _ in range(rng.integers(1, 4)):
            mutated = pick(rng, BYTE_MUTATIONS)(mutated, rng) or data
        try:
            mazes = read(path, mutated)
        except UserError as error:
            assert_one_line(error, str(path))
            refused += 1
            continue
        for question, answer in zip(mazes.questions, mazes.answers, strict=True):
            assert ((question == answer) | ((question == 2) & (answer == 5))).all()
            assert (question == 3).sum() == (question == 4).sum() == 1
    assert CASES / 2 < refused < CASES
