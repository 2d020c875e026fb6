"""Solve puzzles. The same as `hrm solve`."""

from hrm.cli.launch import run

if __name__ == "__main__":
    run("solve", "solve.py")
