"""Signals that ask a program to end, in processes of their own, since they do end."""

import os
import signal
import subprocess
import sys

import pytest

from hrm.signals import handled_by
from tests.conftest import ROOT
from tests.watching import LONG, started

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def run(body: str, number: int) -> subprocess.CompletedProcess[str]:
    """Run Python code, in which `main` can be defined; `send()` sends the signal, soon."""
    code = (
        "import hashlib, os, signal, sys, threading, time\n"
        "from hrm.errors import run_command\nfrom hrm.signals import ending_at_once\n"
        "def send():\n"
        f"    threading.Timer(0.2, os.kill, (os.getpid(), {number})).start()\n{body}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("number", ALL)
def test_a_command_tidies_up_and_ends_with_128_and_the_number(number):
    body = (
        "def main():\n    try:\n        send()\n        time.sleep(30)\n"
        "    finally:\n        print('tidied up')\nrun_command(main)"
    )
    result = run(body, number)
    assert (result.returncode, result.stdout) == (128 + number, "tidied up\n")
    assert result.stderr == "interrupted\n"


@pytest.mark.parametrize("number", ALL)
def test_a_signal_that_comes_where_exceptions_are_ignored_is_not_lost(number):
    body = (
        "class Thing:\n    def __del__(self):\n"
        f"        os.kill(os.getpid(), {number})\n        time.sleep(0)\n"
        "def main():\n    Thing()\n    time.sleep(10)\n    print('not heard')\nrun_command(main)"
    )
    result = run(body, number)
    assert (result.returncode, result.stdout, result.stderr) == (128 + number, "", "interrupted\n")


@pytest.mark.parametrize("number", ALL)
def test_a_signal_waits_while_signals_are_held(number):
    body = (
        "from hrm.signals import holding_signals\n"
        "def main():\n    with holding_signals():\n"
        f"        os.kill(os.getpid(), {number})\n        time.sleep(0.2)\n        print('done')\n"
        "    time.sleep(10)\n    print('not heard')\nrun_command(main)"
    )
    result = run(body, number)
    assert (result.returncode, result.stdout) == (128 + number, "done\n")
    assert result.stderr == "interrupted\n"


def test_a_signal_that_was_held_is_not_lost_to_an_error():
    body = (
        "from hrm.signals import holding_signals\n"
        "def main():\n    with holding_signals():\n"
        "        os.kill(os.getpid(), 15)\n        raise ValueError\nrun_command(main)"
    )
    assert run(body, signal.SIGTERM).returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", ALL)
def test_ending_at_once_does_not_wait_for_c_code(number):
    """The C code takes minutes, and is not interrupted by signals."""
    body = "with ending_at_once():\n    send()\n    hashlib.pbkdf2_hmac('md5', b'', b'', 10**9)"
    result = run(body, number)
    assert result.returncode == 128 + number
    assert set(result.stderr.splitlines()) == {"interrupted"}


def test_nohup_is_respected():
    body = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "run_command(lambda: (send(), time.sleep(1), print('still here')))"
    )
    result = run(body, signal.SIGHUP)
    assert (result.returncode, result.stdout, result.stderr) == (0, "still here\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of this")
def test_a_worker_ends_when_torchrun_is_killed():
    worker = (
        "import time\nfrom hrm.errors import run_command\n"
        "run_command(lambda: (print('ready', flush=True), time.sleep(60)))"
    )
    torchrun = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    command = [sys.executable, "-c", torchrun]
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "x"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with started(command, cwd=ROOT, env=environment, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.communicate(timeout=LONG)[0] == "interrupted\n"


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in ALL]
    with handled_by(lambda number, frame: None):
        assert all(signal.getsignal(n) not in before for n in ALL)
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in ALL] == before
