"""Compare runs. The same as `hrm report`."""

from hrm.cli.launch import run

if __name__ == "__main__":
    run("report", "report.py")
