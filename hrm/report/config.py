"""What a report is made of; the flags of `hrm report`."""

from pathlib import Path

from pydantic import Field

from hrm.config import Config, DeviceName, FileName, PositiveInt


class ReportConfig(Config):
    """Which runs, which puzzles they solve, and where the page goes."""

    runs: tuple[Path, ...] = Field(min_length=1, description="folders of runs")
    output: Path | None = Field(None, description="the page; if not given, report.html")
    data: Path | None = Field(None, description="data set of the puzzles; if not given, its own")
    split: FileName = Field("test", description="which part of the data set")
    limit: PositiveInt = Field(1000, description="puzzles at most, evenly spaced")
    device: DeviceName = Field("auto", description="where to compute")
    curves_only: bool = Field(False, description="solve no puzzles, draw only the curves")
