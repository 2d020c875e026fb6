"""What is drawn for one iteration, batch or set tells nothing of another."""

import torch

from tests.data.test_puzzle_dataset import examples_of, open_dataset, write_dataset

BLANK = -1


def test_other_identifiers_are_dropped_in_every_batch_of_every_iteration(tmp_path):
    path = write_dataset(tmp_path / "data", {"a": [[1]] * 64}, blank=BLANK)
    dataset = open_dataset(path, 64, epochs_per_iter=2, puzzle_emb_dropout=0.5)
    masks = [
        dataset.batch(iteration, index)[1]["puzzle_identifiers"] == BLANK
        for iteration in (0, 1)
        for index in (0, 1)
    ]
    assert all(10 < mask.sum() < 54 for mask in masks)
    assert len(torch.stack(masks).unique(dim=0)) == 4


def test_sets_of_the_same_size_are_drawn_in_orders_of_their_own(tmp_path):
    path = write_dataset(tmp_path / "data", {"a": [[1]] * 40, "b": [[1]] * 40})
    (_, first, _), (_, second, _) = open_dataset(path, 40)
    assert sorted(examples_of(first)) == sorted(examples_of(second)) == list(range(40))
    assert examples_of(first) != examples_of(second)
