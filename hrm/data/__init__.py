"""Data: the contract on disk, for any task; loader, writer, download. Loads torch only if asked."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrm.data.puzzle_dataset import PuzzleDataset, PuzzleDatasetConfig

__all__ = ["PuzzleDataset", "PuzzleDatasetConfig"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hrm.data import puzzle_dataset

        return getattr(puzzle_dataset, name)
    raise AttributeError(f"module 'hrm.data' has no attribute {name!r}")
