"""Every key of the loader acts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.format import IGNORE_LABEL_ID
from hrm.errors import UserError

from .registry import Registry
from .training import PUZZLES, TEST_PUZZLES

acts = Registry()


@pytest.fixture
def opened(data):
    def open_with(split: str = "train", **keys: Any) -> PuzzleDataset:
        usual: dict[str, Any] = {
            "seed": 0,
            "dataset_path": data,
            "global_batch_size": 8,
            "test_set_mode": False,
            "epochs_per_iter": 1,
            "rank": 0,
            "num_replicas": 1,
        }
        return PuzzleDataset(PuzzleDatasetConfig(**usual | keys), split)

    return open_with


def identifiers(dataset: PuzzleDataset) -> torch.Tensor:
    """Of one iteration."""
    return torch.cat([batch["puzzle_identifiers"] for _, batch, _ in dataset])


@acts("seed")
def test_the_order_is_the_seeds(opened):
    first, again, other = (identifiers(opened(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first.sort().values, other.sort().values)


@acts("dataset_path")
def test_the_folder_is_read_that_is_named(opened, data: Path, other_data: Path):
    for folder, groups in ((data, PUZZLES), (other_data, 16)):
        dataset = opened(dataset_path=folder)
        assert dataset.metadata.total_groups == groups == len(identifiers(dataset))
    inputs = np.load(other_data / "test/test__inputs.npy")
    [(_, batch, _)] = opened("test", dataset_path=other_data, test_set_mode=True)
    assert torch.equal(batch["inputs"][:5], torch.from_numpy(inputs.astype(np.int32)))


@acts("global_batch_size")
@pytest.mark.parametrize("size", [8, 16])
def test_a_batch_has_as_many_rows(opened, size):
    batches = list(opened(global_batch_size=size))
    assert [(len(batch["inputs"]), count) for _, batch, count in batches] == (
        [(size, size)] * (PUZZLES // size)
    )


@acts("test_set_mode")
def test_testing_reads_every_example_once_and_in_order(opened, data: Path):
    stored = torch.from_numpy(np.load(data / "test/test__inputs.npy").astype(np.int32))
    (_, first, full), (_, second, rest) = opened("test", test_set_mode=True)
    assert (full, rest) == (8, TEST_PUZZLES - 8)
    assert torch.equal(torch.cat([first["inputs"], second["inputs"]])[:TEST_PUZZLES], stored)
    assert (second["labels"][rest:] == IGNORE_LABEL_ID).all() and len(second["labels"]) == 8
    [(_, drawn, count)] = opened("test")  # at random, and no batch that is not full
    assert count == 8 and not torch.equal(drawn["inputs"], stored[:8])


@acts("epochs_per_iter")
def test_an_iteration_has_as_many_epochs(opened):
    seen = identifiers(opened(epochs_per_iter=3))
    assert torch.equal(seen.unique(return_counts=True)[1], torch.full((PUZZLES,), 3))


@acts("rank", "num_replicas")
def test_ranks_share_every_batch(opened):
    whole = [batch["inputs"] for _, batch, _ in opened()]
    shares = [
        [batch["inputs"] for _, batch, _ in opened(rank=rank, num_replicas=2)] for rank in (0, 1)
    ]
    assert all(len(share) == 4 for of_rank in shares for share in of_rank)
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([first, second]), batch)
    with pytest.raises(UserError, match="rank=2 is not below num_replicas=2"):
        opened(rank=2, num_replicas=2)


@acts("puzzle_emb_dropout")
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_identifiers_are_dropped(opened, share):
    found = identifiers(opened(puzzle_emb_dropout=share, epochs_per_iter=50))
    assert (found < 0).float().mean().item() == pytest.approx(share, abs=0.03)
    assert set(found[found < 0].tolist()) <= {-1}


@acts("unseen_identifier")
def test_puzzles_of_other_data_count_as_unseen(opened):
    own = identifiers(opened("test", test_set_mode=True))
    other = identifiers(opened("test", test_set_mode=True, unseen_identifier=3))
    assert (own != 3).any() and (other == 3).all() and len(own) == len(other)


@acts("limit")
def test_a_test_split_is_read_in_part(opened):
    whole, part = (opened("test", test_set_mode=True, limit=limit) for limit in (None, 3))
    assert sum(size for _, _, size in part) == part.examples == 3
    assert sum(size for _, _, size in whole) == whole.examples > 3


def test_every_key_has_a_test():
    acts.check(PuzzleDatasetConfig.model_fields.keys())
