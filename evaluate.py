"""Evaluate a checkpoint. The same as `hrm evaluate`."""

from hrm.cli.launch import run

if __name__ == "__main__":
    run("evaluate", "evaluate.py")
