"""Progress: a bar on a terminal, whole lines elsewhere, nothing for what is short."""

import io
import sys

import pytest

from hrm import progress
from hrm.progress import Progress, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch, stream: io.StringIO, seconds: float = 0.0, **options: bool) -> str:
    """What 100 steps print to standard error."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "SHORT_SECONDS", seconds)
    monkeypatch.setattr(progress, "LINE_SECONDS", seconds)
    with Progress("puzzles solved", 100, **options) as bar:
        for _ in range(50):
            bar.update(2, shown="loss 0.5")
    return stream.getvalue()


def test_lines_where_there_is_no_terminal(monkeypatch):
    text = shown(monkeypatch, io.StringIO(), lasting=True)
    lines = text.splitlines()
    assert "\r" not in text and "\x1b" not in text and text.endswith("\n")
    assert len(lines) >= 50 and all(line == line.strip() and line for line in lines)
    assert lines[-1].startswith("100% puzzles solved 100/100, loss 0.5, ")


@pytest.mark.parametrize("in_bursts", [True, False])
def test_what_remains_where_nothing_is_done_for_long(monkeypatch, in_bursts):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("puzzles made", 100, in_bursts=in_bursts) as made:
        bar = made._bar
        bar.start_t = bar.last_print_t = 0.0
        for now, count in ((20.0, 10), (200.0, 0)):
            bar._time = lambda now=now: now
            made.update(count)
    last = sys.stderr.getvalue().splitlines()[-1]
    assert last.endswith("10/100, 03:20<30:00" if in_bursts else "10/100, 03:20<03:00")


def test_lines_on_a_terminal_that_cannot_go_back(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    text = shown(monkeypatch, Terminal())
    assert "\r" not in text and "puzzles solved 2/100" in text


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = shown(monkeypatch, Terminal())
    assert "\r" in text and "puzzles solved" in text
    assert text.rsplit("\r", 1)[1].strip() == "", "the bar is wiped away at the end"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nothing_for_what_is_short_or_not_wanted_or_nothing(monkeypatch, stream):
    assert shown(monkeypatch, stream(), seconds=60) == ""
    assert shown(monkeypatch, stream(), enabled=False) == ""
    with Progress("puzzles solved", 0) as bar:
        bar.update(0)
    assert sys.stderr.getvalue() == ""


def test_lines_are_a_few_a_minute():
    assert 3 <= 60 / progress.LINE_SECONDS <= 6


def test_never_more_than_all(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "SHORT_SECONDS", 0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    with Progress("rows", 3) as bar:
        bar.update(2.5)
        bar.set(2)
        bar.update(2)
    assert sys.stderr.getvalue().splitlines()[-1].startswith("100% rows 3/3,")


def test_say_is_written_at_once(tmp_path):
    with (tmp_path / "log").open("w") as log:
        say("a line", log)
        assert (tmp_path / "log").read_text() == "a line\n"
