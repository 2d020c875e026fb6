"""Compare runs: `python report.py RUN …`. The same as `hrm report`."""

from hrm.cli.report import main
from hrm.errors import run_command

if __name__ == "__main__":
    run_command(main)
