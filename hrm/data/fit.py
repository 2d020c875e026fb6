"""Whether a model that was trained on one data set can be given another's puzzles."""

from collections.abc import Callable
from typing import Any

from hrm.data.format import DatasetMetadata
from hrm.errors import UserError

ASSUMED: dict[str, Callable[[DatasetMetadata], Any]] = {
    "task": lambda metadata: metadata.task,
    "seq_len": lambda metadata: metadata.seq_len,
    "vocab_size": lambda metadata: metadata.vocab_size,
    "grid_shape": lambda metadata: metadata.inferred_grid_shape(),
    "box_shape": lambda metadata: metadata.inferred_box_shape(),
    "symbols": lambda metadata: metadata.symbols,
    "pad_id": lambda metadata: metadata.pad_id,
}


def check_fits(trained: DatasetMetadata, given: DatasetMetadata, place: str) -> None:
    """Compare all that a model assumes of its data, so far as both sides say it.

    Args:
        place: names the given data set in an error.

    Raises:
        UserError: something differs; names both values.
    """
    for key, value_of in ASSUMED.items():
        ours, theirs = value_of(trained), value_of(given)
        if ours is not None and theirs is not None and ours != theirs:
            raise UserError(
                f"{place}: {key} is {_shown(theirs)}, but the model was trained with "
                f"{_shown(ours)}; name a data set of the same kind"
            )


def _shown(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
