import pickle
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hrm.data import format as data_format
from hrm.data.arrays import TokenFile
from hrm.data.format import (
    DatasetMetadata,
    PuzzleArrays,
    array_path,
    write_arrays,
    write_metadata,
)
from hrm.data.puzzle_dataset import NamedBatch, PuzzleDataset, PuzzleDatasetConfig
from hrm.errors import UserError

MAZES = Path(__file__).parents[3] / "shared" / "data" / "maze-30x30-hard-1k"
BASE = 60  # an example's number is written into its tokens as digits of this base
PAD, IGNORED = 61, 60

Groups = list[list[int]]  # examples of each puzzle of each group


def write_dataset(
    path: Path, sets: dict[str, Groups], *, blank: int = 0, dtype: str = "int32"
) -> Path:
    """A data set whose examples spell their number in inputs[:2], whose third label is ignored."""
    split_dir = path / "train"
    split_dir.mkdir(parents=True)
    for name, groups in sets.items():
        sizes = [size for group in groups for size in group]
        number = np.arange(sum(sizes))
        inputs = np.stack([number // BASE, number % BASE, number % 7], axis=1).reshape(-1, 3)
        labels = inputs.copy()
        labels[:, 2] = IGNORED
        arrays = PuzzleArrays(
            inputs=inputs.astype(np.uint8),
            labels=labels.astype(np.uint8),
            puzzle_identifiers=np.arange(1, len(sizes) + 1).astype(dtype),
            puzzle_indices=np.cumsum([0, *sizes]).astype(dtype),
            group_indices=np.cumsum([0, *map(len, groups)]).astype(dtype),
        )
        write_arrays(split_dir, name, arrays)
    sizes = [size for groups in sets.values() for group in groups for size in group]
    metadata = DatasetMetadata(
        pad_id=PAD,
        ignore_label_id=IGNORED,
        blank_identifier_id=blank,
        vocab_size=64,
        seq_len=3,
        num_puzzle_identifiers=len(sizes) + 1,
        total_groups=sum(map(len, sets.values())),
        mean_puzzle_examples=float(np.mean(sizes)),
        sets=tuple(sets),
    )
    write_metadata(split_dir, metadata)
    return path


def open_dataset(path: Path, batch: int = 4, test: bool = False, **changes: object):
    keys = {
        "seed": 0,
        "dataset_path": path,
        "global_batch_size": batch,
        "test_set_mode": test,
        "epochs_per_iter": 1,
        "rank": 0,
        "num_replicas": 1,
    }
    return PuzzleDataset(PuzzleDatasetConfig.model_validate(keys | changes))


def examples_of(batch: dict[str, torch.Tensor]) -> list[int]:
    """The example numbers in a batch, padding rows left out."""
    inputs = batch["inputs"][batch["inputs"][:, 0] != PAD]
    return (inputs[:, 0] * BASE + inputs[:, 1]).tolist()


def assert_equal(left: NamedBatch, right: NamedBatch) -> None:
    assert left[0] == right[0] and left[2] == right[2]
    for key, value in left[1].items():
        assert torch.equal(value, right[1][key]), key


def joined(batches: list[NamedBatch]) -> NamedBatch:
    rows = {key: torch.cat([batch[key] for _, batch, _ in batches]) for key in batches[0][1]}
    return batches[0][0], rows, batches[0][2]


sizes = st.one_of(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=8),
    st.lists(st.lists(st.just(1), min_size=1, max_size=4), min_size=1, max_size=8),
    st.lists(st.lists(st.just(3), min_size=1, max_size=4), min_size=1, max_size=8),
)
random_sets = st.dictionaries(st.sampled_from(["a", "b"]), sizes, min_size=1)


@settings(max_examples=40)
@given(
    sets=random_sets,
    batch=st.sampled_from([4, 8]),
    epochs=st.integers(8, 20),
    seed=st.integers(0, 2**64 - 1),
    dropout=st.sampled_from([0.0, 0.3]),
    iteration=st.integers(0, 5),
    dtype=st.sampled_from(["int32", "int64", "uint16"]),
)
def test_any_batch_is_reached_directly_and_split_over_ranks(
    sets, batch, epochs, seed, dropout, iteration, dtype
):
    with TemporaryDirectory() as folder:
        path = write_dataset(Path(folder) / "data", sets, blank=-1, dtype=dtype)
        changes = {"epochs_per_iter": epochs, "seed": seed, "puzzle_emb_dropout": dropout}
        dataset = open_dataset(path, batch, **changes)
        iterated = list(dataset.iterate(iteration))
        assert len(iterated) == dataset.batches_per_iteration(iteration) > 0
        order = [int(i) for i in np.random.default_rng(0).permutation(len(iterated))[:10]]
        for ranks in (1, 2, 4):
            shares = [
                open_dataset(path, batch, rank=rank, num_replicas=ranks, **changes)
                for rank in range(ranks)
            ]
            for index in order:
                shared = joined([share.batch(iteration, index) for share in shares])
                assert_equal(shared, iterated[index])
        with pytest.raises(IndexError):
            dataset.batch(iteration, len(iterated))


@settings(max_examples=100)
@given(
    groups=sizes,
    batch=st.integers(1, 9),
    epochs=st.integers(9, 12),
    seed=st.integers(0, 100),
    iteration=st.integers(0, 3),
)
def test_training_draws_one_puzzle_of_every_group_per_epoch(groups, batch, epochs, seed, iteration):
    puzzle_sizes = [size for group in groups for size in group]
    starts = np.cumsum([0, *puzzle_sizes])
    group_of = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    with TemporaryDirectory() as folder:
        path = write_dataset(Path(folder) / "data", {"a": groups})
        dataset = open_dataset(path, batch, epochs_per_iter=epochs, seed=seed)
        drawn: list[int] = []
        for _, rows, effective in dataset.iterate(iteration):
            examples = examples_of(rows)
            assert len(examples) == effective == batch
            puzzles = np.searchsorted(starts, examples, side="right") - 1
            assert (rows["puzzle_identifiers"].numpy() == puzzles + 1).all()
            parts = split_into_puzzles(examples, puzzles, puzzle_sizes)
            for _, part in parts:
                assert len(set(part)) == len(part), "an example twice"
            for puzzle, part in parts[:-1]:
                assert len(part) == puzzle_sizes[puzzle], "only the last puzzle may be cut"
            drawn += [puzzle for puzzle, _ in parts]
    for epoch in range(0, len(drawn), len(groups)):
        of_epoch = group_of[drawn[epoch : epoch + len(groups)]]
        assert len(set(of_epoch)) == len(of_epoch), "a group twice in an epoch"
    left_over = len(groups) * epochs - len(drawn)
    assert left_over >= 0
    assert left_over * min(puzzle_sizes) < batch, "more dropped than the last incomplete batch"


def split_into_puzzles(examples, puzzles, puzzle_sizes) -> list[tuple[int, list[int]]]:
    """The puzzles of a batch in order; one that is drawn twice in a row counts twice."""
    parts: list[tuple[int, list[int]]] = []
    for example, puzzle in zip(examples, puzzles, strict=True):
        if parts and parts[-1][0] == puzzle and len(parts[-1][1]) < puzzle_sizes[puzzle]:
            parts[-1][1].append(example)
        else:
            parts.append((int(puzzle), [example]))
    return parts


@settings(max_examples=60)
@given(sets=random_sets, batch=st.sampled_from([4, 8, 12]), ranks=st.sampled_from([1, 2, 4]))
def test_testing_reads_every_example_once_and_pads(sets, batch, ranks):
    with TemporaryDirectory() as folder:
        path = write_dataset(Path(folder) / "data", sets, blank=0)
        shares = [
            list(open_dataset(path, batch, test=True, rank=rank, num_replicas=ranks))
            for rank in range(ranks)
        ]
    seen: dict[str, list[int]] = {name: [] for name in sets}
    for same_batch in zip(*shares, strict=True):
        name, rows, effective = joined(list(same_batch))
        seen[name] += examples_of(rows)
        puzzle_sizes = [size for group in sets[name] for size in group]
        owners = np.repeat(np.arange(1, len(puzzle_sizes) + 1), puzzle_sizes)
        assert rows["inputs"].shape == rows["labels"].shape == (batch, 3)
        assert rows["puzzle_identifiers"][:effective].tolist() == [
            owners[example] for example in examples_of(rows)
        ]
        assert rows["labels"][:effective, 0].tolist() == rows["inputs"][:effective, 0].tolist()
        assert (rows["inputs"][effective:] == PAD).all()
        assert (rows["labels"][effective:] == -100).all()
        assert (rows["puzzle_identifiers"][effective:] == 0).all()
    for name, groups in sets.items():
        assert seen[name] == list(range(sum(map(sum, groups))))


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    limit=st.integers(1, 30),
    ranks=st.integers(1, 3),
)
def test_a_limit_takes_a_sample_of_all_sets(sizes, limit, ranks):
    with TemporaryDirectory() as folder:
        sets = {f"set{n}": [[1] for _ in range(size)] for n, size in enumerate(sizes)}
        path = write_dataset(Path(folder), sets)

        def taken(**changes) -> list[tuple[str, int]]:
            found = []
            for rank in range(ranks):
                more = {"rank": rank, "num_replicas": ranks, **changes}
                dataset = open_dataset(path, 2 * ranks, test=True, limit=limit, **more)
                assert dataset.examples == min(limit, sum(sizes))
                for name, batch, _ in dataset:
                    found += [(name, number) for number in examples_of(batch)]
            return sorted(found)

        every = [(f"set{n}", number) for n, size in enumerate(sizes) for number in range(size)]
        sample = taken()
        assert len(sample) == len(set(sample)) == min(limit, sum(sizes))
        assert set(sample) <= set(every) and sample == taken()
        if limit >= sum(sizes):
            assert sample == every


def test_samples_differ_with_the_seed(tmp_path):
    path = write_dataset(tmp_path, {"all": [[1] for _ in range(50)]})
    samples = [
        tuple(
            n
            for _, batch, _ in open_dataset(path, 5, test=True, limit=5, seed=seed)
            for n in examples_of(batch)
        )
        for seed in range(3)
    ]
    assert len(set(samples)) == 3


def test_batches_are_int32_and_ignored_labels_become_minus_100(tmp_path):
    dataset = open_dataset(write_dataset(tmp_path / "data", {"a": [[1], [1], [1], [1]]}))
    name, batch, size = next(iter(dataset))
    assert (name, size) == ("a", 4)
    assert {key: value.dtype for key, value in batch.items()} == {
        "inputs": torch.int32,
        "labels": torch.int32,
        "puzzle_identifiers": torch.int32,
    }
    assert batch["puzzle_identifiers"].shape == (4,)
    assert (batch["labels"][:, 2] == -100).all()
    assert torch.equal(batch["labels"][:, :2], batch["inputs"][:, :2])


def test_groups_and_versions_are_drawn_evenly(tmp_path):
    groups = [[1] * 2, [1] * 5, [1] * 3]
    dataset = open_dataset(
        write_dataset(tmp_path / "data", {"a": groups}), batch=3, epochs_per_iter=6000
    )
    batches = [examples_of(batch) for _, batch, _ in dataset]
    assert all(sum(2 <= example < 7 for example in batch) == 1 for batch in batches)
    frequency = np.bincount(np.concatenate(batches), minlength=10) / 6000
    np.testing.assert_allclose(frequency, [1 / 2] * 2 + [1 / 5] * 5 + [1 / 3] * 3, atol=0.03)
    first = np.mean([2 <= batch[0] < 7 for batch in batches])
    assert first == pytest.approx(1 / 3, abs=0.03)


def test_a_cut_puzzle_gives_a_random_part(tmp_path):
    dataset = open_dataset(write_dataset(tmp_path / "data", {"a": [[10]]}), epochs_per_iter=4000)
    counts = Counter(example for _, batch, _ in dataset for example in examples_of(batch))
    assert sum(counts.values()) == 16000
    np.testing.assert_allclose([counts[i] / 4000 for i in range(10)], 0.4, atol=0.04)


def test_iterations_and_seeds_differ_and_start_at_resumes(tmp_path):
    path = write_dataset(tmp_path / "data", {"a": [[1] * 4] * 20})
    dataset = open_dataset(path)
    first, second = list(dataset), list(dataset)
    orders = [[examples_of(batch) for _, batch, _ in batches] for batches in (first, second)]
    other_seed = [examples_of(batch) for _, batch, _ in open_dataset(path, seed=1)]
    assert orders[0] != orders[1] and orders[0] != other_seed

    resumed = open_dataset(path)
    resumed.start_at(1, 3)
    rest = list(resumed)
    assert len(rest) == len(second) - 3
    for left, right in zip(rest, second[3:], strict=True):
        assert_equal(left, right)
    assert_equal(next(iter(resumed)), dataset.batch(2, 0))


def test_sets_follow_one_another(tmp_path):
    sets = {"b": [[1]] * 9, "a": [[2, 2]] * 4}
    dataset = open_dataset(write_dataset(tmp_path / "data", sets), epochs_per_iter=2)
    names = [name for name, _, _ in dataset]
    assert names == ["b"] * (18 // 4) + ["a"] * (16 // 4)


@pytest.mark.parametrize("blank, expected", [(-1, 0.25), (0, 0.0)])
def test_identifiers_are_dropped_where_the_blank_is_negative(tmp_path, blank, expected):
    path = write_dataset(tmp_path / "data", {"a": [[1] * 2] * 50}, blank=blank)
    changes = {"epochs_per_iter": 80, "puzzle_emb_dropout": 0.25}
    plain = list(open_dataset(path, 40, epochs_per_iter=80))
    dropped = list(open_dataset(path, 40, **changes))
    before = torch.cat([batch["puzzle_identifiers"] for _, batch, _ in plain])
    after = torch.cat([batch["puzzle_identifiers"] for _, batch, _ in dropped])
    assert (after != before).float().mean().item() == pytest.approx(expected, abs=0.03)
    assert set(after[after != before].tolist()) <= {-1}
    for left, right in zip(plain, dropped, strict=True):
        assert torch.equal(left[1]["inputs"], right[1]["inputs"])
    for left, right in zip(dropped, open_dataset(path, 40, **changes), strict=True):
        assert_equal(left, right)
    testing = open_dataset(path, 40, test=True, puzzle_emb_dropout=0.25)
    assert next(iter(testing))[1]["puzzle_identifiers"].tolist() == list(range(1, 41))


def test_a_persistent_worker_reads_the_same_batches(tmp_path):
    path = write_dataset(tmp_path / "data", {"a": [[1, 2]] * 10})
    loader = DataLoader(open_dataset(path), batch_size=None, num_workers=1, persistent_workers=True)
    alone = open_dataset(path)
    for _ in range(2):
        for left, right in zip(loader, alone, strict=True):
            assert_equal(left, right)


def test_two_workers_are_refused(tmp_path, monkeypatch):
    dataset = open_dataset(write_dataset(tmp_path / "data", {"a": [[1]] * 10}))
    module = "hrm.data.puzzle_dataset.get_worker_info"
    monkeypatch.setattr(module, lambda: SimpleNamespace(num_workers=2))
    with pytest.raises(UserError, match="num_workers"):
        iter(dataset)


def test_a_pickled_dataset_goes_on_where_it_was(tmp_path):
    dataset = open_dataset(write_dataset(tmp_path / "data", {"a": [[1, 2]] * 10}))
    dataset.start_at(3, 1)
    data = pickle.dumps(dataset)
    assert len(data) < 2000, "the arrays must not travel"
    assert_equal(next(iter(pickle.loads(data))), dataset.batch(3, 1))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"num_replicas": 3}, "global_batch_size=4 is not divisible by the 3 ranks"),
        ({"rank": 2, "num_replicas": 2}, "rank=2"),
        ({"global_batch_size": 12}, "global_batch_size=12"),
    ],
)
def test_wrong_configuration_is_told(tmp_path, changes, words):
    path = write_dataset(tmp_path / "data", {"a": [[1]] * 10})
    with pytest.raises(UserError, match=words):
        open_dataset(path, **changes)


def test_a_missing_split_is_told(tmp_path):
    path = write_dataset(tmp_path / "data", {"a": [[1]] * 10})
    config = open_dataset(path).config
    with pytest.raises(UserError, match="no split 'test', only train"):
        PuzzleDataset(config, split="test")


@pytest.mark.skipif(not MAZES.is_dir(), reason="the maze data set is not here")
def test_reads_the_mazes_of_the_original_code():
    dataset = open_dataset(MAZES, 384, epochs_per_iter=3)
    assert dataset.metadata.seq_len == 900
    batches = list(dataset)
    assert [(name, size) for name, _, size in batches] == [("all", 384)] * (3000 // 384)
    inputs = np.load(MAZES / "train" / "all__inputs.npy")
    labels = np.load(MAZES / "train" / "all__labels.npy")
    _, batch, _ = open_dataset(MAZES, 384, test=True).batch(0, 2)
    assert (batch["inputs"][:232].numpy() == inputs[768:]).all()
    assert (batch["labels"][:232].numpy() == labels[768:]).all()
    assert (batch["labels"][232:] == -100).all()


@settings(max_examples=20)
@given(sets=random_sets, test=st.booleans())
def test_large_sets_are_read_row_by_row_and_give_the_same_batches(sets, test):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = write_dataset(Path(folder) / "data", sets)
        usual = open_dataset(path, epochs_per_iter=8, test=test)
        patch.setattr(data_format, "CHECKED_AT_ONCE", 0)
        large = open_dataset(path, epochs_per_iter=8, test=test)
        assert all(isinstance(a.inputs, TokenFile) for a in large._sets.values())
        for left, right in zip(usual.iterate(1), large.iterate(1), strict=True):
            assert_equal(left, right)


@pytest.fixture
def large(tmp_path, monkeypatch) -> Path:
    """A data set of which no token is checked when it is opened."""
    monkeypatch.setattr(data_format, "CHECKED_AT_ONCE", 0)
    return write_dataset(tmp_path / "data", {"a": [[1] * 4] * 2})


def test_a_token_of_a_large_set_is_checked_when_it_is_taken(large):
    path = array_path(large / "train", "a", "labels")
    labels = np.load(path)
    labels[5, 1] = 200
    np.save(path, labels)
    dataset = open_dataset(large, test=True)
    dataset.batch(0, 0)
    with pytest.raises(UserError, match=r"labels.npy: token 200 in row 5 is not in"):
        dataset.batch(0, 1)


def test_a_large_set_that_is_cut_short_meanwhile_is_named(large):
    dataset = open_dataset(large, test=True)
    path = array_path(large / "train", "a", "inputs")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    dataset.batch(0, 0)
    with pytest.raises(UserError, match=r"inputs.npy: truncated"):
        dataset.batch(0, 1)


def test_indices_of_a_large_set_are_checked_when_it_is_opened(large):
    path = array_path(large / "train", "a", "puzzle_indices")
    np.save(path, np.load(path)[::-1])
    with pytest.raises(UserError, match="puzzle_indices"):
        open_dataset(large)
