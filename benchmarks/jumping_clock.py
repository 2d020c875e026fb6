"""Run a script under a clock that someone sets: forwards, or backwards, while it runs.

    python benchmarks/jumping_clock.py FILE SCRIPT [ARGUMENT …]

The time of day is off by the seconds that FILE holds. What was seen of it is appended to
FILE.seen, a line each time that it changes. The machine's clock stays, and with it the times of
files; clocks that count from a machine's start never jump, and do not here.
"""

import datetime
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path


def seen_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.seen")


def clock(file: Path, time_of_day: Callable[[], float]) -> Callable[[], float]:
    """`time_of_day`, off by what `file` says."""
    last = ""

    def now() -> float:
        nonlocal last
        text = file.read_text() if file.is_file() else ""
        if text and text != last:
            last = text
            with seen_file(file).open("a") as seen:
                seen.write(f"{text}\n")
        return time_of_day() + float(last or 0)

    return now


def main() -> None:
    file, script = Path(sys.argv[1]), Path(sys.argv[2])
    now = clock(file, time.time)

    class Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Datetime":
            return cls.fromtimestamp(now(), tz)

    time.time = now
    time.time_ns = lambda: int(now() * 1e9)
    datetime.datetime = Datetime  # type: ignore[misc]
    sys.argv = sys.argv[2:]
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
