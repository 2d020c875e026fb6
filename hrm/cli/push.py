"""`hrm push`: a model as others need it, on the Hugging Face Hub."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import Field, field_validator

from hrm.cli.export import SharedConfig, chosen, export_folder, opened
from hrm.cli.options import SchemaCommand
from hrm.config import StoredDtype
from hrm.errors import write_output
from hrm.hub import Repository, push

HELP = """
hrm push checkpoints/quickstart/first me/first      # after: hf auth login
hrm push checkpoints/quickstart/first me/first@trial --dtype float16 --private
hrm solve hf://me/first .3..1.3...4.4...

Share a model: what `hrm export` writes becomes a commit to a repository of the
Hugging Face Hub, which is made if it is not there. hf://me/first then stands
for the model wherever a checkpoint is named.
"""


class PushConfig(SharedConfig):
    """What is shared, and where."""

    repository: str = Field(description="user/name, or user/name@branch")
    private: bool = Field(False, description="show a new repository to yourself alone")
    message: str = Field("Upload model", description="of the commit")
    dtype: StoredDtype = Field("float32", description="of the stored weights")

    @field_validator("repository")
    @classmethod
    def _is_a_repository(cls, text: str) -> str:
        repository = Repository.parse(text)
        if repository.place or repository.kind != "model":
            raise ValueError("expected user/name or user/name@branch")
        return text


def run(read: Callable[[], PushConfig]) -> None:
    """Export, upload, and say where."""
    config = read()
    from hrm.checkpoint.layout import CARD_PICTURE_FILE
    from hrm.data.format import IDENTIFIERS_FILE, METADATA_FILE, TEST_SPLIT

    # Of a model that was pushed before; an export may lack them.
    replaced = (
        *(f"{TEST_SPLIT}/{METADATA_FILE}", f"{TEST_SPLIT}/*__*.npy"),
        *(IDENTIFIERS_FILE, CARD_PICTURE_FILE),
    )
    repository = Repository.parse(config.repository)
    checkpoint = opened(config)
    numbers = chosen(checkpoint, config.examples)
    with TemporaryDirectory() as folder:
        target = Path(folder) / repository.name.partition("/")[2]
        typed = str(repository)
        export_folder(config, checkpoint, numbers, target, config.dtype, True, typed)
        address = push(target, repository, config.private, config.message, delete=replaced)
    write_output(f"{address}: named {repository} wherever a checkpoint is\n")


command = SchemaCommand("push", PushConfig, run, HELP, first="checkpoint", second="repository")
