"""`hrm export`: a model as others need it: a small folder, a graph of one ACT step, a web page."""

from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

from pydantic import Field

from hrm.cli.options import SchemaCommand
from hrm.config import Config, GraphDtype, StoredDtype, WeightsName
from hrm.errors import UserError, write_output
from hrm.progress import Progress

HELP = """
hrm export checkpoints/quickstart/first --output-dir first
hrm export checkpoints/quickstart/first --output-dir first --dtype float16
hrm solve first 1....2....3....4
hrm export sudoku-9x9 --onnx model.onnx --dtype int8

Write a model for others. --output-dir: the small folder that they need to run
it here: weights (the running average, where there is one), configuration,
metadata and a model card. It is named wherever a checkpoint is, but cannot be
resumed. --onnx, --torch-export: one ACT step as a graph for other programs.
"""

TARGETS = {"output_dir": StoredDtype, "onnx": GraphDtype}  # and the dtypes that each can store


class ExportConfig(Config):
    """What is exported, and how."""

    checkpoint: Path = Field(description="folder of a checkpoint or of a run")
    output_dir: Path | None = Field(
        None, description="folder to solve with here; its name is the model's"
    )
    onnx: Path | None = Field(None, description="ONNX file of one ACT step")
    torch_export: Path | None = Field(
        None, description="the same as PyTorch's exported program, .pt2; float32"
    )
    dtype: StoredDtype | GraphDtype = Field(
        "float32", description="of the stored weights; int8 with --onnx alone"
    )
    weights: WeightsName = Field("auto", description="auto: averaged ones if saved")
    notes: Path | None = Field(
        None, description="Markdown for the model card: a summary, then sections"
    )


def run(read: Callable[[], ExportConfig]) -> None:
    """Export, and say where."""
    config = read()
    _check_targets(config)
    from hrm.checkpoint import export_checkpoint, load_checkpoint

    notes = ""
    if config.notes is not None:
        try:
            notes = config.notes.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"notes={config.notes}: cannot be read ({error})") from None
    checkpoint = load_checkpoint(config.checkpoint, config.weights)
    if config.output_dir is not None:
        stored = cast(StoredDtype, config.dtype)
        _tell(export_checkpoint(checkpoint, config.output_dir, stored, notes))
    graphs = [path for path in (config.onnx, config.torch_export) if path is not None]
    if not graphs:
        return
    from hrm.checkpoint.step_graph import (
        as_onnx,
        check_onnx,
        facts,
        trace_step,
        write_onnx,
        write_program,
    )

    if config.onnx is not None:
        check_onnx()
    with Progress("parts of the export", 1 + len(graphs), lasting=True) as progress:
        program, known = trace_step(checkpoint), facts(checkpoint)
        progress.update()
        if config.torch_export is not None:
            write_program(program, known, config.torch_export)
            progress.update()
        if config.onnx is not None:
            model, dtype = as_onnx(program, known["states"]), cast(GraphDtype, config.dtype)
            write_onnx(model, known, config.onnx, dtype)
            progress.update()
    for path in graphs:
        _tell(path)


def _check_targets(config: ExportConfig) -> None:
    """Before anything is loaded or written."""
    targets = ("output_dir", "onnx", "torch_export")
    if all(getattr(config, name) is None for name in targets):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in targets)
        raise UserError(f"hrm export: name what to write by one of {flags}")
    for name, dtypes in TARGETS.items():
        known = get_args(dtypes)
        if getattr(config, name) is not None and config.dtype not in known:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"dtype={config.dtype}: {flag} stores {' or '.join(known)}")
    if config.torch_export is not None and config.torch_export.suffix != ".pt2":
        raise UserError(f"torch_export={config.torch_export}: must end in .pt2")


def _tell(path: Path) -> None:
    files = path.iterdir() if path.is_dir() else [path]
    write_output(f"{path}: {sum(file.stat().st_size for file in files) / 1e6:.2f} MB\n")


command = SchemaCommand("export", ExportConfig, run, HELP, first="checkpoint")
