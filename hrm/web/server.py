"""Runs the page's server until Ctrl-C."""

import logging
import socket
import sys
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import uvicorn

from hrm.checkpoint import find_checkpoint, shipped_models
from hrm.config import DeviceName, WeightsName
from hrm.errors import UserError, write_output
from hrm.hub import Repository, is_reference
from hrm.inference.batcher import MAX_BATCH
from hrm.inference.process import ModelProcess
from hrm.inference.remote import RemoteBatcher
from hrm.web.app import create_app
from hrm.web.catalogue import Catalogue
from hrm.web.guard import LOOPBACK, App
from hrm.web.hosting import Models

MOST_CONNECTIONS = 4096
SHUTDOWN_SECONDS = 2
ANYWHERE = ("0.0.0.0", "::", "")


def serve(
    checkpoint: Path | None,
    checkpoints_root: Path,
    data_root: Path,
    host: str,
    port: int,
    device: DeviceName = "auto",
    weights: WeightsName = "auto",
    max_batch: int = MAX_BATCH,
    process: ModelProcess | None = None,
) -> None:
    """Run the server until Ctrl-C.

    Args:
        checkpoint: is loaded first, and is the page's first choice; None: a model of the package.
        process: for the first model, where it has been started already.

    Raises:
        UserError: the checkpoint cannot be served, or the address is taken.
    """
    shipped = shipped_models()
    checkpoint = checkpoint or Path(next(iter(shipped)))
    found = find_checkpoint(checkpoint)
    others = shipped | (
        {str(Repository.parse(str(checkpoint))): found} if is_reference(checkpoint) else {}
    )
    default = found if found in others.values() else checkpoint
    catalogue = Catalogue(checkpoints_root, data_root, default, others)
    first = str(catalogue.default_id)
    if first not in catalogue.checkpoints():
        raise UserError(
            f"checkpoint={checkpoint}: cannot be served; it must be a step_<n> folder or a run's, "
            "with its all_config.yaml and dataset.json"
        )
    hosts = None if host in ANYWHERE else [*LOOPBACK, host.lower(), f"[{host.lower()}]"]
    _allow_connections()
    try:
        listener = socket.create_server((host, port), family=_family(host), backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such host name"
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({reason}); choose another"
        ) from None
    load = partial(RemoteBatcher, device=device, weights=weights, max_batch=max_batch)
    with listener, closing(load(default, process=process)) as batcher:
        models = Models(load)
        models.add(first, catalogue.checkpoint(first).path, batcher)
        _run(create_app(catalogue, models, hosts), models, listener, host)


def _run(app: App, models: Models, listener: socket.socket, host: str) -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every client that leaves
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        http="h11",
        ws="none",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    name = f"[{host}]" if ":" in host else host
    write_output(f"http://{name}:{listener.getsockname()[1]}   (Ctrl-C ends it)\n")
    _Server(config, models).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Closes the models before it waits for open answers, so that each ends by a last line."""

    def __init__(self, config: uvicorn.Config, models: Models) -> None:
        super().__init__(config)
        self._models = models

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._models.close()
        await super().shutdown(sockets)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _allow_connections() -> None:
    """Let this process hold as many connections as the system allows it."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):  # macOS takes no infinity
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
