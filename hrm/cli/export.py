"""`hrm export`: a model as others need it: a small folder, a graph of one ACT step, a web page."""

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from pydantic import Field

from hrm.cli.options import SchemaCommand
from hrm.config import Config, Count, GraphDtype, StoredDtype, WeightsName, flag
from hrm.errors import UserError, write_output
from hrm.progress import Progress

if TYPE_CHECKING:
    from hrm.checkpoint import Checkpoint

HELP = """
hrm export checkpoints/quickstart/first --output-dir first
hrm export checkpoints/quickstart/first --output-dir first --dtype float16
hrm solve first .3..1.3...4.4...
hrm export sudoku-9x9 --onnx model.onnx --dtype int8
hrm export sudoku-9x9 --page page && python -m http.server -d page

Write a model for others. --output-dir: the small folder that they need to run
it here: weights (the running average, where there is one), configuration,
metadata and a model card. It is named wherever a checkpoint is, but cannot be
resumed. --onnx, --torch-export: one ACT step as a graph for other programs.
--page: a folder that any web host serves, where the model runs in the browser.
These need more: pip install 'recursive-reasoning[web,onnx]' ([web]: --page)
"""

TARGETS = {  # and the dtypes that each can store
    "output_dir": StoredDtype,
    "onnx": GraphDtype,
    "torch_export": Literal["float32"],
    "page": GraphDtype,
}


class SharedConfig(Config):
    """What is given to others of a checkpoint."""

    checkpoint: Path = Field(description="folder of a checkpoint or of a run")
    weights: WeightsName = Field("auto", description="auto: averaged ones if saved")
    data_path: Path | None = Field(
        None, description="its data set, where that has moved or a published run has no other"
    )
    examples: Count = Field(12, description="test puzzles that go with it, at most")
    notes: Path | None = Field(
        None, description="Markdown for the model card: a summary, then sections"
    )


class ExportConfig(SharedConfig):
    """What is exported, and how."""

    output_dir: Path | None = Field(
        None, description="folder to solve with here; its name is the model's"
    )
    onnx: Path | None = Field(None, description="ONNX file of one ACT step")
    torch_export: Path | None = Field(
        None, description="the same as PyTorch's exported program, .pt2; float32"
    )
    page: Path | None = Field(None, description="folder of a web page without a server")
    dtype: StoredDtype | Literal["int8"] | None = Field(
        None, description="of the stored weights (default float32, int8 in a page)"
    )
    picture: bool = Field(False, description="draw the first of them into the model card")
    runtime: Path | None = Field(
        None, description="folder with onnxruntime-web for the page; else it is downloaded"
    )


def run(read: Callable[[], ExportConfig]) -> None:
    """Export, and say where."""
    config = read()
    _check_targets(config)
    checkpoint = opened(config)
    numbers = chosen(checkpoint, config.examples) if config.output_dir or config.page else []
    if config.output_dir is not None:
        stored = cast(StoredDtype, config.dtype or "float32")
        target = config.output_dir
        _tell(export_folder(config, checkpoint, numbers, target, stored, config.picture))
    if config.onnx or config.torch_export or config.page:
        _export_graphs(config, checkpoint, numbers)


def opened(config: SharedConfig) -> "Checkpoint":
    """The checkpoint, with its data set where that is told.

    Raises:
        UserError: as `load_checkpoint`; or it was trained on other data.
    """
    from hrm.checkpoint import load_checkpoint
    from hrm.data.format import TRAIN_SPLIT, read_metadata
    from hrm.data.origin import origin_of

    data = config.data_path
    if data is not None:
        read_metadata(data / TRAIN_SPLIT)
    checkpoint = load_checkpoint(config.checkpoint, config.weights, data)
    if data is None:
        return checkpoint
    if checkpoint.origin.data not in (None, origin_of(data).data):
        raise UserError(f"data_path={data}: {config.checkpoint} was trained on other data")
    told = checkpoint.config.model_copy(update={"data_path": data})
    return replace(checkpoint, config=told)


def export_folder(
    config: SharedConfig,
    checkpoint: "Checkpoint",
    numbers: Sequence[int],
    target: Path,
    dtype: StoredDtype,
    picture: bool,
    typed: str | None = None,
) -> Path:
    """Write the folder of a model, with its examples; arguments as of `export_checkpoint`.

    Args:
        numbers: of the examples.
        picture: draw the first example into the model card, where there is one.

    Raises:
        UserError: the notes cannot be read, or the folder not be written.
    """
    from hrm.checkpoint import export_checkpoint

    notes = notes_of(config.notes)
    drawn = _drawn(config, checkpoint, numbers[0]) if picture and numbers else None
    return export_checkpoint(checkpoint, target, dtype, notes, typed, numbers, drawn)


def _drawn(config: SharedConfig, checkpoint: "Checkpoint", number: int) -> bytes:
    """A test example as the model solves it, as a GIF."""
    import numpy as np

    from hrm.data.format import TEST_SPLIT
    from hrm.inference import Solver
    from hrm.inference.output import pictures
    from hrm.inference.sources import from_split
    from hrm.viz.picture import as_gif

    assert checkpoint.examples is not None
    solver = Solver.from_checkpoint(checkpoint.path, "cpu", config.weights, config.data_path)
    given = checkpoint.examples, TEST_SPLIT, solver.metadata, number
    [puzzle] = from_split(*given, origin=solver.origin)
    names = np.array([solver.identifier_of(puzzle.identifier)])
    [solution] = solver.solve([puzzle.inputs], puzzle_identifiers=names, trace=True)
    return as_gif(pictures(puzzle, solution, solver.task, every_step=True))


def chosen(checkpoint: "Checkpoint", count: int) -> list[int]:
    """Numbers of the examples that go with a model."""
    from hrm.data.format import TEST_SPLIT
    from hrm.data.split import Split
    from hrm.tasks.examples import choose_examples

    if count and checkpoint.examples is None:
        data = checkpoint.config.data_path
        print(f"note: {data} has no test split here, so no examples go with it", file=sys.stderr)
    if not count or checkpoint.examples is None:
        return []
    return choose_examples(Split.open(checkpoint.examples / TEST_SPLIT), count)


def _export_graphs(config: ExportConfig, checkpoint: "Checkpoint", numbers: Sequence[int]) -> None:
    from hrm.checkpoint.step_graph import (
        as_onnx,
        check_onnx,
        facts,
        trace_step,
        write_onnx,
        write_program,
    )

    runtime: dict[str, bytes] = {}
    if config.onnx or config.page:
        check_onnx()
    if config.page:
        from hrm.web.local_page import check_page, write_page
        from hrm.web.runtime import runtime_files

        check_page(config.page)
        runtime = runtime_files(config.runtime)
    graphs = [path for path in (config.torch_export, config.onnx, config.page) if path]
    with Progress("parts of the export", 1 + len(graphs), lasting=True) as progress:
        program, known = trace_step(checkpoint), facts(checkpoint)
        progress.update()
        if config.torch_export:
            write_program(program, known, config.torch_export)
            progress.update()
        if config.onnx or config.page:
            model = as_onnx(program, known["states"])
        if config.onnx:
            dtype = cast(GraphDtype, config.dtype or "float32")
            write_onnx(deepcopy(model), known, config.onnx, dtype)
            progress.update()
        if config.page:
            dtype = cast(GraphDtype, config.dtype or "int8")
            write = partial(write_onnx, model, known, dtype=dtype)
            write_page(config.page, checkpoint, write, runtime, numbers)
            progress.update()
    for path in graphs:
        _tell(path)


def _check_targets(config: ExportConfig) -> None:
    """Before anything is loaded or written."""
    if all(getattr(config, name) is None for name in TARGETS):
        raise UserError(f"hrm export: name what to write by one of {', '.join(map(flag, TARGETS))}")
    for name, dtypes in TARGETS.items():
        known = get_args(dtypes)
        if getattr(config, name) is not None and config.dtype not in (None, *known):
            raise UserError(f"dtype={config.dtype}: {flag(name)} stores {' or '.join(known)}")
    if config.torch_export is not None and config.torch_export.suffix != ".pt2":
        raise UserError(f"torch_export={config.torch_export}: must end in .pt2")


def _tell(path: Path) -> None:
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    write_output(f"{path}: {size / 1e6:.2f} MB\n")


def notes_of(path: Path | None) -> str:
    """What a file of notes says.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return "" if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"notes={path}: cannot be read ({error})") from None


command = SchemaCommand("export", ExportConfig, run, HELP, first="checkpoint")
