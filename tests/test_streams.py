"""Standard streams that are closed, full, or read by nobody."""

import subprocess
import sys
from pathlib import Path

import pytest

from hrm.streams import Lasting
from tests.conftest import ROOT
from tests.watching import LONG


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line; `$PY` is Python and `$HRM` the command `hrm`."""
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PY": sys.executable}
    return subprocess.run(
        ["bash", "-c", f'HRM="$PY -m hrm"; {command}'],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=LONG,
    )


class Gone:
    """A stream whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError

    def fileno(self) -> int:
        raise ValueError

    def isatty(self) -> bool:
        return False


def test_lasting():
    stream = Lasting(Gone())
    print("unheard", file=stream, flush=True)
    assert not stream.isatty()
    with pytest.raises(BrokenPipeError):
        print("unheard", file=stream.stream)


def test_a_full_disk_under_standard_output_is_no_failure_at_the_end(tmp_path):
    body = "with lasting('stdout'): print('lost')"
    code = f'$PY -c "from hrm.streams import lasting\n{body}" >/dev/full'
    assert shell(code, tmp_path).returncode == 0
    assert shell("$PY -c \"print('lost')\" >/dev/full", tmp_path).returncode == 120


def test_what_is_printed_does_not_get_into_files_where_streams_were_closed(tmp_path):
    body = (
        "import os, sys; from hrm.streams import open_streams; open_streams(); "
        "file = open('file', 'w'); print('out'); print('err', file=sys.stderr); "
        "os.system('echo child; echo child >&2'); file.write(sys.stdin.read() + 'kept')"
    )
    result = shell(f'$PY -c "{body}" <&- >&- 2>&-', tmp_path)
    assert result.returncode == 0
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "command, code, out, err",
    [
        ("$HRM --version 2>&- <&-", 0, "hrm ", ""),
        ("$HRM --version >&-", 0, "", ""),
        ("$HRM --version >/dev/full", 2, "", "error: standard output: cannot be written"),
        ("$HRM nothing 2>&-", 2, "", ""),
        ("$HRM nothing 2>/dev/full", 2, "", ""),
        ("$HRM build sudoku --generate 2x2 --num-train 4 --output-dir d >&- 2>&- <&-", 0, "", ""),
    ],
)
def test_commands(tmp_path, command, code, out, err):
    result = shell(command, tmp_path)
    assert result.returncode == code, result.stderr
    assert result.stdout.startswith(out) and bool(result.stdout) == bool(out)
    assert result.stderr.startswith(err) and bool(result.stderr) == bool(err)
