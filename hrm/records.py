"""The lines of a run's `metrics.jsonl`, read back."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from hrm.errors import UserError
from hrm.files import looked_in, not_a_folder

METRICS_FILE = "metrics.jsonl"
BEYOND_ANY_METRIC = 1e100  # a finite number as large as this is damage, and cannot be drawn

Record = dict[str, float]


def read_records(path: Path) -> list[Record]:
    """Read `metrics.jsonl`; a last line that was cut off is left out, with a note on stderr.

    Raises:
        UserError: it is missing, holds nothing, or a line is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        folder = path.parent
        inside = folder.parent if (folder.parent / path.name).is_file() else None
        named = "the folder of a run" + (f", here {inside}" if inside else "")
        if folder.is_file():
            raise UserError(f"{folder}: {not_a_folder(folder, named)}") from None
        raise UserError(f"{path}: not found{looked_in(path)}; name {named}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    records = []
    for number, line in enumerate(lines, 1):
        record = parse_record(line)
        if record is not None:
            records.append(record)
        elif line and number == len(lines):
            print(f"note: {path}:{number}: cut off; left out", file=sys.stderr)
        elif line.strip():
            raise UserError(f"{path}:{number}: damaged; delete that line")
    if not records:
        raise UserError(f"{path}: holds no metrics yet")
    return records


def parse_record(line: str | bytes) -> Record | None:
    """The numbers of a line, None where it is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    numbers = {
        name: value
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if any(BEYOND_ANY_METRIC <= abs(value) != math.inf for value in numbers.values()):
        return None
    return numbers if math.isfinite(numbers.get("step", math.nan)) else None


def last_of(records: Sequence[Record], split: str) -> Record:
    """The newest record with metrics of a split, {} where there is none."""
    found = (r for r in reversed(records) if any(name.startswith(f"{split}/") for name in r))
    return next(found, {})


def best_evaluation(records: Sequence[Record], metric: str) -> Record | None:
    """The first record with the highest `eval/<metric>`, None without an evaluation."""
    name = f"eval/{metric}"
    evaluated = [r for r in records if math.isfinite(r.get(name, math.nan))]
    return max(evaluated, key=lambda r: r[name], default=None)
