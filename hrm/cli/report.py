"""`hrm report`: runs compared on one page."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hrm.cli.options import SchemaCommand
from hrm.errors import UserError, write_output
from hrm.files import atomic_write
from hrm.records import last_of
from hrm.report.config import ReportConfig

if TYPE_CHECKING:
    from hrm.report.runs import RunReport

CURVES_FILE = "learning_curves.png"
REPORT_FILE = "report.html"
ROWS = (
    ("exact accuracy", "exact_accuracy", ".1%"),
    ("token accuracy", "accuracy", ".1%"),
    ("ACT steps", "steps", ".1f"),
    ("lm_loss", "lm_loss", ".4f"),
    ("q_halt_accuracy", "q_halt_accuracy", ".1%"),
    ("sequences", "count", ",.0f"),
)


HELP = """
hrm report checkpoints/quickstart/first
hrm report checkpoints/quickstart/* --output all.html

Compare runs on one HTML page: curves, accuracy, halting, calibration and
failures. The newest checkpoint of each solves puzzles. The page of one run is
written into its folder, with learning_curves.png.
"""


def run(read: Callable[[], ReportConfig]) -> None:
    """Read, solve, draw, and write the page."""
    config = read()
    path = config.output or (config.runs[0] if len(config.runs) == 1 else Path()) / REPORT_FILE
    if config.output is not None or path.parent.is_dir():
        refuse_output(path)
    from hrm.report.page import page
    from hrm.report.runs import read_runs

    runs = read_runs(config)
    for found in runs:
        table = summary(found)
        write_output(f"{table}\n" if len(runs) == 1 else f"{found.name}\n{table}\n\n")
        for note in found.notes:
            print(f"note: {found.name}: {note}", file=sys.stderr)
    if len(runs) == 1 and config.output is None:
        write_output(f"learning curves: {write_curves(runs[0])}\n")
    write_whole(path, page(runs))
    write_output(f"report: {path}\n")


def refuse_output(path: Path) -> None:
    """Say before the work that a page cannot be written.

    Raises:
        UserError: it would be a folder, or its folder does not exist, or may not be written.
    """
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"--output {path}: its folder may not be written; name a file elsewhere")


def write_curves(run: "RunReport") -> Path:
    """Write the learning curves into the run's folder.

    Raises:
        UserError: they cannot be written.
    """
    from hrm.viz import plot_learning_curves

    path = run.path / CURVES_FILE
    try:
        plot_learning_curves(run.records, path, title=run.path.resolve().name)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file in UTF-8 so that it is either whole or as it was.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None


def summary(run: "RunReport") -> str:
    """A table of the newest metrics, evaluation beside training, and the best evaluation."""
    records = run.records
    newest = {split: last_of(records, split) for split in ("eval", "train")}
    newest = {split: record for split, record in newest.items() if record}
    lines = [" " * 16 + "".join(f"{split:>12}" for split in newest)]
    lines.append(f"{'step':<16}" + "".join(f"{r['step']:>12,.0f}" for r in newest.values()))
    for label, name, style in ROWS:
        values = [record.get(f"{split}/{name}") for split, record in newest.items()]
        shown = ("-" if value is None else format(value, style) for value in values)
        lines.append(f"{label:<16}" + "".join(f"{text:>12}" for text in shown))
    if best := run.best:
        value, metric = best[f"eval/{run.best_metric}"], run.best_metric.replace("_", " ")
        lines.append(f"best eval {metric}: {value:.1%} at step {best['step']:,.0f}")
    else:
        lines.append("no evaluation yet")
    return "\n".join(lines)


command = SchemaCommand("report", ReportConfig, run, HELP, rest="runs")
