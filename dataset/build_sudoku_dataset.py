"""Build a Sudoku data set. The same as `hrm build sudoku`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hrm.cli.launch import run_builder  # noqa: E402

if __name__ == "__main__":
    run_builder("sudoku", "build_sudoku_dataset.py")
