"""Compare runs. The same as `hrm report`."""

from hrm.cli.main import run

if __name__ == "__main__":
    run("report", "report.py")
