"""The page of a report: it is whole HTML, takes nothing from elsewhere, and escapes everything."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hrm.data.grid import Grid
from hrm.inference.inside import Inside, path_of
from hrm.report.page import page
from hrm.report.runs import RunReport, Solved, differences, flatten
from hrm.tasks import Difficulty

HOSTILE = '"><script>alert(1)</script>&amp;\x1b[2J\x00$x^2$\ud800'
LOOK = Grid((4, 4), (2, 2), ".1234")
RIGHT = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1])
VOID = {"meta", "link", "img", "br", "hr", "input"}
RECORDS = [
    {"step": step, f"{split}/lm_loss": 1 / step, f"{split}/exact_accuracy": 0.01 * step}
    for step in range(1, 60)
    for split in ("train", "eval")
]


class Checked(HTMLParser):
    """Checks that tags are closed in order and ids are unique; collects what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open
        assert len(set(self.ids)) == len(self.ids)
        assert {link[1:] for link in self.links} <= set(self.ids)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on") and name not in ("src", "srcset", "action")
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                assert (value or "").startswith("#")
                self.links.append(value or "")
        if tag == "svg":
            assert dict(attributes).get("aria-label") or dict(attributes).get("aria-hidden")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def solved(count: int = 20, failures: int = 7, look: Grid = LOOK) -> Solved:
    cells = look.shape[0] * look.shape[1]
    rng = np.random.default_rng(0)
    answers = np.tile(np.resize(RIGHT, cells), (count, 1))
    inputs = np.where(rng.random(answers.shape) < 0.5, answers, 0)
    tokens = answers.copy()
    for n in range(failures):
        tokens[n, : n + 1] = answers[n, : n + 1] % 4 + 1
    wrong = np.stack([np.full(count, 5), (tokens != answers).sum(axis=1)], axis=1)
    return Solved(
        look,
        [f"{HOSTILE}/test[{n}]" for n in range(count)],
        inputs,
        answers,
        tokens,
        wrong,
        rng.random((count, 2)).astype(np.float32),
        rng.integers(1, 4, size=count),
        3,
        wrong[:, 1] == 0,
        0.9,
        Difficulty(np.arange(count), 1000, "guesses", "Difficulty is the number of guesses.")
        if "." in look.symbols
        else None,
    )


def report(name: str, **changes: object) -> RunReport:
    run = RunReport(name, Path("x"), RECORDS, {"lr": "0.1", "a.b": name}, None, None, None, None)
    return replace(run, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["night", HOSTILE])
def test_page_is_whole_and_loads_nothing(name):
    runs = [
        report(name, solved=solved(), data=Path(name), notes=[name], weights=5),
        report("bare", config=None, notes=["No model."]),
        report("maze", solved=solved(look=Grid((4, 5), None, "# SGo"))),
        report("fine", solved=solved(failures=0)),
    ]
    text = page(runs)
    text.encode()
    parsed = Checked(text)
    assert "script" not in parsed.tags and "link" not in parsed.tags and "img" not in parsed.tags
    for elsewhere in ("http:", "https:", "//", "@import", "url(&", "url(h", "data:"):
        assert elsewhere not in text
    assert "#0101" not in text and "#0102" not in text  # every colour is one of the style sheet
    assert "\x1b" not in text and "\x00" not in text
    shown = "".join(parsed.words)
    assert "4 runs compared" in shown and "No model." in shown
    assert shown.count("Difficulty is the number of guesses") == 2  # not of the maze
    assert "All 20 puzzles are solved" in shown and "7 of 20 puzzles" in shown
    assert "<script>alert(1)</script>" in shown  # as text: places of puzzles are hostile too


def test_page_is_the_same_for_the_same_runs():
    assert page([report("a", solved=solved())]) == page([report("a", solved=solved())])


def test_worst_failure_is_drawn_with_its_wrong_cells():
    text = page([report("a", solved=solved(failures=1))])
    assert text.count('<rect class="mistake"') == 1
    assert "test[0]: most wrong cells" in text and "1 of 16 cells wrong" in text


def test_more_steps_than_in_training_have_bars_of_their_own():
    text = page([report("a", solved=replace(solved(), learned_most=5))])
    assert '<th scope="row">5</th><td>0</td><td>0</td>' in text and "5 at most" in text


def looked_into() -> dict[int, Inside]:
    """Of two puzzles and two states: one that goes 3 and 1, one that rests."""
    still, moving = np.ones((3, 4), np.float32), np.array([[0.0], [3.0], [4.0]], np.float32)
    paths = path_of("z_H", moving), path_of("z_L", still)
    shares = np.array([[0.0] * 15 + [1.0], [0.0, 0.5, 0.0, 0.5] + [0.0] * 12], np.float32)
    return {
        0: Inside(paths, 6, {"L_level.layers.0": shares[::-1], "L_level.layers.1": shares}),
        9: Inside(paths, 0, {"L_level.layers.0": shares, "L_level.layers.1": shares}),
    }


def test_states_are_shown_of_the_puzzles_that_were_looked_into():
    text = page([report("a", solved=replace(solved(), inside=looked_into()))])
    shown = "".join(Checked(text).words)
    assert "z_H, test[0] not solved" in shown and "z_L, test[9] solved" in shown
    assert '<th scope="row">1</th><td>3</td><td>0</td><td>3</td><td>0</td>' in text
    assert '<th scope="row">2</th><td>1</td><td>0</td><td>1</td><td>0</td>' in text
    assert "hold 100% and 100% of its variance" in shown
    assert "How far a step moves" not in page([report("a", solved=solved())])


def test_attention_is_shown_from_one_cell():
    text = page([report("a", solved=replace(solved(), inside=looked_into()))])
    shown = "".join(Checked(text).words)
    most = "row 4, column 4 (50%), row 1, column 2 (25%), row 1, column 4 (25%)."
    assert f"test[0] not solved: row 2, column 3 attends most to {most}" in shown
    assert f"test[9] solved: row 1, column 1 attends most to {most}" in shown
    assert "block L_level.layers.1, mean of its 2 heads" in shown
    shades = re.findall(r'<rect class="heat" fill-opacity="([^"]*)" x="(\d+)" y="(\d+)"', text)
    assert len(shades) == 32
    assert [s for s in shades[:16] if s[0] != "0.00"] == [
        ("0.25", "20", "0"),
        ("0.25", "60", "0"),
        ("0.50", "60", "60"),
    ]
    frames = re.findall(
        r'<rect class="frame" style="stroke:var\(--ink\)" x="(\d+)" y="(\d+)"', text
    )
    assert frames == [("41", "21"), ("1", "1")]


def test_models_without_attention_have_no_picture_of_it():
    inside = {n: replace(seen, attention={}) for n, seen in looked_into().items()}
    assert "attends" not in page([report("a", solved=replace(solved(), inside=inside))])


def test_every_chart_has_its_numbers_as_a_table():
    text = page([report("a", solved=replace(solved(), inside=looked_into()))])
    assert text.count("<summary>The numbers</summary>") == text.count('<svg class="chart"')
    assert '<th scope="row">16–31</th><td>4</td><td>4</td>' in text


def test_what_is_not_known_is_a_dash():
    text = page([report("a", records=[{"step": 3}])])
    Checked(text)
    assert '<th scope="row">weights</th><td>–</td>' in text


def test_many_runs_have_lines_of_their_own():
    from hrm.viz.html import run_style

    assert len({run_style(n) for n in range(40)}) == 40


def test_differences_of_configurations():
    flat = flatten({"lr": 1.0, "arch": {"loss": {"name": "x"}, "layers": [1]}})
    assert flat == {"lr": "1.0", "arch.loss.name": "x", "arch.layers": "[1]"}
    other = flat | {"lr": "2.0", "new": "1"}
    assert differences([flat, None, other]) == {
        "lr": ["1.0", None, "2.0"],
        "new": [None, None, "1"],
    }
    assert differences([flat, dict(flat)]) == {}
