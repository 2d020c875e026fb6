"""Solve puzzles. The same as `hrm solve`."""

from hrm.cli.main import run

if __name__ == "__main__":
    run("solve", "solve.py")
