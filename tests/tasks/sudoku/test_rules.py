from pathlib import Path

import numpy as np
import pytest

from hrm.errors import UserError
from hrm.tasks.sudoku.csv_file import parse_csv
from hrm.tasks.sudoku.rules import is_valid_solution, parse_box_shape, usual_box_shape

ANSWER = "1234341221434321"
QUESTION = "1...3.1..14....1"
HEADER = "source,question,answer,rating\n"
REAL_CSV = Path(__file__).parents[4] / "shared/data/sudoku-extreme-1k/train.csv"


def write_csv(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "train.csv"
    path.write_text(header + "".join(row + "\n" for row in rows), encoding="latin-1")
    return path


def row(question: str = QUESTION, answer: str = ANSWER, rating: str = "0") -> str:
    return f"me,{question},{answer},{rating}"


def swap(text: str, place: int, character: str) -> str:
    return text[:place] + character + text[place + 1 :]


@pytest.mark.parametrize(
    ("cells", "box_shape"),
    [(16, (2, 2)), (36, (2, 3)), (64, (2, 4)), (81, (3, 3)), (256, (4, 4)), (144, (3, 4))],
)
def test_box_shape_follows_from_the_cells(cells: int, box_shape: tuple[int, int]) -> None:
    assert usual_box_shape(cells) == box_shape


@pytest.mark.parametrize("cells", [0, 1, 4, 9, 17, 25, 49, 80, 26**2])
def test_other_sizes_have_no_box_shape(cells: int) -> None:
    assert usual_box_shape(cells) is None


def test_box_shape_is_rows_by_columns() -> None:
    assert parse_box_shape("2x3") == (2, 3)
    for wrong in ("", "3", "x", "2x", "1x4", "-2x3", "9x9", "2x3x4", "²x2"):
        with pytest.raises(UserError):
            parse_box_shape(wrong)


def test_valid_solution_checks_rows_columns_boxes_and_range() -> None:
    latin_without_boxes = "1234234134124123"
    grids = np.array(
        [
            list(map(int, text))
            for text in (ANSWER, latin_without_boxes, swap(ANSWER, 5, "1"), swap(ANSWER, 0, "0"))
        ]
    )
    grids = np.concatenate([grids, grids[:1] + 1, grids[:1] - 2])
    assert is_valid_solution(grids, (2, 2)).tolist() == [True, False, False, False, False, False]


def test_boxes_of_two_rows_and_three_columns_differ_from_three_by_two() -> None:
    grid = np.array([list(map(int, "123456456123231564564231312645645312"))])
    assert is_valid_solution(grid, (2, 3)).all()
    assert not is_valid_solution(grid, (3, 2)).any()


def test_reads_dots_and_zeros_as_blanks(tmp_path: Path) -> None:
    path = write_csv(tmp_path, row(), "", row(QUESTION.replace(".", "0", 3)[:-1] + ".", rating="7"))
    puzzles = parse_csv(path, with_ratings=True)
    assert puzzles.box_shape == (2, 2)
    assert puzzles.questions[0].tolist() == [1, 0, 0, 0, 3, 0, 1, 0, 0, 1, 4, 0, 0, 0, 0, 1]
    assert puzzles.questions[1, :-1].tolist() == puzzles.questions[0, :-1].tolist()
    assert puzzles.answers[1].tolist() == list(map(int, ANSWER))
    assert puzzles.questions.dtype == puzzles.answers.dtype == np.uint8
    assert puzzles.ratings.tolist() == [0, 7]
    assert puzzles.lines.tolist() == [2, 4]


def test_reads_byte_order_mark_carriage_returns_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    text = "\ufeff" + HEADER + f'"a, b",{QUESTION},{ANSWER},0\n'
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert len(parse_csv(path).questions) == 1


BAD_ROWS = {
    "short question": (row(question=QUESTION[1:]), "15 characters"),
    "long answer": (row(answer=ANSWER + "1"), "17 characters"),
    "too few fields": (f"me,{QUESTION},{ANSWER}", "3 fields"),
    "too many fields": (row() + ",x", "5 fields"),
    "letter": (row(question=swap(QUESTION, 1, "x")), "question, column 2: character 'x'"),
    "digit too large": (row(question=swap(QUESTION, 1, "5")), "question, column 2: character '5'"),
    "not ASCII": (row(answer=swap(ANSWER, 1, "é")), "answer, column 2: byte 0xe9 is not UTF-8"),
    "blank in the answer": (row(answer=swap(ANSWER, 3, ".")), "not a solved grid"),
    "repeated digit": (row(answer=swap(ANSWER, 1, "1")), "not a solved grid"),
    "given differs": (row(question=swap(QUESTION, 1, "4")), "does not extend"),
    "rating": (row(question=swap(QUESTION, 0, "."), rating="hard"), "rating 'hard'"),
    "duplicate": (row(), "same question as in line 2"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_is_named(tmp_path: Path, name: str) -> None:
    bad, reason = BAD_ROWS[name]
    path = write_csv(tmp_path, row(), bad)
    with pytest.raises(UserError) as caught:
        parse_csv(path, with_ratings=True)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_first_of_several_bad_rows_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path, row(), BAD_ROWS["repeated digit"][0], "me,1,2,3", "x")
    with pytest.raises(UserError, match=r"train\.csv:3: answer is not"):
        parse_csv(path)


def test_ratings_matter_only_when_asked_for(tmp_path: Path) -> None:
    assert parse_csv(write_csv(tmp_path, row(rating="hard"))).ratings.tolist() == [0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", ":1: the first line must name"),
        (row() + "\n", ":1: the first line must name columns question and answer"),
        (HEADER, "holds no puzzles"),
        (HEADER + "me,123,123,0\n", ":2: a question of 3 characters"),
        (HEADER + "me\n", ":2: 1 fields, expected 4"),
        (HEADER + '"' + "x" * 200_000, "field larger"),
    ],
)
def test_bad_file_is_named(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=reason) as caught:
        parse_csv(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        parse_csv(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="is a folder"):
        parse_csv(tmp_path)


@pytest.mark.skipif(not REAL_CSV.exists(), reason="the real puzzles are not here")
def test_reads_the_real_puzzles() -> None:
    puzzles = parse_csv(REAL_CSV, with_ratings=True)
    assert puzzles.questions.shape == puzzles.answers.shape == (1000, 81)
    assert puzzles.box_shape == (3, 3)
