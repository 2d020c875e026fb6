"""Ranks without torchrun: real processes, forked from one that has imported torch already.

Importing torch takes seconds, and torchrun does it once more than there are ranks. Only what is
about torchrun itself has to start it.
"""

import itertools
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import torch

from .watching import LONG

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["hrm.cli.train", "hrm.cli.evaluate", "hrm.training.loop", "torch._dynamo"]
CONTEXT.set_forkserver_preload(PRELOADED)
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_ports = itertools.count(20_000 + 1000 * _worker)  # systems choose larger ones by themselves


def free_port() -> int:
    """One that no other process is given before ranks listen there."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def run_ranks(
    script: Path, arguments: tuple[str, ...], ranks: int, folder: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script in `folder` on so many ranks; the exit code is that of the first that failed.

    What they print is one rank's after the other's.
    """
    port = str(free_port())
    meeting = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    logs = [[folder / f".rank{rank}.{name}" for name in ("out", "err")] for rank in range(ranks)]
    processes = []
    with patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):  # the server's, when it is started
        for rank in range(ranks):
            own = {**env, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            values = (script, arguments, folder, own, logs[rank])
            processes.append(CONTEXT.Process(target=_run, args=values))
            processes[-1].start()
    for process in processes:
        process.join(LONG)
        process.kill()
        process.join()
    code = next((p.exitcode for p in processes if p.exitcode), 0)
    told = ["".join(of_rank[i].read_text() for of_rank in logs) for i in (0, 1)]
    for path in sum(logs, []):
        path.unlink()
    return subprocess.CompletedProcess([str(script), *arguments], code, *told)


def _run(
    script: Path,
    arguments: tuple[str, ...],
    folder: Path,
    env: Mapping[str, str],
    logs: tuple[Path, Path],
) -> None:
    for descriptor, log in zip((1, 2), logs, strict=True):
        with log.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(folder)
    os.environ.update(env)
    torch.set_num_threads(1)
    sys.argv = sys.orig_argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")
