"""The house as CONTRIBUTING.md draws it: imports point one way, and files stay small."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

PACKAGE = ROOT / "hrm"
FOUNDATION = (
    *("errors", "signals", "streams", "progress", "files", "plain_yaml", "config", "records"),
    "ranks",
    "hub",
    "machine",
)
JOINED = dict.fromkeys(FOUNDATION, "foundation") | {"metrics": "evaluation"}
LONGEST_FILE = 420  # lines

Arrow = tuple[str, str]


def room(module: str) -> str | None:
    """The room of a module by its dotted name; None for the package itself."""
    parts = module.split(".")
    return JOINED.get(parts[1], parts[1]) if len(parts) > 1 else None


def imported(path: Path) -> list[str]:
    """Modules of this package that a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "hrm":
            found += [f"hrm.{name.name}" for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(node.module or "")
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names]
    return [name for name in found if name.split(".")[0] == "hrm"]


@pytest.fixture(scope="module")
def arrows() -> dict[Arrow, list[str]]:
    """Arrows between rooms in the code, with the files that draw them."""
    found: dict[Arrow, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        own = room(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        for name in imported(path):
            other = room(name)
            if own and other and own not in (other, "__main__"):
                found.setdefault((own, other), []).append(str(path.relative_to(ROOT)))
    return found


@pytest.fixture(scope="module")
def picture() -> set[Arrow]:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    [mermaid] = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    return set(re.findall(r"(\w+) --> (\w+)", mermaid))


def below(picture: set[Arrow]) -> dict[str, set[str]]:
    """Every room that is reached from a room along the arrows."""
    reached = {
        own: {b for a, b in picture if a == own} for own in {r for ab in picture for r in ab}
    }
    for _ in reached:
        reached = {own: of.union(*(reached[r] for r in of)) for own, of in reached.items()}
    return reached


def test_imports_follow_the_arrows(arrows, picture):
    reached = below(picture)
    wrong = {arrow: files for arrow, files in arrows.items() if arrow[1] not in reached[arrow[0]]}
    assert wrong == {}


def test_the_picture_draws_nothing_that_is_not_there(arrows, picture):
    assert picture <= arrows.keys()


def test_no_arrow_leads_back(picture):
    reached = below(picture)
    assert [own for own in reached if own in reached[own]] == []
    assert "inference" not in reached["training"] and "training" not in reached["inference"]


def test_every_room_is_drawn(picture):
    drawn = {r for arrow in picture for r in arrow}
    rooms = {room(f"hrm.{path.stem}") for path in PACKAGE.iterdir() if path.stem[0] != "_"}
    assert rooms - {"recipes", "shipped", "py"} <= drawn


def test_only_tasks_know_which_task_it_is():
    asking = re.compile(
        r"is_sudoku|is_maze|is_arc\b|SudokuTask|MazeTask|ArcTask|task\.name ==|\"sudoku\"|'sudoku'"
    )
    allowed = (PACKAGE / "tasks", PACKAGE / "cli" / "build.py")
    guilty = [
        path
        for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.js")]
        if not any(path.is_relative_to(place) for place in allowed)
        and asking.search(path.read_text())
    ]
    assert guilty == []


def test_files_are_small():
    lines = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path: n for path, n in lines.items() if n > LONGEST_FILE} == {}


@pytest.mark.parametrize(
    "modules",
    [
        *("hrm", "hrm.data", "hrm.data.writer", "hrm.data.dataset_writer", "hrm.tasks", "hrm.cli"),
        *(f"hrm.tasks.{task}.builder" for task in ("sudoku", "maze", "arc", "grids")),
    ],
)
def test_data_are_built_without_torch(modules):
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_model_files_are_modules_alone():
    """No I/O, logging, distributed or configuration files in models."""
    banned = {"os", "pathlib", "logging", "json", "yaml", "hydra", "omegaconf", "argparse", "click"}
    for path in (PACKAGE / "models").glob("*.py"):
        text = path.read_text()
        names = re.findall(r"^\s*(?:from|import) ([\w.]+)", text, re.MULTILINE)
        assert not banned & {name.split(".")[0] for name in names}, path
        assert "torch.distributed" not in names, path
