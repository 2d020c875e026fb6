"""A page that needs no server: a folder with the view Solve, the model, and what computes it.

The files are those of the server's page but for `transport.js`, which answers in its place.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hrm.checkpoint import Checkpoint
from hrm.checkpoint.step_graph import facts
from hrm.data.format import TEST_SPLIT
from hrm.data.split import Split
from hrm.errors import UserError
from hrm.files import atomic_folder
from hrm.tasks import Task, task_of
from hrm.web import schemas

STATIC = Path(__file__).parent / "static"
LOCAL = Path(__file__).parent / "local"
# Of views that need a server.
LEFT_OUT = {"data.js", "test_puzzles.js", "training.js", "wrong.js", "index.html"}
OF_SERVER = re.compile(r" *<!-- server -->.*?<!-- /server -->\n", re.DOTALL)
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
MODEL_DIR, RUNTIME_DIR, PAGE_FILE = "model", "runtime", "page.json"
PAGE_NAMES = {"index.html", "static", MODEL_DIR, RUNTIME_DIR}
TAB_PANEL = ' role="tabpanel" aria-labelledby="tab-solve"'
DATA_ID = "the data set"
MOST_VERSIONS = 16


def check_page(target: Path) -> None:
    """
    Raises:
        UserError: something else than such a page lies at `target`.
    """
    is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not is_free and not (target / MODEL_DIR / PAGE_FILE).is_file():
        raise UserError(f"page={target}: is there already, and is no exported page")
    others = [] if is_free else sorted({path.name for path in target.iterdir()} - PAGE_NAMES)
    if others:
        raise UserError(
            f"page={target}: {others[0]} would be lost; name another folder, and copy the page"
        )


def write_page(
    target: Path,
    checkpoint: Checkpoint,
    write_model: Callable[[Path], None],
    runtime: Mapping[str, bytes],
    examples: Sequence[int] = (),
) -> Path:
    """Write the folder; any host of static files serves it.

    Args:
        target: is replaced where it holds such a page, and must else be free.
        write_model: writes the model's ONNX file to a path.
        runtime: as `hrm.web.runtime.runtime_files` gives it.
        examples: numbers of test examples (`Checkpoint.examples`) that are offered.

    Raises:
        UserError: something else lies at `target`, or it cannot be written; nothing half-written
            stays.
    """
    check_page(target)
    page = json.dumps(describe_page(checkpoint, examples), separators=(",", ":"))
    index = (STATIC / "index.html").read_text(encoding="utf-8")
    try:
        with atomic_folder(target) as folder:
            for name in ("static", MODEL_DIR, RUNTIME_DIR):
                (folder / name).mkdir()
            for path in (*STATIC.iterdir(), *LOCAL.iterdir()):
                if path.is_file() and path.name not in LEFT_OUT:
                    shutil.copyfile(path, folder / "static" / path.name)
            (folder / "index.html").write_text(_without_server(index), encoding="utf-8")
            for name, content in runtime.items():
                (folder / RUNTIME_DIR / name).write_bytes(content)
            (folder / MODEL_DIR / PAGE_FILE).write_text(page, encoding="utf-8")
            write_model(folder / MODEL_DIR / "model.onnx")
    except OSError as error:
        raise UserError(f"page={target}: could not be written ({error})") from None
    return target


def describe_page(checkpoint: Checkpoint, examples: Sequence[int] = ()) -> dict[str, Any]:
    """What the page asks for, as the server says it: plain values."""
    task, path = task_of(checkpoint.metadata), checkpoint.path
    info = schemas.CheckpointInfo.of(
        task,
        id=path.name if checkpoint.step is None else path.parent.name,
        max_steps=checkpoint.config.steps_at_most("learned"),
        guess_steps=0,
        data_path_id=None,
        step=checkpoint.step,
    )
    versions = _versions(task)
    rules = {"most_versions": 1 + len(versions), "judged": task.judges and bool(task.units)}
    info = info.model_copy(update={"rules": info.rules.model_copy(update=rules)})
    shown = _examples(checkpoint, task, examples)
    datasets = []
    if shown:
        info = info.model_copy(update={"data_path_id": DATA_ID})
        kind = info.model_dump(include=set(schemas.Kind.model_fields)) | {"id": DATA_ID}
        datasets = [kind | {"splits": {"test": {"examples": len(shown), "groups": len(shown)}}}]
    return {
        "checkpoint": info.model_dump(),
        "facts": facts(checkpoint),
        "versions": versions,
        "datasets": datasets,
        "examples": shown,
    }


def _versions(task: Task) -> list[dict[str, list[int]]]:
    """Symmetric versions of any puzzle, for votes."""
    count = min(task.most_versions, MOST_VERSIONS) - 1
    if task.votes_by_name or count == 0:
        return []
    drawn = task.symmetries(count, seed=0)
    return [{"place": one.place.tolist(), "tokens": one.tokens.tolist()} for one in drawn]


def _examples(checkpoint: Checkpoint, task: Task, numbers: Sequence[int]) -> list[dict[str, Any]]:
    if not numbers or checkpoint.examples is None:
        return []
    split = Split.open(checkpoint.examples / TEST_SPLIT)
    found = [split.example(number) for number in numbers]
    return [
        {
            "puzzle": task.grid.text(example.inputs),
            "answer": task.grid.text(example.labels),  # "?" where none is known
            "identifier": -1,
        }
        for example in found
    ]


def _without_server(index: str) -> str:
    """The page's frame with the view Solve alone, whose addresses are told from its own folder."""
    alone = OF_SERVER.sub("", index).replace(TAB_PANEL, "").replace('"/static/', '"static/')
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return alone.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n  {policy}')
