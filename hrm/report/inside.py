"""The part of a report about what goes on inside a run's model: its states and its attention."""

from collections.abc import Sequence

import numpy as np

from hrm.report.runs import RunReport, Solved
from hrm.viz import html
from hrm.viz.report_charts import Series, line_chart, path_chart
from hrm.viz.svg_grid import heat_grid

MOST_NAMED = 3  # cells


def movement(run: RunReport, solved: Solved) -> str:
    """How far each ACT step moves the states of the puzzles that were looked into."""
    names, rows = [], []
    for n, inside in solved.inside.items():
        for path in inside.paths:
            names.append(f"{path.name}, {_looked_at(n, solved)}")
            rows.append(path.moved.tolist())
    series = [Series(run, range(1, len(moved) + 1), moved) for run, moved in enumerate(rows)]
    ends = (
        f"{name}: {moved[0]:.3g}, {moved[-1]:.3g}" for name, moved in zip(names, rows, strict=True)
    )
    title = (
        f"{run.name}: how far the first and the last ACT step move the states: {'; '.join(ends)}"
    )
    chart = line_chart(series, title, "ACT step")
    reading = (
        "Root mean square of what changes in each state: small once the model has settled, be its "
        f"answer right or wrong. {_which(solved)}"
    )
    steps = [
        [str(step), *(f"{value:.3g}" for value in values)]
        for step, values in enumerate(zip(*rows, strict=True), 1)
    ]
    numbers = html.table(f"{run.name}: how far a step moves the states", ("step", *names), steps)
    drawn = chart + _legend(names)
    return html.figure("How far a step moves the states", drawn, reading, numbers)


def paths(run: RunReport, solved: Solved) -> str:
    """Where the answer's state goes, in the two directions in which it moves most."""
    ways = {_looked_at(n, solved): inside.paths[0] for n, inside in solved.inside.items()}
    series = [Series(run, *way.places.T.tolist()) for run, way in enumerate(ways.values())]
    title = f"{run.name}: where the answer's state goes"
    chart = path_chart(series, title, "first component", "second component")
    shares = " and ".join(f"{sum(way.explained):.0%}" for way in ways.values())
    reading = (
        f"{next(iter(ways.values())).name} before the first ACT step (open) and after each (the "
        "last one is large), in two principal components of each puzzle's own way, which hold "
        f"{shares} of its variance. {_which(solved)}"
    )
    rows = [
        [f"{name}, {step}", *(f"{value:.3g}" for value in place)]
        for name, way in ways.items()
        for step, place in enumerate(way.places.tolist())
    ]
    numbers = html.table(title, ("puzzle, step", "first", "second"), rows)
    drawn = chart + _legend(list(ways))
    return html.figure("Where the answer's state goes", drawn, reading, numbers)


def attention(run: RunReport, solved: Solved) -> str:
    """Which cells one cell attends to; nothing where the model has no attention."""
    drawn, said = [], []
    for n, inside in solved.inside.items():
        if not inside.attention:
            return ""
        used = solved.grid.used_part(solved.inputs[n], solved.grid.whole(solved.answers[n]))
        grid = solved.grid.part(used)
        block, heads = list(inside.attention.items())[-1]
        shares, inputs = (
            solved.grid.cut(values, used) for values in (heads.mean(0), solved.inputs[n])
        )
        place = divmod(inside.cell, solved.grid.shape[1])
        most = ", ".join(
            f"{_cell(*divmod(int(cell), used[1]))} ({shares[cell]:.0%})"
            for cell in np.argsort(-shares, kind="stable")[:MOST_NAMED]
        )
        said.append(f"{_looked_at(n, solved)}: {_cell(*place)} attends most to {most}.")
        asked = place[0] * used[1] + place[1]
        drawing = heat_grid(shares, grid, said[-1], inputs, asked)
        drawn.append(f"<div><span>{html.plain(_looked_at(n, solved))}</span>{drawing}</div>")
    reading = (
        f"How much the framed cell, the first wrong one or else the first open one, attends to "
        f"each cell in the last ACT step: block {block}, mean of its {len(heads)} heads. "
        f"{' '.join(said)} {_which(solved)}"
    )
    grids = f'<div class="grids">{"".join(drawn)}</div>'
    return html.figure("Which cells a cell attends to", grids, reading)


def _cell(row: int, column: int) -> str:
    return f"row {row + 1}, column {column + 1}"


def _legend(names: Sequence[str]) -> str:
    return "".join(f"<div>{html.run_name(run, name)}</div>" for run, name in enumerate(names))


def _looked_at(n: int, solved: Solved) -> str:
    return f"{solved.place(n)} {'not solved' if solved.wrong[n, -1] else 'solved'}"


def _which(solved: Solved) -> str:
    if len(solved.inside) == 1:
        return "One puzzle was looked into."
    return "Looked into: what took most steps to be solved, and what has most wrong cells."
