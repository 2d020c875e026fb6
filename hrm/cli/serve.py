"""`hrm serve`: the web page."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from hrm.cli.options import SchemaCommand
from hrm.config import Config, DeviceName, WeightsName
from hrm.inference.process import ModelProcess

HELP = """
hrm serve
hrm serve checkpoints/quickstart/first

Open the web page: type or paste puzzles, watch the model think, look at runs
and data sets. The models of this package are there, too. Ctrl-C ends it. Needs
the extra: pip install 'recursive-reasoning[web]'
"""


class ServeConfig(Config):
    """What is served, and where."""

    checkpoint: Path | None = Field(
        None,
        description="folder of a checkpoint or of a run, the page's first; if not given, a model "
        "of this package",
    )
    host: str = Field("127.0.0.1", description="address to listen at")
    port: Annotated[int, Field(ge=0, lt=2**16)] = Field(8000, description="0 takes a free one")
    checkpoints_root: Path = Field(Path("checkpoints"), description="folder of checkpoints")
    data_root: Path = Field(Path("data"), description="folder of data sets")
    weights: WeightsName = Field("auto", description="auto: averaged ones if saved")
    device: DeviceName = Field("auto", description="where to compute")


def run(read: Callable[[], ServeConfig]) -> None:
    """Open the web page until Ctrl-C."""
    config = read()
    with ModelProcess() as process:  # imports torch while this process does
        from hrm.web import serve

        serve(**dict(config), process=process)


command = SchemaCommand(
    "serve",
    ServeConfig,
    run,
    HELP,
    first="checkpoint",
    surplus="is one input too many: serve takes no puzzles; type or paste them into the page",
)
