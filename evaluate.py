"""Evaluate a checkpoint: `python evaluate.py checkpoint=…`. The same as `hrm evaluate`."""

from hrm.cli.evaluate import main
from hrm.errors import run_command

if __name__ == "__main__":
    run_command(main)
