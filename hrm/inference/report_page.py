"""A report as one HTML page: what it shows, in which order, and how to read it."""

import math
from collections.abc import Sequence

import numpy as np

from hrm.data.sudoku_difficulty import MOST_GUESSES
from hrm.inference import analysis
from hrm.inference.analysis import Rate
from hrm.inference.report import RunReport, Solved, differences
from hrm.records import best_evaluation, last_of
from hrm.viz import html
from hrm.viz.report_charts import (
    Series,
    histogram_chart,
    line_chart,
    rate_chart,
    reliability_chart,
)
from hrm.viz.svg_grid import svg_grid

FAILURES = 3  # of each kind
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
        "steps mean that it is sure earlier; evaluation takes all of them unless told otherwise.",
    ),
)


def page(runs: Sequence[RunReport]) -> str:
    """The whole report, the same bytes for the same runs."""
    names = [run.name for run in runs]
    title = f"Training report: {names[0]}" if len(runs) == 1 else f"{len(runs)} runs compared"
    lead = (
        "What each run learnt, how its model halts, how far its certainty can be trusted, and "
        "where it fails."
    )
    sections = [
        ("Overview", _overview(runs)),
        ("Learning curves", _curves(runs)),
    ]
    if any(run.solved for run in runs):
        sections.append(("Accuracy by number of ACT steps", _by_step(runs)))
    sections += [
        (html.run_name(number, run.name), _puzzles(number, run, run.solved))
        for number, run in enumerate(runs)
        if run.solved
    ]
    sections.append(("Configuration", _configuration(runs)))
    return html.document(title, lead, sections)


def _overview(runs: Sequence[RunReport]) -> str:
    columns = (
        "run",
        "checkpoint step",
        "weights",
        "data set",
        "newest evaluation: step",
        "exact accuracy",
        "token accuracy",
        "ACT steps",
        "loss",
        "newest training: exact accuracy",
        "loss",
        "best evaluation: exact accuracy",
        "at step",
    )
    rows = []
    for number, run in enumerate(runs):
        newest, training = last_of(run.records, "eval"), last_of(run.records, "train")
        best = best_evaluation(run.records) or {}
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
            _shown(best.get("eval/exact_accuracy"), ".1%"),
            _shown(best.get("step"), ",.0f"),
        ]
        rows.append(shown)
    turned = [list(row) for row in zip(columns, *rows, strict=True)]
    notes = "".join(
        html.paragraph(f"{run.name}: {note}", "note") for run in runs for note in run.notes
    )
    reading = html.paragraph(
        "One column per run. Evaluation is on puzzles that training has not seen; “best” is the "
        "first evaluation with the highest exact accuracy. A dash: not known."
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
        "evaluation does not, the model learns its puzzles by heart."
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
        [str(s + 1), *(_with_interval(of[s]) if s < len(of) else None for of in rates.values())]
        for s in range(most)
    ]
    header = ("steps", *(run.name for _, run, _ in solved))
    numbers = html.table("Exact accuracy, in brackets Wilson's 95% interval", header, rows)
    legend = "".join(f"<li>{html.run_name(n, run.name)}</li>" for n, run, _ in solved)
    chart = line_chart(series, alt, "ACT steps taken", percent=True)
    title = "Exact accuracy after each step"
    return f'<ul class="legend">{legend}</ul>{html.figure(title, chart, reading, numbers)}'


def _with_interval(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.value:.1%} ({low:.1%} to {high:.1%})"


def _puzzles(number: int, run: RunReport, solved: Solved) -> str:
    right = solved.right[:, -1]
    count, total = int(right.sum()), len(right)
    lead = html.paragraph(
        f"{total:,} puzzles of {solved.places[0].rpartition('[')[0]}, evenly spaced where there "
        f"are more; with all ACT steps {_with_interval(Rate('', count, total))} are solved "
        "exactly. The brackets hold the 95% interval that so many puzzles leave open."
    )
    parts = [_halting(run, solved), _calibration(number, run, solved)]
    if solved.givens.any():
        rates = analysis.by_givens(right, solved.givens)
        reading = (
            "Share of puzzles solved exactly, by how many cells are given; bars are Wilson's 95% "
            "intervals, n is the number of puzzles. Fewer givens leave more to find, but are not "
            "always harder."
        )
        parts.append(_rates(number, run, "Accuracy by number of givens", "givens", rates, reading))
    if solved.guesses is not None:
        rates = analysis.by_difficulty(right, solved.guesses, MOST_GUESSES)
        reading = (
            "Difficulty is the number of guesses that a plain search needs: 0 where naked and "
            "hidden singles alone solve the puzzle, else it tries the lowest digit in the cell "
            "with the fewest candidates and goes back when that fails. Bars are Wilson's 95% "
            "intervals, n is the number of puzzles."
        )
        parts.append(_rates(number, run, "Accuracy by difficulty", "guesses", rates, reading))
    return lead + html.figures(parts) + _failures(run, solved)


def _halting(run: RunReport, solved: Solved) -> str:
    steps, right = solved.learned_steps, solved.learned_right
    most = solved.wrong.shape[1]
    of_right, of_wrong = analysis.halting_histogram(steps, right, most)
    sure = solved.learned_threshold
    rule = f" and at least {sure:.0%} sure of being right" if sure else ""
    reading = (
        f"Steps taken when each puzzle stops as soon as the model wants to halt{rule}: "
        f"{steps.mean():.2f} on average instead of {most}, and {right.mean():.1%} solved exactly. "
        "Hatched: the answer at that step is wrong."
    )
    pairs = enumerate(zip(of_right, of_wrong, strict=True), 1)
    rows = [[str(step), *map(str, counts)] for step, counts in pairs]
    alt = f"{run.name}: puzzles by steps at halt; {steps.mean():.2f} on average, {most} at most"
    chart = histogram_chart(of_right, of_wrong, alt, "ACT steps at halt")
    numbers = html.table("Puzzles by steps at halt", ("steps", "right", "wrong"), rows)
    return html.figure("When it halts by itself", chart, reading, numbers)


def _calibration(number: int, run: RunReport, solved: Solved) -> str:
    every = analysis.calibration(solved.halt_probability, solved.right)
    last = analysis.calibration(solved.halt_probability[:, -1], solved.right[:, -1])
    intervals = analysis.wilson_interval(every.right, every.counts)
    reading = (
        "The halting probability is the model's own estimate of being right. On the dashed line "
        "it is as often right as it says; below the line it is too sure. Answers of all steps "
        "count, so one puzzle counts several times; below, how many lie in each bin. "
        f"Expected calibration error: {every.expected_error:.1%} over all steps, "
        f"{last.expected_error:.1%} at the last."
    )
    alt = (
        f"{run.name}: halting probability against share of right answers; expected calibration "
        f"error {every.expected_error:.1%}"
    )
    chart = reliability_chart(
        every.mean_probability, every.accuracy, intervals, every.counts, alt, number
    )
    rows = [
        [
            f"{low:.0%}–{high:.0%}",
            f"{count:,}",
            None if not count else f"{probability:.1%}",
            None if not count else f"{accuracy:.1%}",
        ]
        for low, high, count, probability, accuracy in zip(
            every.edges[:-1], every.edges[1:], every.counts, every.mean_probability, every.accuracy,
            strict=True,
        )
    ]  # fmt: skip
    header = ("bin", "answers", "mean probability", "right")
    return html.figure(
        "How far its certainty can be trusted", chart, reading, html.table(alt, header, rows)
    )


def _rates(
    number: int, run: RunReport, title: str, label: str, rates: Sequence[Rate], reading: str
) -> str:
    alt = f"{run.name}: {title}. " + "; ".join(f"{r.label}: {r.value:.1%}" for r in rates)
    chart = rate_chart(
        [r.label for r in rates],
        [r.value for r in rates],
        [r.interval for r in rates],
        [r.total for r in rates],
        alt,
        label,
        number,
    )
    rows = [[r.label, f"{r.total:,}", f"{r.right:,}", _with_interval(r)] for r in rates]
    header = (label, "puzzles", "solved", "share (95% interval)")
    return html.figure(title, chart, reading, html.table(title, header, rows))


def _failures(run: RunReport, solved: Solved) -> str:
    wrong, sure = solved.wrong[:, -1], solved.halt_probability[:, -1]
    most, surest = analysis.worst(wrong, sure, FAILURES)
    if not len(most):
        return html.paragraph(
            f"All {len(wrong):,} puzzles are solved: there is no failure to show."
        )
    reading = html.paragraph(
        f"The worst of {int((wrong > 0).sum()):,} failures after all steps: first those with the "
        "most wrong cells, then those that the model was surest of. Wrong cells are tinted with "
        "a bar below; bold cells are given."
    )
    kinds = [("most wrong cells", n) for n in most] + [
        ("most confidently wrong", n) for n in surest
    ]
    drawn = "".join(_failure(kind, int(n), solved) for kind, n in kinds)
    return f'<h3>Worst failures</h3>{reading}<div class="failures">{drawn}</div>'


def _failure(kind: str, n: int, solved: Solved) -> str:
    look, inputs, answer, tokens = (
        solved.look,
        solved.inputs[n],
        solved.answers[n],
        solved.tokens[n],
    )
    wrong, cells = int(solved.wrong[n, -1]), int((answer >= 0).sum())
    known = np.where(answer >= 0, answer, inputs)
    grids = (
        ("puzzle", svg_grid(inputs, look, f"puzzle: {look.text(inputs)}", inputs)),
        ("answer", svg_grid(tokens, look, f"answer: {look.text(tokens)}", inputs, answer)),
        ("right answer", svg_grid(known, look, f"right answer: {look.text(known)}", inputs)),
    )
    drawn = "".join(f"<div><span>{name}</span>{grid}</div>" for name, grid in grids)
    facts = f"{wrong} of {cells} cells wrong, {solved.halt_probability[n, -1]:.1%} sure"
    if solved.guesses is not None:
        guesses = int(solved.guesses[n])
        shown = guesses if guesses <= MOST_GUESSES else f"over {MOST_GUESSES:,}"
        facts += f", {solved.givens[n]} givens, difficulty {shown}"
    place = solved.places[n].replace("\\", "/").rpartition("/")[2]
    drawn = f'<div class="grids">{drawn}</div>'
    return html.figure(f"{place}: {kind}", drawn, f"{facts}.", level=4)


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
