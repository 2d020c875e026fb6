"""A 9x9 model of the package in all forms that leave it; they take seconds, so tests share them."""

from dataclasses import dataclass
from pathlib import Path

from hrm.web.runtime import FILES

from .keys.commands import done

PUZZLE = "...58..9....1..5.2..7..6..4.2...1.5.3.5.2....9...3.6..74.35..1..5........19......"


@dataclass(frozen=True)
class Exported:
    folder: Path  # with model.onnx, model.pt2, page/; runtime/, which the page was given
    told: str  # standard output


def export_all(folder: Path) -> Exported:
    """In one command. The page gets a runtime that is none: tests put the real one there.

    Where it has been done, it is not done again.
    """
    told = folder / "told.txt"
    if told.exists():
        return Exported(folder, told.read_text())
    (folder / "runtime").mkdir(parents=True)
    for name in FILES:
        (folder / "runtime" / name).write_text(f"// {name}")
    targets = ("onnx", "model.onnx"), ("torch-export", "model.pt2"), ("page", "page")
    places = (*targets, ("runtime", "runtime"))
    words = [word for name, file in places for word in (f"--{name}", folder / file)]
    told.write_text(done("export", "sudoku-9x9", "--examples", "3", *words))
    return Exported(folder, told.read_text())
