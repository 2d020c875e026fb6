"""Compare training runs: one HTML page with curves, accuracy, halting, calibration and failures.

    python report.py checkpoints/<project>/<run>                # writes <run>/report.html
    python report.py checkpoints/<project>/* --output all.html  # several runs side by side

Of one run, without --output, <run>/learning_curves.png is written as well. Each run's newest
checkpoint solves puzzles of the data set that it was trained on, or of --data.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hrm.config import validate
from hrm.errors import OneLineParser, UserError
from hrm.files import atomic_write
from hrm.records import last_of
from hrm.report.page import page
from hrm.report.runs import ReportConfig, RunReport, read_runs
from hrm.viz import plot_learning_curves

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


def main() -> None:
    config = read_options(sys.argv[1:])
    if config.output is not None:
        refuse_output(config.output)
    runs = read_runs(config)
    for run in runs:
        print(summary(run) if len(runs) == 1 else f"{run.name}\n{summary(run)}\n")
        for note in run.notes:
            print(f"note: {run.name}: {note}", file=sys.stderr)
    if len(runs) == 1 and config.output is None:
        print(f"learning curves: {write_curves(runs[0])}")
    path = config.output or (config.runs[0] if len(runs) == 1 else Path()) / REPORT_FILE
    write_whole(path, page(runs))
    print(f"report: {path}")


def refuse_output(path: Path) -> None:
    """Tell before the work that a page cannot be written.

    Raises:
        UserError: it would be a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")


def write_curves(run: RunReport) -> Path:
    """Write the learning curves into the run's folder.

    Raises:
        UserError: they cannot be written.
    """
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


def summary(run: RunReport) -> str:
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


def read_options(arguments: Sequence[str]) -> ReportConfig:
    """Runs and flags.

    Raises:
        UserError: one of them is unknown or wrong.
    """
    values = vars(_parser().parse_args(arguments))
    return validate(ReportConfig, values, "report.py")


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="report.py",
        usage="python report.py RUN [RUN …] [flags]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    defaults = {name: field.default for name, field in ReportConfig.model_fields.items()}
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    for flag, metavar, text in (
        (
            "output",
            "FILE",
            f"the page (default {REPORT_FILE}, of one run <run>/{REPORT_FILE})",
        ),
        ("data", "DIR", "data set of the puzzles (default: each run's own)"),
        ("split", "NAME", f"which part of the data set (default {defaults['split']})"),
        ("limit", "N", f"puzzles at most, evenly spaced (default {defaults['limit']})"),
        ("device", "NAME", f"auto, cuda, mps or cpu (default {defaults['device']})"),
    ):
        parser.add_argument(f"--{flag}", metavar=metavar, help=text)
    parser.add_argument("--curves-only", action="store_true", help="solve no puzzles")
    return parser
