"""Build a data set of mazes. The same as `hrm build maze`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hrm.cli.launch import run_builder  # noqa: E402

if __name__ == "__main__":
    run_builder("maze", "build_maze_dataset.py")
