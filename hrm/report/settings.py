"""Settings compared: what runs that differ by their seeds alone have reached, mean and spread.

Plain numbers and text; the measure is the exact accuracy of each run's last evaluation.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from textwrap import wrap

from hrm.records import Record
from hrm.viz import html
from hrm.viz.report_charts import rate_chart

METRIC = "exact_accuracy"
RANKED_BY = (
    "Ranked by the mean exact accuracy of each run's last evaluation; ±: standard deviation over "
    "the runs of a setting."
)
NAME_WIDTH = 36  # columns of a terminal
CHART_WIDTH = 60  # characters below a chart
COLUMNS = ("setting", "runs", "exact accuracy", "lowest", "highest")
METRICS = (METRIC, "accuracy", "steps", "lm_loss")  # of an evaluation


@dataclass(frozen=True)
class Measured:
    """One run."""

    name: str
    setting: str  # what it shares with others; "" where only seeds are compared
    values: Mapping[str, str]  # of the keys that are compared
    state: str
    is_finished: bool
    evaluation: Record  # its last one
    seconds: float | None
    folder: str

    @property
    def value(self) -> float | None:
        """The measure; None unless the run is finished and was evaluated."""
        return self.evaluation.get(f"eval/{METRIC}") if self.is_finished else None


@dataclass(frozen=True)
class Setting:
    """Runs that differ by their seeds alone."""

    name: str
    runs: Sequence[Measured]

    @property
    def values(self) -> list[float]:
        """The measure of each run that has one."""
        return [run.value for run in self.runs if run.value is not None]

    @property
    def mean(self) -> float:
        """NaN where no run has the measure."""
        return fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float | None:
        """Standard deviation, of a sample (n - 1); None of fewer than two runs."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def cells(self) -> tuple[str, ...]:
        """As in `COLUMNS`."""
        count = f"{len(self.values)}/{len(self.runs)}"
        if not self.values:
            return (self.name, count, "-", "-", "-")
        spread = "" if self.deviation is None else f" ± {self.deviation:.1%}"
        ends = (f"{end(self.values):.1%}" for end in (min, max))
        return (self.name, count, f"{self.mean:.1%}{spread}", *ends)


def ranked(runs: Sequence[Measured]) -> list[Setting]:
    """The settings, best first; those without the measure last."""
    by_name: dict[str, list[Measured]] = {}
    for run in runs:
        by_name.setdefault(run.setting, []).append(run)
    found = [Setting(name or "all seeds", of) for name, of in by_name.items()]
    return sorted(found, key=lambda s: -s.mean if s.values else math.inf)


def best_run(found: Sequence[Setting]) -> Measured | None:
    """The best run of the best setting, None where nothing was measured."""
    known = [run for run in found[0].runs if run.value is not None]
    return max(known, key=lambda run: run.value or 0.0, default=None)


def as_text(found: Sequence[Setting]) -> str:
    """A table for a terminal of 80 columns."""
    lines = [COLUMNS, *(setting.cells for setting in found)]
    names = [wrap(line[0].replace(",", ", "), NAME_WIDTH) for line in lines]
    first = max(len(part) for name in names for part in name)
    widths = [max(len(line[column]) for line in lines) for column in range(1, len(COLUMNS))]
    shown = []
    for (top, *rest), (_, *cells) in zip(names, lines, strict=True):
        numbers = "".join(f"  {c:>{width}}" for c, width in zip(cells, widths, strict=True))
        shown += [f"{top:<{first}}{numbers}", *(f"  {part}" for part in rest)]
    return "\n".join(shown)


def as_csv(runs: Sequence[Measured]) -> str:
    """One line for each run, with its values and the numbers of its last evaluation as logged."""
    keys = list(runs[0].values)
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(["run", *keys, "state", "step", *METRICS, "seconds", "folder"])
    for run in runs:
        numbers = [run.evaluation.get(name) for name in ("step", *(f"eval/{m}" for m in METRICS))]
        values = [run.values[key] for key in keys]
        rows.writerow([run.name, *values, run.state, *numbers, run.seconds, run.folder])
    return written.getvalue()


def as_markdown(title: str, found: Sequence[Setting]) -> str:
    """Settings, then their runs."""
    rows = [setting.cells for setting in found]
    runs = [_row(run) for setting in found for run in setting.runs]
    parts = [f"# {title}", RANKED_BY, _markdown(COLUMNS, rows), "## Runs", _markdown(RUNS, runs)]
    return "\n\n".join(parts) + "\n"


RUNS = ("run", "state", "step", "exact accuracy", "token accuracy", "ACT steps", "loss", "seconds")
STYLES = (",.0f", ".1%", ".1%", ".2f", ".4g")


def as_html(found: Sequence[Setting]) -> str:
    """The section of a report."""
    parts = [html.paragraph(RANKED_BY)]
    known = [setting for setting in found if setting.values]
    widths = [len(part) for setting in known for part in setting.name.split(",")]
    if len(known) > 1 and len(known) * max(widths) <= CHART_WIDTH:
        means = [setting.mean for setting in known]
        ends = [(min(setting.values), max(setting.values)) for setting in known]
        counts = [len(setting.values) for setting in known]
        alt = "Exact accuracy of each setting. " + "; ".join(" ".join(s.cells) for s in known)
        labels = [setting.name.replace(",", "\n") for setting in known]
        chart = rate_chart(labels, means, ends, counts, alt, "")
        reading = "Points are means, bars reach from the lowest run to the highest, n counts runs."
        parts.append(html.figures([html.figure("Exact accuracy", chart, reading)]))
    parts.append(html.table("The settings", COLUMNS, [s.cells for s in found]))
    rows = [_row(run) for setting in found for run in setting.runs]
    parts.append(html.table("The runs", RUNS, rows))
    return "".join(parts)


def _row(run: Measured) -> list[str]:
    """As in `RUNS`."""
    names = ("step", *(f"eval/{metric}" for metric in METRICS))
    numbers = [run.evaluation.get(name) for name in names]
    pairs = zip(numbers, STYLES, strict=True)
    shown = ["-" if number is None else format(number, style) for number, style in pairs]
    seconds = "-" if run.seconds is None else f"{run.seconds:,.0f}"
    return [run.name, run.state, *shown, seconds]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(c.replace('|', '&#124;') for c in line)} |" for line in lines)
