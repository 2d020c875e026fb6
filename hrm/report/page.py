"""A report as one HTML page: what it shows, in which order, and how to read it."""

import math
from collections.abc import Sequence

from hrm.records import last_of
from hrm.report import analysis
from hrm.report.answers import puzzles_section, with_interval
from hrm.report.runs import RunReport, differences
from hrm.viz import html
from hrm.viz.report_charts import Series, line_chart

CURVES = (
    (
        "Loss",
        "lm_loss",
        ".4g",
        "Cross-entropy of the answer's cells on a logarithmic scale; lower is better.",
    ),
    (
        "Exact accuracy",
        "exact_accuracy",
        ".1%",
        "Share of puzzles with every cell right; higher is better.",
    ),
    (
        "Token accuracy",
        "accuracy",
        ".1%",
        "Mean share of right cells. A puzzle is solved only at 100%, so exact accuracy lags.",
    ),
    (
        "ACT steps",
        "steps",
        ".2f",
        "Mean number of steps until halting. In training the model halts when it is sure, so fewer "
        "steps mean that it is sure earlier; evaluation takes all of them unless asked otherwise.",
    ),
)


def page(runs: Sequence[RunReport], first: Sequence[tuple[str, str]] = ()) -> str:
    """The whole report, the same bytes for the same runs.

    Args:
        first: headings and HTML of sections that stand before all others.
    """
    names = [run.name for run in runs]
    title = f"Training report: {names[0]}" if len(runs) == 1 else f"{len(runs)} runs compared"
    lead = (
        "What each run learnt, how its model halts, how far its certainty can be trusted, and "
        "where it fails."
    )
    sections = [
        *first,
        ("Overview", _overview(runs)),
        ("Learning curves", _curves(runs)),
    ]
    if any(run.solved for run in runs):
        sections.append(("Accuracy by number of ACT steps", _by_step(runs)))
    sections += [
        (html.run_name(number, run.name), puzzles_section(number, run, run.solved))
        for number, run in enumerate(runs)
        if run.solved
    ]
    sections.append(("Configuration", _configuration(runs)))
    return html.document(title, lead, sections)


def _overview(runs: Sequence[RunReport]) -> str:
    measured = {run.best_metric.replace("_", " ") for run in runs}
    columns = (
        "run",
        "checkpoint step",
        "weights",
        "data set",
        "newest evaluation at step",
        "evaluation: exact accuracy",
        "evaluation: token accuracy",
        "evaluation: ACT steps",
        "evaluation: loss",
        "training: exact accuracy",
        "training: loss",
        f"best {measured.pop()}" if len(measured) == 1 else "best evaluation",
        "best at step",
    )
    rows = []
    for number, run in enumerate(runs):
        newest, training = last_of(run.records, "eval"), last_of(run.records, "train")
        best = run.best or {}
        shown = [
            html.run_name(number, run.name),
            _shown(run.step, ",d"),
            _shown(run.weights, ",d"),
            None if run.data is None else html.plain(run.data),
            _shown(newest.get("step"), ",.0f"),
            _shown(newest.get("eval/exact_accuracy"), ".1%"),
            _shown(newest.get("eval/accuracy"), ".1%"),
            _shown(newest.get("eval/steps"), ".1f"),
            _shown(newest.get("eval/lm_loss"), ".4g"),
            _shown(training.get("train/exact_accuracy"), ".1%"),
            _shown(training.get("train/lm_loss"), ".4g"),
            _shown(best.get(f"eval/{run.best_metric}"), ".1%"),
            _shown(best.get("step"), ",.0f"),
        ]
        rows.append(shown)
    turned = [list(row) for row in zip(columns, *rows, strict=True)]
    notes = "".join(
        html.paragraph(f"{run.name}: {note}", "note") for run in runs for note in run.notes
    )
    reading = html.paragraph(
        "One column per run. Evaluation is on puzzles that training has not seen; the newest "
        "metrics of both are shown. “Best” is the first evaluation with the highest "
        "value. A dash: not known."
    )
    return notes + reading + html.table("The runs", turned[0], turned[1:], marked=True)


def _shown(value: float | None, style: str) -> str | None:
    return None if value is None else format(value, style)


def _curves(runs: Sequence[RunReport]) -> str:
    parts = []
    for title, key, style, reading in CURVES:
        series, rows = [], []
        for number, run in enumerate(runs):
            for split in ("train", "eval"):
                name = f"{split}/{key}"
                points = [(r["step"], r[name]) for r in run.records if name in r]
                if points:
                    x, y = zip(*points, strict=True)
                    series.append(Series(number, x, y, main=split == "eval"))
                    rows.append(_curve_row(f"{run.name}, {split}", x, y, style))
        alt = f"{title} over the training step. " + "; ".join(f"{r[0]}: {r[2]} last" for r in rows)
        percent = style == ".1%"
        chart = line_chart(series, alt, "training step", percent=percent, log=key == "lm_loss")
        header = ("curve", "first", "last", "lowest", "highest")
        numbers = html.table(f"{title} of each curve", header, rows)
        parts.append(html.figure(title, chart, reading, numbers))
    legend = "".join(f"<li>{html.run_name(n, run.name)}</li>" for n, run in enumerate(runs))
    reading = html.paragraph(
        "Each run has its colour and its dashes. Strong lines with points are evaluations on "
        "unseen puzzles, thin pale lines are training; where training goes on improving and "
        "evaluation does not, the model learns its puzzles by heart. Accuracy in training is that "
        "of the step at which a puzzle halts, after an update on it for each of its steps."
    )
    return f'{reading}<ul class="legend">{legend}</ul>{html.figures(parts)}'


def _curve_row(name: str, x: Sequence[float], y: Sequence[float], style: str) -> list[str | None]:
    finite = [value for value in y if math.isfinite(value)] or [math.nan]
    return [name, *(format(v, style) for v in (y[0], y[-1], min(finite), max(finite)))]


def _by_step(runs: Sequence[RunReport]) -> str:
    solved = [(n, run, run.solved) for n, run in enumerate(runs) if run.solved]
    rates = {n: analysis.accuracy_by_step(of.right) for n, _, of in solved}
    series = [
        Series(n, range(1, len(of) + 1), [rate.value for rate in of]) for n, of in rates.items()
    ]
    alt = "Exact accuracy after each ACT step. " + "; ".join(
        f"{run.name}: {rates[n][0].value:.1%} after the first, {rates[n][-1].value:.1%} after "
        f"the last of {len(rates[n])}"
        for n, run, _ in solved
    )
    reading = (
        "Every puzzle is given all steps, and its answer is read after each. Where a line rises, "
        "thinking longer helps; where it is flat, the later steps change nothing."
    )
    most = max(map(len, rates.values()))
    rows = [
        [str(s + 1), *(with_interval(of[s]) if s < len(of) else None for of in rates.values())]
        for s in range(most)
    ]
    header = ("steps", *(run.name for _, run, _ in solved))
    numbers = html.table("Exact accuracy, in brackets Wilson's 95% interval", header, rows)
    legend = "".join(f"<li>{html.run_name(n, run.name)}</li>" for n, run, _ in solved)
    chart = line_chart(series, alt, "ACT steps taken", percent=True)
    title = "Exact accuracy after each step"
    return f'<ul class="legend">{legend}</ul>{html.figure(title, chart, reading, numbers)}'


def _configuration(runs: Sequence[RunReport]) -> str:
    known = [run for run in runs if run.config is not None]
    if not known:
        return html.paragraph("No run has a configuration that could be read.")
    if len(known) == 1:
        config = known[0].config or {}
        text = f"What {known[0].name} was trained with (all_config.yaml)."
        rows: list[list[str | None]] = [[key, value] for key, value in config.items()]
        values = html.table("Every key of the configuration", ("key", known[0].name), rows)
        return f"{html.paragraph(text)}<details><summary>All keys</summary>{values}</details>"
    found = differences([run.config for run in runs])
    if not found:
        return html.paragraph("The configurations (all_config.yaml) are the same in every key.")
    reading = "Only keys of all_config.yaml whose values are not equal; all others are the same."
    header = ("key", *(run.name for run in runs))
    rows = [[key, *values] for key, values in found.items()]
    return html.paragraph(reading) + html.table("What differs", header, rows)
