"""`hrm export`: a model as others need it, in one small folder."""

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from hrm.cli.options import SchemaCommand
from hrm.config import Config, StoredDtype, WeightsName
from hrm.errors import UserError, write_output

HELP = """
hrm export checkpoints/quickstart/first --output-dir first
hrm export checkpoints/quickstart/first --output-dir first --dtype float16
hrm solve first 1....2....3....4

Write the folder that others need to run a model: its weights (the running
average, where there is one), configuration, metadata and a model card. It is
named wherever a checkpoint is, but cannot be resumed.
"""


class ExportConfig(Config):
    """What is exported, and how."""

    checkpoint: Path = Field(description="folder of a checkpoint or of a run")
    output_dir: Path = Field(description="where it goes; its name is the model's")
    dtype: StoredDtype = Field("float32", description="of the stored weights")
    weights: WeightsName = Field("auto", description="auto: averaged ones if saved")
    notes: Path | None = Field(
        None, description="Markdown for the model card: a summary, then sections"
    )


def run(read: Callable[[], ExportConfig]) -> None:
    """Export, and say where."""
    from hrm.checkpoint import export_checkpoint, load_checkpoint

    config = read()
    notes = notes_of(config.notes)
    checkpoint = load_checkpoint(config.checkpoint, config.weights)
    folder = export_checkpoint(checkpoint, config.output_dir, config.dtype, notes)
    size = sum(path.stat().st_size for path in folder.iterdir())
    write_output(f"{folder}: {size / 1e6:.2f} MB\n")


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
