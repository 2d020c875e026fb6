"""Build an ARC data set. The same as `hrm build arc`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hrm.cli.launch import run_builder  # noqa: E402

if __name__ == "__main__":
    run_builder("arc", "build_arc_dataset.py")
