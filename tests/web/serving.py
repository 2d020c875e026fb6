"""A server on a free port, and small runs for it to find."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import httpx
import torch
import uvicorn

from hrm.checkpoint import build_for, save_checkpoint, shipped_models
from hrm.checkpoint.finding import FIRST_SHIPPED
from hrm.data.format import read_metadata
from hrm.inference.batcher import Batcher
from hrm.inference.solver import Solver
from hrm.training.config import load_pretrain_config
from hrm.web import catalogue as catalogue_module
from hrm.web.app import create_app
from hrm.web.catalogue import Catalogue
from hrm.web.hosting import Model, Models
from hrm.web.thinking import THINK_SECONDS

from ..conftest import SMALL_MODEL
from ..watching import LONG

LOAD = partial(Solver.from_checkpoint, device="cpu")


def client_of(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=LONG)


def save_runs(root: Path, data: Path) -> Path:
    """Two runs of fresh weights under `root`/tests, with metrics, on the data set in `data`.

    `patient` never halts before its 4 steps are taken, `eager` after the first. A third one,
    `begun`, has metrics and no checkpoint yet.
    """
    (root / "tests" / "begun").mkdir(parents=True)
    append_metrics(root / "tests" / "begun", step=1, loss=3.0, fresh=True)
    metadata = read_metadata(data / "train")
    for name, q_halt in (("patient", -5.0), ("eager", 5.0)):
        config = load_pretrain_config([f"data_path={data}", f"run_name={name}", *SMALL_MODEL])
        torch.manual_seed(0)
        state = build_for(config, metadata).state_dict()
        [bias] = [value for key, value in state.items() if key.endswith("q_head.bias")]
        bias.copy_(torch.tensor([q_halt, -q_halt]))
        folder = root / "tests" / name
        save_checkpoint(folder, 7, config, metadata, state)
        append_metrics(folder, step=7, loss=1.0, fresh=True)
    return root


def append_metrics(folder: Path, step: int, loss: float, fresh: bool = False) -> None:
    """One line of training and one of evaluation; `fresh` begins the file anew."""
    path = folder / "metrics.jsonl"
    lines = [
        {"step": step, "train/lm_loss": loss, "train/exact_accuracy": 0.5, "train/steps": 3.5},
        {"step": step, "eval/lm_loss": loss + 0.1, "eval/exact_accuracy": 0.25, "eval/steps": 4},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text if fresh else path.read_text() + text)


def in_this_process(load: Callable[[Path], Solver], **limits: int) -> Callable[[Path], Batcher]:
    """Loads models whose batchers are threads of this process, which takes no time to start."""
    return lambda path: Batcher(load(path), **limits)


@contextmanager
def serve(
    checkpoints: Path,
    data: Path,
    load: Callable[[Path], Solver] = LOAD,
    think_seconds: float = THINK_SECONDS,
    host: Callable[[Path], Model] | None = None,
    shipped: bool = False,
    **limits: int,
) -> Iterator[str]:
    """Run the server in a thread; yields its address, without a slash at the end.

    Args:
        host: loads models; None: by `load`, into this process.
        shipped: with the models of the package, as `hrm serve` has them.
        limits: of each `Batcher`.
    """
    models = Models(host or in_this_process(load, **limits))
    others = shipped_models() if shipped else {}
    catalogue = Catalogue(checkpoints, data, others.get(FIRST_SHIPPED), others)
    app = create_app(catalogue, models, think_seconds=think_seconds)
    config = uvicorn.Config(app, port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    with patch.object(catalogue_module, "SCAN_SECONDS", 0.1):
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.02)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()
