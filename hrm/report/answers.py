"""The part of a report about one run's answers: halting, calibration, accuracy, failures."""

from collections.abc import Sequence

import numpy as np

from hrm.report import analysis
from hrm.report.analysis import Rate
from hrm.report.inside import attention, movement, paths
from hrm.report.runs import RunReport, Solved
from hrm.viz import html
from hrm.viz.report_charts import histogram_chart, rate_chart, reliability_chart
from hrm.viz.svg_grid import svg_grid

FAILURES = 3  # of each kind
BARS = "Bars are Wilson's 95% intervals, n is the number of puzzles."


def puzzles_section(number: int, run: RunReport, solved: Solved) -> str:
    """HTML about the puzzles that a run's model was given.

    Args:
        number: the run's place, for its colour.
    """
    right = solved.right[:, -1]
    count, total = int(right.sum()), len(right)
    lead = html.paragraph(
        f"{total:,} puzzles of {solved.places[0].rpartition('[')[0]}, evenly spaced where there "
        f"are more; with all ACT steps {with_interval(Rate('', count, total))} are solved "
        "exactly. The brackets hold the 95% interval that so many puzzles leave open."
    )
    parts = [_halting(run, solved), _calibration(number, run, solved)]
    alike = ""
    for title, label, rates, reading in _groups(solved, right):
        if len(rates) > 1:
            parts.append(_rates(number, run, title, label, rates, f"{reading} {BARS}"))
        else:
            text = f"{title}: no chart, since all puzzles are alike ({label}: {rates[0].label})."
            alike += html.paragraph(f"{text} {reading}")
    if solved.inside:
        parts += [part(run, solved) for part in (movement, paths, attention)]
    return lead + html.figures(parts) + alike + _failures(solved)


def _groups(solved: Solved, right: np.ndarray) -> list[tuple[str, str, list[Rate], str]]:
    """Ways to group the puzzles: title, label of the axis, rates, how to read it."""
    groups = []
    if solved.givens.any():
        reading = "Fewer givens leave more to find, but are not always harder."
        rates = analysis.by_givens(right, solved.givens)
        groups.append(("Accuracy by number of givens", "givens", rates, reading))
    if (known := solved.difficulty) is not None:
        rates = analysis.by_difficulty(right, known.values, known.most)
        groups.append(("Accuracy by difficulty", known.name, rates, known.meaning))
    return groups


def with_interval(rate: Rate) -> str:
    """A share and its interval in brackets."""
    low, high = rate.interval
    return f"{rate.value:.1%} ({low:.1%} to {high:.1%})"


def _halting(run: RunReport, solved: Solved) -> str:
    steps, right = solved.learned_steps, solved.learned_right
    most = solved.learned_most
    of_right, of_wrong = analysis.halting_histogram(steps, right, most)
    sure = solved.learned_threshold
    rule = f" and at least {sure:.0%} sure of being right" if sure else ""
    reading = (
        f"Steps taken when each puzzle stops as soon as the model wants to halt{rule}: "
        f"{steps.mean():.2f} on average, {most} at most, and {right.mean():.1%} solved exactly. "
        "Hatched: the answer at that step is wrong."
    )
    pairs = enumerate(zip(of_right, of_wrong, strict=True), 1)
    rows = [[str(step), *map(str, counts)] for step, counts in pairs]
    alt = f"{run.name}: puzzles by steps at halt; {steps.mean():.2f} on average, {most} at most"
    chart = histogram_chart(of_right, of_wrong, alt, "ACT steps at halt")
    numbers = html.table(f"{run.name}: puzzles by steps at halt", ("steps", "right", "wrong"), rows)
    return html.figure("When it halts by itself", chart, reading, numbers)


def _calibration(number: int, run: RunReport, solved: Solved) -> str:
    every = analysis.calibration(solved.halt_probability, solved.right)
    last = analysis.calibration(solved.halt_probability[:, -1], solved.right[:, -1])
    intervals = analysis.wilson_interval(every.right, every.counts)
    reading = (
        "The halting probability is the model's own estimate of being right. On the dashed line "
        "it is as often right as it says; below the line it is too sure. Answers of all steps "
        "count, so one puzzle counts several times and the 95% intervals are narrower than they "
        "should be; below, how many answers lie in each bin. "
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
    rows = [[r.label, f"{r.total:,}", f"{r.right:,}", with_interval(r)] for r in rates]
    header = (label, "puzzles", "solved", "share (95% interval)")
    return html.figure(
        title, chart, reading, html.table(f"{run.name}: {title.lower()}", header, rows)
    )


def _failures(solved: Solved) -> str:
    wrong, sure = solved.wrong[:, -1], solved.halt_probability[:, -1]
    most, surest = analysis.worst(wrong, sure, FAILURES)
    if not len(most):
        return html.paragraph(
            f"All {len(wrong):,} puzzles are solved: there is no failure to show."
        )
    marks = "are tinted and have a bar below; bold cells are given"
    reading = html.paragraph(
        f"Not solved after all steps: {int((wrong > 0).sum()):,} of {len(wrong):,} puzzles. Shown "
        "are those with the most wrong cells, then those that the model was surest of. Wrong cells "
        f"{'have a frame' if solved.grid.colors else marks}."
    )
    kinds = [("most wrong cells", n) for n in most] + [
        ("most confidently wrong", n) for n in surest
    ]
    drawn = "".join(_failure(kind, int(n), solved) for kind, n in kinds)
    return f'<h3>Worst failures</h3>{reading}<div class="failures">{drawn}</div>'


def _failure(kind: str, n: int, solved: Solved) -> str:
    shown = solved.inputs[n], solved.grid.whole(solved.answers[n]), solved.tokens[n]
    wrong, cells = int(solved.wrong[n, -1]), int((solved.answers[n] >= 0).sum())
    used = solved.grid.used_part(*shown)
    grid = solved.grid.part(used)
    inputs, answer, tokens = (solved.grid.cut(values, used) for values in shown)
    right = np.where(answer >= 0, answer, inputs)
    grids = (
        ("puzzle", svg_grid(inputs, grid, f"puzzle: {grid.text(inputs)}", inputs)),
        ("answer", svg_grid(tokens, grid, f"answer: {grid.text(tokens)}", inputs, answer)),
        ("right answer", svg_grid(right, grid, f"right answer: {grid.text(right)}", inputs)),
    )
    drawn = "".join(f"<div><span>{name}</span>{grid}</div>" for name, grid in grids)
    facts = f"{wrong} of {cells} cells wrong, {solved.halt_probability[n, -1]:.1%} sure"
    if (known := solved.difficulty) is not None:
        [rate] = analysis.by_difficulty(np.array([True]), known.values[[n]], known.most)
        facts += f", {solved.givens[n]} givens, difficulty ({known.name}) {rate.label}"
    drawn = f'<div class="grids">{drawn}</div>'
    return html.figure(f"{solved.place(n)}: {kind}", drawn, f"{facts}.", level=4)
