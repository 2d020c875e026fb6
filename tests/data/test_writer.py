"""SplitWriter: what was added, in the files that the loader reads."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.data.format import read_split
from hrm.data.writer import SplitWriter

METADATA = {
    "vocab_size": 9,
    "num_puzzle_identifiers": 100,
    "pad_id": 0,
    "ignore_label_id": None,
    "blank_identifier_id": 0,
}


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=6))
def test_groups_of_any_sizes(tmp_path_factory: pytest.TempPathFactory, groups: list[list[int]]):
    """Examples per puzzle per group; half of the groups are added whole."""
    split_dir = tmp_path_factory.mktemp("writer") / "train"
    rng = np.random.default_rng(0)
    inputs, labels = rng.integers(0, 9, (2, sum(map(sum, groups)), 6), np.uint8)
    done = puzzles = 0
    with SplitWriter(split_dir, "all", 6) as split:
        for number, counts in enumerate(groups):
            if number % 2:
                end = done + sum(counts)
                identifiers = 7 + np.arange(puzzles, puzzles + len(counts))
                split.add_puzzles(identifiers, inputs[done:end], labels[done:end], np.array(counts))
                done, puzzles = end, puzzles + len(counts)
            else:
                for count in counts:
                    end = done + count
                    split.add_puzzle(7 + puzzles, inputs[done:end], labels[done:end])
                    done, puzzles = end, puzzles + 1
            split.end_group()
        split.finish(**METADATA)

    metadata, sets = read_split(split_dir)
    arrays, counts = sets["all"], [count for group in groups for count in group]
    assert (metadata.total_groups, metadata.seq_len) == (len(groups), 6)
    assert metadata.mean_puzzle_examples == pytest.approx(np.mean(counts))
    np.testing.assert_array_equal(arrays.inputs, inputs)
    np.testing.assert_array_equal(arrays.labels, labels)
    np.testing.assert_array_equal(arrays.puzzle_identifiers, 7 + np.arange(len(counts)))
    np.testing.assert_array_equal(arrays.puzzle_indices, np.cumsum([0, *counts]))
    np.testing.assert_array_equal(arrays.group_indices, np.cumsum([0, *map(len, groups)]))


def test_the_files_are_those_of_numpy(tmp_path: Path) -> None:
    """The count of rows, unknown at first, is put into the header as numpy writes it."""
    tokens = np.arange(1200, dtype=np.uint8).reshape(200, 6) % 9
    with SplitWriter(tmp_path / "train", "all", 6) as split:
        split.add_puzzles(np.arange(200) // 2, tokens, tokens)
        split.end_groups(np.arange(2, 201, 2))
        split.finish(**METADATA)
    np.save(tmp_path / "expected.npy", tokens)
    written = (tmp_path / "train" / "all__inputs.npy").read_bytes()
    assert written == (tmp_path / "expected.npy").read_bytes()
    assert json.loads((tmp_path / "train" / "dataset.json").read_text())["total_groups"] == 100
