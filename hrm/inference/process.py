"""A process of its own for a model, and the pipe to it.

Imports Python's own modules and `hrm.machine` alone, so that the process can import torch while
this one still imports what it needs itself.
"""

import os
import signal
import subprocess
import sys
from multiprocessing.connection import Pipe

from hrm.machine import usable_cores

HOST = "hrm.inference.remote"  # whose `host` runs in the process
PROGRAM = """
import sys
from importlib import import_module
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
sys.path[:], module = pipe.recv()
import_module(module).host(pipe)
"""


class ModelProcess:
    """A fresh Python process: torch has threads, so nothing is forked.

    It is in a process group of its own, so that Ctrl-C reaches this process alone; and it ends at
    the end of the pipe, which comes however this process ends.
    """

    def __init__(self) -> None:
        self.pipe, other = Pipe()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(other.fileno())],
                env={"OMP_NUM_THREADS": str(threads_beside_a_server()), **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=2,  # what it prints is no result
                pass_fds=[other.fileno()],
                process_group=0,
            )
        self.pipe.send((sys.path, HOST))

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> str:
        """End it at once; returns how it ended, which may have been before."""
        self._process.kill()
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def __enter__(self) -> "ModelProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and close the pipe, which nobody may be using."""
        self.end()
        self.pipe.close()


def threads_beside_a_server() -> int:
    """How many threads a model may use: all cores but the one that talks to clients."""
    return max(1, usable_cores() - 1)
