"""Data: the contract on disk, for any task; loader and writer. Loads torch only if asked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrm.data.dataset_writer import DatasetWriter
    from hrm.data.puzzle_dataset import PuzzleDataset, PuzzleDatasetConfig

HOMES = {
    "DatasetWriter": "hrm.data.dataset_writer",
    "PuzzleDataset": "hrm.data.puzzle_dataset",
    "PuzzleDatasetConfig": "hrm.data.puzzle_dataset",
}
__all__ = ["DatasetWriter", "PuzzleDataset", "PuzzleDatasetConfig"]


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'hrm.data' has no attribute {name!r}")
