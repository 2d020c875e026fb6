"""Evaluate a checkpoint. The same as `hrm evaluate`."""

from hrm.cli.main import run

if __name__ == "__main__":
    run("evaluate", "evaluate.py")
