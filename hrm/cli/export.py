"""`hrm export`: a model as others need it, in one small folder."""

import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from hrm.cli.options import SchemaCommand
from hrm.config import Config, Count, StoredDtype, WeightsName
from hrm.errors import UserError, write_output

HELP = """
hrm export checkpoints/quickstart/first --output-dir first
hrm export checkpoints/quickstart/first --output-dir first --dtype float16
hrm solve first 1....2....3....4

Write the folder that others need to run a model: its weights (the running
average, where there is one), configuration, metadata, a model card, and a few
puzzles of its test set. It is named wherever a checkpoint is, but cannot be
resumed.
"""


class ExportConfig(Config):
    """What is exported, and how."""

    checkpoint: Path = Field(description="folder of a checkpoint or of a run")
    output_dir: Path = Field(description="where it goes; its name is the model's")
    dtype: StoredDtype = Field("float32", description="of the stored weights")
    weights: WeightsName = Field("auto", description="auto: averaged ones if saved")
    examples: Count = Field(12, description="test puzzles that go with it, at most")
    notes: Path | None = Field(
        None, description="Markdown for the model card: a summary, then sections"
    )


def run(read: Callable[[], ExportConfig]) -> None:
    """Export, and say where."""
    from hrm.checkpoint import export_checkpoint, load_checkpoint
    from hrm.checkpoint.layout import TEST_SPLIT
    from hrm.data.split import Split
    from hrm.tasks.examples import choose_examples

    config = read()
    notes = ""
    if config.notes is not None:
        try:
            notes = config.notes.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"notes={config.notes}: cannot be read ({error})") from None
    checkpoint = load_checkpoint(config.checkpoint, config.weights)
    numbers: list[int] = []
    if config.examples and checkpoint.examples is not None:
        split = Split.open(checkpoint.examples / TEST_SPLIT)
        numbers = choose_examples(split, config.examples)
    elif config.examples:
        data = checkpoint.config.data_path
        print(f"note: {data} has no test split here, so no examples go with it", file=sys.stderr)
    folder = export_checkpoint(checkpoint, config.output_dir, config.dtype, notes, numbers)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    write_output(f"{folder}: {size / 1e6:.2f} MB\n")


command = SchemaCommand("export", ExportConfig, run, HELP, first="checkpoint")
