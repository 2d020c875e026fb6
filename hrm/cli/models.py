"""`hrm models`: trained models, architectures and recipes that are shipped."""

from collections.abc import Callable
from pathlib import Path
from textwrap import fill

from pydantic import Field

from hrm.cli.options import SchemaCommand
from hrm.config import RECIPE, RECIPES, Config, PositiveInt
from hrm.errors import UserError, write_output

HELP = """
hrm models
hrm models --seq-len 900 --vocab-size 12

List trained models (hrm solve NAME), architectures (hrm train arch=NAME) with
parameters and FLOPs per example, and recipes (hrm train --config-name NAME)
with what to expect of them.
"""
COLUMNS = ("arch", "core", "parameters", "GFLOP/step", "in training", "")


class ModelsConfig(Config):
    """The data that sizes are given for."""

    seq_len: PositiveInt = Field(81, description="tokens of an example")
    vocab_size: PositiveInt = Field(11, description="different tokens")


def run(read: Callable[[], ModelsConfig]) -> None:
    """Print the lists."""
    from hrm.checkpoint import shipped_models

    config = read()
    write_output(
        "Trained models, part of this package (hrm solve NAME PUZZLE, hrm serve NAME):\n\n"
    )
    for name, folder in shipped_models().items():
        text = fill(summary_of(folder), 96, initial_indent="    ", subsequent_indent="    ")
        write_output(f"{name}\n{text}\n")
    lines = [COLUMNS]
    for path in sorted((RECIPES / "arch").glob("*.yaml")):
        try:
            lines.append((path.stem, *sizes(path.stem, config), header(path)[0]))
        except UserError as error:
            lines.append((path.stem, "", "", "", "", str(error).removeprefix("model: ")))
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    shown = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    about = f"{config.seq_len} tokens, vocabulary {config.vocab_size}, without the puzzle table"
    write_output("\n".join([f"\nArchitectures, for an ACT step on {about}:", "", *shown, "", ""]))
    write_output("Recipes:\n\n")
    for path in sorted(RECIPES.glob("*.yaml")):
        default = " (default)" if path.stem == RECIPE else ""
        text = "\n".join(f"    {line}" for line in header(path))
        write_output(f"{path.stem}{default}\n{text}\n")


def header(path: Path) -> list[str]:
    """The comment at the top of a recipe."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return lines


def summary_of(folder: Path) -> str:
    """The first paragraph of a model card, on one line."""
    from hrm.checkpoint.layout import CARD_FILE

    text = (folder / CARD_FILE).read_text(encoding="utf-8").split("---\n", 2)[-1]
    paragraphs = (p for p in map(str.strip, text.split("\n\n")) if not p.startswith("#"))
    return " ".join(next(paragraphs, "").split())


def sizes(arch: str, data: ModelsConfig) -> tuple[str, str, str, str]:
    """Core, parameters, and GFLOP of an example's ACT step, forward and in training.

    Raises:
        UserError: the architecture is not for such data.
    """
    import torch

    from hrm.models import build_model
    from hrm.models.flops import act_step_flops, training_flops
    from hrm.training.config import load_pretrain_config

    named = load_pretrain_config([f"arch={arch}"]).arch
    given = named.model_dump(exclude={"loss", "forward_dtype"}) | dict(data)
    with torch.device("meta"):
        model = build_model({**given, "num_puzzle_identifiers": 1}, named.loss.model_dump())
    parameters = sum(p.numel() for p in model.parameters())
    config = model.model.inner.config
    flops = (f"{count / 1e9:.2f}" for count in (act_step_flops(config), training_flops(config)))
    forward, training = flops
    return named.name, f"{parameters:,}", forward, training


command = SchemaCommand("models", ModelsConfig, run, HELP)
