"""Solve puzzles: `python solve.py checkpoint=… [PUZZLE …]`. The same as `hrm solve`."""

from hrm.cli.solve import main
from hrm.errors import run_command

if __name__ == "__main__":
    run_command(main)
