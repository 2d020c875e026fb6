"""ARC among the tasks: which data are of it, how they are drawn and read."""

from typing import Any

import pytest

from hrm.data.format import DatasetMetadata
from hrm.tasks import PuzzleError, task_of
from hrm.tasks.arc.encoding import SYMBOLS
from hrm.tasks.arc.task import ArcTask

PLAIN = {
    "vocab_size": 12,
    "seq_len": 900,
    "num_puzzle_identifiers": 5,
    "pad_id": 0,
    "ignore_label_id": 0,
    "blank_identifier_id": 0,
    "total_groups": 1,
    "mean_puzzle_examples": 3.0,
    "sets": ("all",),
}
SMALL = {"task": "arc", "seq_len": 64, "symbols": SYMBOLS}


def metadata(**changes: Any) -> DatasetMetadata:
    return DatasetMetadata.model_validate(PLAIN | changes)


@pytest.mark.parametrize("changes", [{}, {"task": "arc"}, SMALL])
def test_what_the_original_writes_and_what_we_do_is_arc(changes: dict[str, Any]) -> None:
    assert type(task_of(metadata(**changes))) is ArcTask


@pytest.mark.parametrize(
    "changes",
    [{"vocab_size": 11}, {"seq_len": 64}, {"task": "grids"}, SMALL | {"grid_shape": (4, 16)}],
)
def test_other_data_are_not(changes: dict[str, Any]) -> None:
    assert type(task_of(metadata(**changes))) is not ArcTask


def test_a_grid_alone_is_put_into_the_corner() -> None:
    task = task_of(metadata(**SMALL))
    tokens = task.read("305\n055\n")
    shown = task.grid.text(tokens)
    assert [shown[n : n + 8] for n in range(0, 64, 8)] == [
        *("305=____", "055=____", "===_____"),
        *["________"] * 5,
    ]
    assert task.read(shown).tolist() == tokens.tolist()
    assert not task.grid.givens(tokens).any() and task.are_valid(tokens[None], tokens[None]) == [
        None
    ]


@pytest.mark.parametrize("text", ["30\n055", "305x", "123456789", "1\n" * 9, ""])
def test_what_is_no_grid_is_refused(text: str) -> None:
    with pytest.raises(PuzzleError):
        task_of(metadata(**SMALL)).read(text)
