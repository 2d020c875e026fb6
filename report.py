"""Summarise a training run: `python report.py run=checkpoints/<project>/<run>`.

Writes <run>/learning_curves.png and prints the final metrics.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from hrm.config import load_report_config
from hrm.errors import UserError, run_command
from hrm.training.metrics import METRICS_FILE
from hrm.viz import plot_learning_curves

CURVES_FILE = "learning_curves.png"
ROWS = (
    ("exact accuracy", "exact_accuracy", ".1%"),
    ("token accuracy", "accuracy", ".1%"),
    ("ACT steps", "steps", ".1f"),
    ("lm_loss", "lm_loss", ".4f"),
    ("q_halt_accuracy", "q_halt_accuracy", ".1%"),
    ("sequences", "count", ",.0f"),
)

BEYOND_ANY_METRIC = 1e100  # a finite number as large as this is damage, and cannot be drawn

Record = dict[str, float]


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    run = load_report_config(sys.argv[1:]).run
    records = read_records(run / METRICS_FILE)
    path = run / CURVES_FILE
    try:
        plot_learning_curves(records, path, title=run.resolve().name)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    print(summary(records))
    print(f"learning curves: {path}")


def read_records(path: Path) -> list[Record]:
    """Read `metrics.jsonl`; a last line that was cut off is left out, with a note on stderr.

    Raises:
        UserError: it is missing, holds nothing, or a line is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: not found; run= must name the folder of a run") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    records = []
    for number, line in enumerate(lines, 1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif line and number == len(lines):
            print(f"note: {path}:{number}: cut off; left out", file=sys.stderr)
        elif line.strip():
            raise UserError(f"{path}:{number}: damaged; delete that line")
    if not records:
        raise UserError(f"{path}: holds no metrics yet")
    return records


def _parse(line: str) -> Record | None:
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


def summary(records: Sequence[Record]) -> str:
    """A table of the newest metrics, evaluation beside training, and the best evaluation."""
    newest = {split: last_of(records, split) for split in ("eval", "train")}
    newest = {split: record for split, record in newest.items() if record}
    lines = [" " * 16 + "".join(f"{split:>12}" for split in newest)]
    lines.append(f"{'step':<16}" + "".join(f"{r['step']:>12,.0f}" for r in newest.values()))
    for label, name, style in ROWS:
        values = [record.get(f"{split}/{name}") for split, record in newest.items()]
        shown = ("-" if value is None else format(value, style) for value in values)
        lines.append(f"{label:<16}" + "".join(f"{text:>12}" for text in shown))
    if best := best_evaluation(records):
        accuracy = best["eval/exact_accuracy"]
        lines.append(f"best eval exact accuracy: {accuracy:.1%} at step {best['step']:,.0f}")
    else:
        lines.append("no evaluation yet")
    return "\n".join(lines)


def last_of(records: Sequence[Record], split: str) -> Record:
    """The newest record with metrics of a split, {} where there is none."""
    found = (r for r in reversed(records) if any(name.startswith(f"{split}/") for name in r))
    return next(found, {})


def best_evaluation(records: Sequence[Record]) -> Record | None:
    """The first record with the highest exact accuracy, None without an evaluation."""
    evaluated = [r for r in records if math.isfinite(r.get("eval/exact_accuracy", math.nan))]
    return max(evaluated, key=lambda r: r["eval/exact_accuracy"], default=None)


if __name__ == "__main__":
    run_command(main)
