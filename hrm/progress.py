"""How far long work is: a bar on a terminal, a whole line now and then anywhere else, on stderr."""

import os
import sys
from typing import TextIO

from tqdm import tqdm

SHORT_SECONDS = 2  # work that takes no longer shows nothing
LINE_SECONDS = 12  # between lines, where there is no terminal
BAR = "{percentage:3.0f}%|{bar:20}| "
TIMES = "{elapsed}<{remaining}"


class Progress:
    """Progress of one piece of work.

    Args:
        what: is counted, such as "puzzles solved".
        total: how many there are.
        done: how many of them are done before.
        enabled: False shows nothing.
        lasting: shown from the beginning, and left on the screen at the end.
        in_bursts: many are done at once, and then none for long; the time that remains follows from
            all that passed, instead of what was done of late.
    """

    def __init__(
        self,
        what: str,
        total: int,
        done: int = 0,
        enabled: bool = True,
        lasting: bool = False,
        in_bursts: bool = False,
    ):
        self._total = total
        on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._bar = tqdm(
            initial=done,
            total=total,
            disable=not (enabled and total),
            file=sys.stderr if on_terminal else _Lines(sys.stderr),
            leave=lasting,
            delay=0 if on_terminal and lasting else SHORT_SECONDS,
            mininterval=0.5 if on_terminal else LINE_SECONDS,
            miniters=0,
            smoothing=0 if in_bursts else 0.3,  # tqdm's own
            dynamic_ncols=on_terminal,
            bar_format=f"{BAR if on_terminal else '{percentage:3.0f}% '}{what} "
            f"{{n:,.0f}}/{{total:,}}{{postfix}}, {TIMES}",
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rate(self) -> float | None:
        """Of late, per second; None where it is not known or nothing is shown."""
        rate: float | None = None if self._bar.disable else self._bar.format_dict["rate"]
        return rate

    def update(self, count: float = 1, shown: str = "") -> None:
        """So many more are done.

        Args:
            shown: stands behind the numbers from now on, if not empty.
        """
        if shown:
            self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(min(count, self._total - self._bar.n))

    def set(self, done: int) -> None:
        """So many are done, which may be fewer than was said; shown at the next update."""
        self._bar.n = self._bar.last_print_n = done

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """What a bar draws over and over again, as lines."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip()
        if text.startswith("\r") and line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, above a bar that is on the screen; to standard output by default."""
    stream = stream or sys.stdout
    tqdm.write(line, file=stream)
    stream.flush()
