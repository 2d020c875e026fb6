"""Accuracy on hard Sudokus against the FLOPs of training: ours and what others have published.

    python benchmarks/pareto.py docs/pareto.png

Others' accuracies are theirs, on their test puzzles of Sudoku-Extreme, after training on 1,000 of
them on GPUs; their FLOPs are counted here, of the recipes in `hrm/recipes` as they stand: matrix
products of all training steps. Ours were measured on 999 other puzzles (docs/results.md), on
two cores, after training on more.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from hrm.errors import run_command
from hrm.models import build_model
from hrm.models.flops import training_flops
from hrm.optim.schedule import total_steps
from hrm.training.config import load_pretrain_config

PUZZLES = 1000  # of training, of the published runs
SIZES = {"seq_len": 81, "vocab_size": 11, "num_puzzle_identifiers": 1}
GRID = {"grid_shape": (9, 9), "box_shape": (3, 3), "first_digit": 2}
PUBLISHED = {  # exact, %, and the recipe
    "HRM (theirs; GPUs)": (55.0, "cfg_pretrain"),
    "TRM, attention (theirs; 1 L40S)": (74.7, "trm_sudoku"),
    "TRM, MLP (theirs; 1 L40S)": (87.4, "trm_sudoku_mlp"),
}
OURS = "sudoku-9x9 of this package (2 cores)"
STAGES = {  # and their puzzles
    "pretrained_sudoku_9x9_first": 2000,
    "pretrained_sudoku_9x9_second": 8000,
    "pretrained_sudoku_9x9": 8000,
}
MEASURED = {  # exact, % of the blend: python benchmarks/hard.py --csv …
    "one pass": 91.0,
    "400 guesses": 99.8,  # of 400
}
OF_REAL = "on 1,000 real puzzles\nand what --num-related\nfinds, one pass"
OF_REAL_STEPS = {"pretrained_sudoku_9x9_first": 3528, "pretrained_sudoku_9x9": 17_640}
OF_REAL_MEASURED = 86.5  # of the blend, docs/recipes.md
ALONE = "on 1,000 real puzzles\nand nothing else,\none pass"
NARROW = ("arch.hidden_size=48", "arch.message_size=16", "arch.expansion=2")
ALONE_STEPS = {  # and L calls
    "pretrained_sudoku_9x9_first": {1: 3000},
    "pretrained_sudoku_9x9": {2: 6000, 4: 12_000},
}
ALONE_MEASURED = 60.5  # likewise; 57.5 with another seed
WITHOUT_FLOPS = {"SiC": 96.9, "Looped Flows": 97.9, "FPRM": 94.2}  # theirs; GPUs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("picture", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    points = [(name, flops_of(recipe), exact) for name, (exact, recipe) in PUBLISHED.items()]
    spent = sum(flops_of(recipe, puzzles) for recipe, puzzles in STAGES.items())
    points += [(f"{OURS}, {way}", spent, exact) for way, exact in MEASURED.items()]
    of_real = sum(flops_of(recipe, steps=steps) for recipe, steps in OF_REAL_STEPS.items())
    points.append((OF_REAL, of_real, OF_REAL_MEASURED))
    alone = sum(
        flops_of(recipe, steps=steps, keys=(*NARROW, f"arch.L_cycles={calls}"))
        for recipe, stages in ALONE_STEPS.items()
        for calls, steps in stages.items()
    )
    points.append((ALONE, alone, ALONE_MEASURED))
    for name, flops, exact in points:
        shown = name.replace("\n", " ")
        print(f"{shown:60}{flops:>10.1e} FLOP{exact:>8.1f}%")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, flops, exact in points:
        own = name.startswith((OURS, OF_REAL, ALONE))
        axes.plot(flops, exact, "o" if own else "s", color="tab:blue" if own else "tab:gray")
        side = {"xytext": (-8, -14), "ha": "right"} if name == OF_REAL else {"xytext": (8, -3)}
        axes.annotate(name, (flops, exact), textcoords="offset points", fontsize=8, **side)
    named = ", ".join(f"{name} {exact}" for name, exact in WITHOUT_FLOPS.items())
    axes.text(1.5e13, 8, f"theirs, FLOPs not known: {named}", fontsize=8, color="tab:gray")
    axes.set(xscale="log", xlim=(1e13, 1e21), ylim=(-3, 104))
    axes.set(xlabel="FLOPs of training", ylabel="solved exactly, %")
    axes.grid(alpha=0.3)
    figure.savefig(arguments.picture, dpi=150)


def flops_of(
    recipe: str, puzzles: int = PUZZLES, steps: int | None = None, keys: tuple[str, ...] = ()
) -> float:
    """Of so many training steps of a recipe, of all by default."""
    config = load_pretrain_config(keys, recipe)
    arch = config.arch.model_dump(exclude={"loss", "forward_dtype"}) | SIZES | GRID
    model = build_model(arch, config.arch.loss.model_dump())
    steps = steps or total_steps(config.epochs, puzzles, 1, config.global_batch_size)
    return float(training_flops(model.model.inner.config)) * config.global_batch_size * steps


if __name__ == "__main__":
    run_command(main)
