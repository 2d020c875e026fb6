"""Build a Sudoku data set. The same as `hrm build sudoku`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hrm.cli.build import main  # noqa: E402
from hrm.errors import run_command  # noqa: E402

if __name__ == "__main__":
    run_command(main)
