"""The package alone, in an empty environment and outside of any checkout."""

import json
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, SMALL_MODEL

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation")
BUILT = "--generate 2x2 --num-train 40 --num-test 8 --num-aug 3 --output-dir data/small"
Hrm = Callable[..., str]


def _checked(*command: str | Path, **more: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def _sources(tmp_path: Path) -> str:
    """A copy of the checkout, since setuptools writes into it."""
    copy = tmp_path / "sources"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "hrm", copy / "hrm", ignore=shutil.ignore_patterns("__pycache__"))
    return str(copy)


def _git_url(tmp_path: Path) -> str:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("git, or the repository, is not here")
    _checked("git", "clone", "--quiet", ROOT, tmp_path / "clone")
    _checked("git", "tag", "v9.8.7", cwd=tmp_path / "clone")
    return f"git+file://{tmp_path / 'clone'}"


def _install(source: str, tmp_path: Path) -> Hrm:
    """Runs the installed `hrm` in an empty folder; the dependencies are this environment's."""
    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    _checked(*PIP, "wheel", *OFFLINE, "--wheel-dir", tmp_path, source)
    [wheel] = tmp_path.glob("*.whl")
    _checked(*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel)
    [packages] = home.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    folder = tmp_path / "anywhere"
    folder.mkdir()
    env = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    env |= {"HOME": str(folder), "MPLCONFIGDIR": str(folder / ".matplotlib")}

    def run(*words: str, start: bool = False):
        command = [str(home / "bin" / "hrm"), *words]
        if start:
            return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
        return _checked(*command, cwd=folder, env=env)

    where = _checked(python, "-c", "import hrm; print(hrm.__file__)", cwd=folder, env=env)
    assert Path(where.strip()).is_relative_to(packages)
    assert (packages / "hrm" / "py.typed").exists()
    return run


def test_it_is_installed_from_git(tmp_path):
    """What else it can do is no other than what the same files can from a checkout."""
    hrm = _install(_git_url(tmp_path), tmp_path)
    assert hrm("--version") == "hrm 9.8.7\n"  # as it is tagged
    assert "40 puzzles" in hrm("build", "sudoku", *BUILT.split())


def test_everything_works_outside_of_a_checkout(tmp_path):
    hrm = _install(_sources(tmp_path), tmp_path)
    assert hrm("--version") == "hrm 0.1.0\n"  # without a history
    assert hrm("solve", ".3..1.3...4.4...", "--format", "line") == "2314143232414123\n"
    assert "40 puzzles" in hrm("build", "sudoku", *BUILT.split())
    given = (*SMALL_MODEL, "arch=quickstart", "global_batch_size=8", "epochs=4", "eval_interval=4")
    hrm("train", "data/small", *given, "checkpoint_path=checkpoints/tests/first", "run_name=first")
    run_dir = tmp_path / "anywhere" / "checkpoints" / "tests" / "first"
    assert (run_dir / "step_20").is_dir()
    metrics = json.loads(hrm("evaluate", "checkpoints/tests/first"))
    assert metrics["step"] == 20 and metrics["eval/count"] == 8
    solved = hrm("report", "checkpoints/tests/first", "--limit", "4")
    assert "report: " in solved and "4 puzzles of" in (run_dir / "report.html").read_text()
    # Exit code 1 would say that it is not solved, which 20 steps do not teach.
    command = ("solve", "checkpoints/tests/first", "." * 16, "--format", "json")
    process = hrm(*command, start=True)
    [answer] = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode in (0, 1) and len(json.loads(answer)["answer"]) == 16

    server = hrm("serve", "checkpoints/tests/first", "--port", "0", start=True)
    try:
        url = server.stdout.readline().split()[0]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for path, text in (("/", "<title>"), ("/api/checkpoints", "tests/first")):
            with opener.open(url + path, timeout=60) as response:
                assert text in response.read().decode()
    finally:
        server.kill()
        server.communicate()
