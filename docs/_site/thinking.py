"""Draws a model's thinking, step by step, as an SVG that moves.

    python docs/_site/thinking.py docs/thinking.svg

What is drawn is the trace of a model of the package: its answer, how sure it is of each cell, and
of the whole. Readers who want no motion see the last step.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from hrm import Solver
from hrm.checkpoint import load_checkpoint
from hrm.files import atomic_write
from hrm.viz.cells import CHANGED, GIVEN, KEPT, WRONG, cell_kinds
from hrm.viz.picture import CELL_COLORS, FRAME_SECONDS, INK, LAST_FRAME_SECONDS, LINE, PAPER

MODEL = "sudoku-9x9"
PUZZLE = "......736..2...4..1.......23..2....8...67......8.31.......27..9.4...3.6...19...8."
WIDTH, HEIGHT = 720, 460
GRID, SURE, LOOP, BARS = (24, 52), (432, 52), (432, 258), (432, 352)  # upper left corners
CELL, SURE_CELL, BAR_HEIGHT = 40, 20, 64
SPAN = 264  # of what stands beside the grid, at most
BLUE, FAINT = "#1f6fb4", "#d5dae1"
LEGEND = ((GIVEN, "given"), (KEPT, "kept"), (CHANGED, "changed"), (WRONG, "wrong"))
STYLE = f"""
text {{ font-family: sans-serif; fill: {INK}; }}
.s {{ font-size: 13px; }} .m {{ text-anchor: middle; }} .h {{ font-size: 15px; font-weight: bold; }}
.d {{ font-size: 22px; text-anchor: middle; }}
.f {{ visibility: hidden; }}
"""
STILL = "@media (prefers-reduced-motion: reduce) { * { animation: none !important; }"


def rect(x: float, y: float, width: float, height: float, fill: str, more: str = "") -> str:
    size = f'width="{width:g}" height="{height:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} fill="{fill}"{more}/>'


def text(x: float, y: float, words: str, kind: str, fill: str = "") -> str:
    style = f' style="fill:{fill}"' if fill else ""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}"{style}>{words}</text>'


def lines(left: int, top: int, cell: int) -> list[str]:
    """The lines of a 9x9 grid."""
    found = []
    for thick in (False, True):
        places = [cell * n for n in range(10) if (n % 3 == 0) == thick]
        path = "".join(f"M{left} {top + p}h{9 * cell}M{left + p} {top}v{9 * cell}" for p in places)
        stroke, width = (LINE, 2) if thick else (FAINT, 1)
        found.append(f'<path d="{path}" stroke="{stroke}" stroke-width="{width}" fill="none"/>')
    return found


def on_time(starts: Sequence[float], total: float, name: str) -> list[str]:
    """CSS: `#<name><n>` is there from its start to the next one's, again and again."""
    ends = [*starts[1:], total]
    rules = []
    for n, (start, end) in enumerate(zip(starts, ends, strict=True)):
        begin, stop = (f"{100 * seconds / total:.3f}%" for seconds in (start, end))
        hidden = "visibility:hidden"
        shown = f"0%{{{hidden}}}{begin}{{visibility:visible}}{stop}{{{hidden}}}"
        if n == len(starts) - 1:
            shown = f"0%{{{hidden}}}{begin},100%{{visibility:visible}}"
        rules.append(f"@keyframes {name}{n}{{{shown}}}")
        rules.append(f"#{name}{n}{{animation:{name}{n} {total:g}s step-end infinite}}")
    return rules


def draw(solver: Solver, puzzle: str, modules: Sequence[str]) -> str:
    """The picture.

    Args:
        modules: what an ACT step calls, as of `calls`.
    """
    [solution] = solver.solve([puzzle], trace=True)
    trace = solution.trace
    assert trace is not None and solution.valid
    steps, grid = len(trace.tokens), solver.task.grid
    pace = min(22.0, (SPAN - 30) / steps)  # of bars
    starts = [FRAME_SECONDS * n for n in range(steps)]
    total = starts[-1] + LAST_FRAME_SECONDS
    style = [STYLE, *on_time(starts, total, "f")]
    style.append(f"{STILL} #f{steps - 1} {{ visibility: visible; }} }}")
    label = f"A model answers a Sudoku in {steps} steps"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{label}">',
        rect(0, 0, WIDTH, HEIGHT, PAPER, ' rx="10"'),
        text(SURE[0], SURE[1] - 16, "How sure it is of each cell", "h"),
        text(LOOP[0], LOOP[1] + 8, "One step of thought", "h"),
        text(BARS[0], BARS[1] - 8, "How sure it is of the whole", "h"),
        *loop(modules, style),
    ]
    parts[1:1] = ["<style>", "", "</style>"]
    for n in range(steps):
        previous = trace.tokens[n - 1] if n else None
        kinds = cell_kinds(trace.tokens[n], grid, solution.inputs, previous, solution.tokens)
        sure = trace.probabilities[n].max(-1)
        parts.append(f'<g class="f" id="f{n}">')
        end = ": sure, so it halts" if n == steps - 1 else ""
        parts.append(text(GRID[0], GRID[1] - 16, f"Its answer after step {n + 1}{end}", "h"))
        for place, (token, kind) in enumerate(zip(trace.tokens[n], kinds, strict=True)):
            row, column = divmod(place, 9)
            fill, ink = CELL_COLORS[int(kind)]
            x, y = GRID[0] + CELL * column, GRID[1] + CELL * row
            parts.append(rect(x, y, CELL, CELL, fill))
            parts.append(text(x + CELL / 2, y + 28, grid.symbol(int(token)), "d", ink))
            x, y = SURE[0] + SURE_CELL * column, SURE[1] + SURE_CELL * row
            opacity = f' fill-opacity="{sure[place]:.2f}"'
            parts.append(rect(x, y, SURE_CELL, SURE_CELL, BLUE, opacity))
        for bar, chance in enumerate(trace.halt_probability[: n + 1]):
            height = max(1.0, BAR_HEIGHT * float(chance))
            parts.append(
                rect(BARS[0] + pace * bar, BARS[1] + BAR_HEIGHT - height, pace - 4, height, BLUE)
            )
        chance = trace.halt_probability[n]
        parts.append(text(BARS[0] + pace * (n + 1) + 4, BARS[1] + 60, f"{chance:.0%}", "s"))
        parts.append("</g>")
    parts += [*lines(*GRID, CELL), *lines(*SURE, SURE_CELL)]
    parts.append(rect(BARS[0], BARS[1] + BAR_HEIGHT, SPAN, 1, INK))
    for n, (kind, word) in enumerate(LEGEND):
        x, y = GRID[0] + 90 * n, GRID[1] + 9 * CELL + 14
        parts.append(rect(x, y, 14, 14, CELL_COLORS[kind][0], f' stroke="{FAINT}"'))
        parts.append(text(x + 20, y + 12, word, "s"))
    parts[2] = "".join(style).replace("\n", "")
    return "\n".join([*parts, "</svg>"]) + "\n"


def loop(modules: Sequence[str], style: list[str]) -> list[str]:
    """The modules that a step calls one after the other, each lit in its turn."""
    each = FRAME_SECONDS / len(modules)
    style += on_time([each * n for n in range(len(modules))], FRAME_SECONDS, "c")
    found, y = [], LOOP[1] + 22
    pace = min(62.0, (SPAN - 34) / len(modules))
    box, color = pace - 22, "#bcdcf5"
    for n, module in enumerate(modules):
        x = LOOP[0] + pace * n
        found.append(rect(x, y, box, 28, PAPER, f' rx="6" stroke="{INK}"'))
        found.append(rect(x, y, box, 28, color, f' rx="6" stroke="{INK}" class="f" id="c{n}"'))
        found.append(text(x + box / 2, y + 19, module, "s m"))
        found.append(text(x + box + 11, y + 19, "→", "s m"))
    again = LOOP[0] + pace * len(modules)
    return [*found, text(again, y + 19, "sure?", "s")]


def model() -> Solver:
    """That of the picture, in float32: bfloat16 rounds otherwise from one CPU to the next."""
    return Solver.of(load_checkpoint(Path(MODEL)).in_dtype("float32"), torch.device("cpu"))


def calls() -> list[str]:
    """What an ACT step of the model calls, one letter each."""
    arch = load_checkpoint(Path(MODEL)).config.arch
    return (["L"] * arch.L_cycles + ["H"]) * arch.H_cycles


if __name__ == "__main__":
    with atomic_write(Path(sys.argv[1])) as temporary:
        temporary.write_text(draw(model(), PUZZLE, calls()), encoding="utf-8")
