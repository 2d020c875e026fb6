"""Examples by number equal what lies in the files, whatever the sets, puzzles and groups."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.data.format import METADATA_FILE, DatasetMetadata, PuzzleArrays
from hrm.data.split import Split

TOKENS = 3


@st.composite
def sets_of_arrays(draw) -> list[PuzzleArrays]:
    """Up to three sets; groups of puzzles of examples, all of random sizes."""
    sets = []
    for number in range(draw(st.integers(1, 3))):
        groups = draw(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), max_size=4))
        puzzles = [size for group in groups for size in group]
        examples = sum(puzzles)
        tokens = np.arange(examples * TOKENS).reshape(-1, TOKENS) % 7 + number
        sets.append(
            PuzzleArrays(
                inputs=tokens.astype(np.uint8),
                labels=(tokens[::-1] % 5).astype(np.uint8),
                puzzle_identifiers=np.arange(len(puzzles), dtype=np.int32) + 10 * number,
                puzzle_indices=np.cumsum([0, *puzzles], dtype=np.int32),
                group_indices=np.cumsum([0, *map(len, groups)], dtype=np.int32),
            )
        )
    return sets


METADATA = DatasetMetadata(
    vocab_size=16,
    seq_len=TOKENS,
    num_puzzle_identifiers=40,
    pad_id=0,
    ignore_label_id=0,
    blank_identifier_id=-1,
    total_groups=1,
    mean_puzzle_examples=1.0,
    sets=("a",),
)


@given(sets=sets_of_arrays())
@settings(max_examples=60)
def test_every_example_is_found_in_its_group(sets):
    split, index = Split(METADATA, tuple(sets)), 0
    for arrays in sets:
        before = index
        for group in range(len(arrays.group_indices) - 1):
            first = before + sum(
                int(np.diff(arrays.puzzle_indices)[p])
                for p in range(int(arrays.group_indices[group]))
            )
            puzzles = range(*arrays.group_indices[group : group + 2].tolist())
            sizes = [int(np.diff(arrays.puzzle_indices)[p]) for p in puzzles]
            for puzzle, size in zip(puzzles, sizes, strict=True):
                for _ in range(size):
                    example, found = split.example(index), split.group(index)
                    row = index - before
                    np.testing.assert_array_equal(example.inputs, arrays.inputs[row])
                    known = arrays.labels[row].astype(int)
                    expected = np.where(known == 0, -100, known)
                    np.testing.assert_array_equal(example.labels, expected)
                    assert example.identifier == arrays.puzzle_identifiers[puzzle]
                    assert (found.number, found.first, found.last) == (
                        *(group, first),
                        first + sum(sizes),
                    )
                    index += 1
    assert len(split) == index
    for wrong in (-1, index, index + 5):
        with pytest.raises(IndexError, match="the first is 0"):
            split.example(wrong)


def test_a_built_data_set_opens(data_4x4):
    split = Split.open(data_4x4 / "train")
    described = json.loads((data_4x4 / "train" / METADATA_FILE).read_text())
    assert len(split) == 1100 and described["total_groups"] == 100
    group = split.group(25)
    assert (group.number, group.first, group.last) == (2, 22, 33)
