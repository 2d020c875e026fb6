"""The loader: batches of a data set in an order that any process can compute for any batch.

Training reads `epochs_per_iter` epochs per iteration. An epoch is a random permutation of the
groups; each group gives one puzzle at random, with all its examples. Puzzles are packed into full
batches; the one that would overflow a batch gives a random part of its examples, and what does not
fill a batch at the end of the iteration is dropped. Several sets follow one another within an
iteration, each with its own epochs and its own dropped tail.

Every random choice is drawn from a counter-based generator that is addressed by (seed, set,
iteration, block of epochs or batch), so batch 4,999 of iteration 7 costs no more than the first,
and nothing depends on the rank: all ranks plan the same global batch and read only their rows.

Testing reads every example once, in order; the last batch of each set is padded.

Shapes: B rows of this rank, G = global_batch_size rows of all ranks, S = seq_len.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from hrm.config import Count, Fraction, PositiveInt
from hrm.data.format import IGNORE_LABEL_ID, PuzzleArrays, read_split
from hrm.errors import UserError

BLOCK_PUZZLES = 16384  # how many drawn puzzles are planned at once, in whole epochs
CACHED_BLOCKS = 2  # a batch may begin in one block and end in the next
ORDER, PART, DROPOUT = range(3)  # the streams of random numbers

NamedBatch = tuple[str, dict[str, Tensor], int]


class PuzzleDatasetConfig(BaseModel):
    """What to read, and which share of it. Names as in the original code.

    `puzzle_emb_dropout` counts only in training, and only where the data set's blank identifier is
    negative ("no identity"): each row's identifier becomes the blank with this probability.
    `unseen_identifier` counts only in testing: all puzzles have it instead of their own. So does
    `limit`: so many examples of the split, a sample that `seed` decides; None: all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0, lt=2**64)]
    dataset_path: Path
    global_batch_size: PositiveInt
    test_set_mode: bool
    epochs_per_iter: PositiveInt
    rank: Count
    num_replicas: PositiveInt
    puzzle_emb_dropout: Fraction = 0.0
    unseen_identifier: int | None = None
    limit: PositiveInt | None = None


class _Plan(Protocol):
    """Which rows of one set make up which global batch."""

    def batches(self, iteration: int) -> int:
        """How many batches the iteration has."""

    def rows(self, iteration: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Examples and identifiers of a global batch, both [G] (at a test set's end shorter)."""


class _TestPlan:
    """The given examples once, in order."""

    def __init__(self, arrays: PuzzleArrays, examples: Sequence[int], config: PuzzleDatasetConfig):
        self._arrays, self._examples = arrays, examples
        self._batch_size = config.global_batch_size
        self._unseen_identifier = config.unseen_identifier

    def batches(self, iteration: int) -> int:
        return -(-len(self._examples) // self._batch_size)

    def rows(self, iteration: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        starts = self._arrays.puzzle_indices
        start = index * self._batch_size
        chosen = self._examples[start : start + self._batch_size]
        examples = np.asarray(chosen, dtype=starts.dtype)
        if self._unseen_identifier is not None:
            return examples, np.full(len(examples), self._unseen_identifier, np.int32)
        puzzles = np.searchsorted(starts, examples, side="right") - 1
        return examples, self._arrays.puzzle_identifiers[puzzles].astype(np.int32)


class _TrainPlan:
    """One random puzzle of every group per epoch, packed into full batches.

    The puzzles drawn in an iteration, epoch after epoch, stand at the positions
    0 … groups * epochs_per_iter - 1; a batch is a range of positions. Positions are drawn in blocks
    of whole epochs, of which only the last used are kept.
    """

    def __init__(
        self, arrays: PuzzleArrays, config: PuzzleDatasetConfig, set_number: int, dropped_to: int
    ):
        self._arrays = arrays
        self._seed, self._set_number = config.seed, set_number
        self._batch_size = config.global_batch_size
        self._dropout, self._dropped_to = config.puzzle_emb_dropout, dropped_to

        self._groups = len(arrays.group_indices) - 1
        self._positions = self._groups * config.epochs_per_iter
        self._block_epochs = max(1, BLOCK_PUZZLES // max(1, self._groups))
        sizes = np.diff(arrays.puzzle_indices)
        uniform = len(sizes) > 0 and sizes.min() == sizes.max()
        self._uniform_size = int(sizes[0]) if uniform else None

        self._blocks: dict[tuple[int, int], np.ndarray] = {}
        self._bounds: tuple[int, np.ndarray] | None = None  # of the iteration last asked for

    def batches(self, iteration: int) -> int:
        if self._uniform_size is not None:
            return self._positions // self._puzzles_per_batch(self._uniform_size)
        return len(self._batch_bounds(iteration)) - 1

    def rows(self, iteration: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        puzzles = self._puzzles_of_batch(iteration, index)
        examples = self._arrays.puzzle_indices[puzzles]
        if self._uniform_size != 1:
            sizes = self._arrays.puzzle_indices[puzzles + 1] - examples
            overflow = int(sizes.sum()) - self._batch_size
            sizes[-1] -= overflow
            part = int(sizes[-1])
            row_of_first = np.cumsum(sizes) - sizes
            last_first = examples[-1]
            examples = np.repeat(examples - row_of_first, sizes) + np.arange(self._batch_size)
            if overflow:
                rng = self._rng(PART, iteration, index)
                examples[-part:] = last_first + rng.choice(part + overflow, part, replace=False)
            puzzles = np.repeat(puzzles, sizes)
        identifiers = self._arrays.puzzle_identifiers[puzzles].astype(np.int32)
        if self._dropout > 0 and self._dropped_to < 0:
            dropped = self._rng(DROPOUT, iteration, index).random(self._batch_size) < self._dropout
            identifiers[dropped] = self._dropped_to
        return examples, identifiers

    def _rng(self, stream: int, iteration: int, number: int) -> np.random.Generator:
        """The generator of one block or batch: streams never overlap, and none is replayed."""
        key = stream << 64 | self._seed
        counter = self._set_number << 192 | iteration << 128 | number << 64
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def _puzzles_per_batch(self, size: int) -> int:
        return -(-self._batch_size // size)

    def _puzzles_of_batch(self, iteration: int, index: int) -> np.ndarray:
        if self._uniform_size is not None:
            count = self._puzzles_per_batch(self._uniform_size)
            start, stop = index * count, (index + 1) * count
        else:
            start, stop = map(int, self._batch_bounds(iteration)[index : index + 2])
        length = self._block_epochs * self._groups
        parts = []
        for block in range(start // length, (stop - 1) // length + 1):
            base = block * length
            parts.append(self._block(iteration, block)[max(0, start - base) : stop - base])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _block(self, iteration: int, block: int) -> np.ndarray:
        """The puzzles drawn in some consecutive epochs: [block_epochs * groups]."""
        key = (iteration, block)
        if key not in self._blocks:
            rng = self._rng(ORDER, *key)
            indices = self._arrays.group_indices
            order = np.tile(np.arange(self._groups, dtype=np.int32), (self._block_epochs, 1))
            rng.permuted(order, axis=1, out=order)
            drawn = rng.integers(indices[order], indices[order + 1]).astype(indices.dtype)
            while len(self._blocks) >= CACHED_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[key] = drawn.reshape(-1)
        return self._blocks[key]

    def _batch_bounds(self, iteration: int) -> np.ndarray:
        """Position where each batch begins, and after the last one where it ends: [batches + 1]."""
        if self._bounds is None or self._bounds[0] != iteration:
            self._bounds = iteration, self._find_batch_bounds(iteration)
        return self._bounds[1]

    def _find_batch_bounds(self, iteration: int) -> np.ndarray:
        length, bounds, missing = self._block_epochs * self._groups, [0], self._batch_size
        for base in range(0, self._positions, length or 1):
            puzzles = self._block(iteration, base // length)[: self._positions - base]
            starts = self._arrays.puzzle_indices
            rows = np.cumsum(starts[puzzles + 1] - starts[puzzles], dtype=np.int64)
            while (last := int(rows.searchsorted(missing))) < len(rows):
                bounds.append(base + last + 1)
                missing = int(rows[last]) + self._batch_size
            missing -= int(rows[-1])
        return np.array(bounds, dtype=np.int64)


class PuzzleDataset(IterableDataset[NamedBatch]):
    """Batches `(set_name, batch, global_batch_size)` of one split.

    `batch` holds `inputs` and `labels` [B, S] and `puzzle_identifiers` [B], int32 tensors; labels
    to be ignored are -100. In test mode the third item counts the examples in the global batch;
    padding rows have `pad_id` inputs, -100 labels and the blank identifier, and every rank sees
    the same number of batches.

    Works in a `DataLoader(batch_size=None)` with at most one worker; a worker must be persistent,
    or given its place by `start_at`, since a fresh one knows of no earlier iteration.

    Raises:
        UserError: `global_batch_size` is not divisible by `num_replicas`, an iteration would not
            fill one batch, the split is missing, or its files are damaged.
    """

    def __init__(self, config: PuzzleDatasetConfig, split: str = "train"):
        super().__init__()
        if config.global_batch_size % config.num_replicas:
            raise UserError(
                f"global_batch_size={config.global_batch_size} is not divisible by the "
                f"{config.num_replicas} ranks"
            )
        if config.rank >= config.num_replicas:
            raise UserError(f"rank={config.rank} is not below num_replicas={config.num_replicas}")
        self.config = config
        self.split = split
        self.metadata, self._sets = read_split(config.dataset_path / split)
        self._local_batch_size = config.global_batch_size // config.num_replicas
        examples = _sample([len(a.inputs) for a in self._sets.values()], config)
        self._plans: dict[str, _Plan] = {
            name: _TestPlan(arrays, examples[number], config)
            if config.test_set_mode
            else _TrainPlan(arrays, config, number, self.metadata.blank_identifier_id)
            for number, (name, arrays) in enumerate(self._sets.items())
        }
        self._next_iteration = self._next_batch = 0
        if not config.test_set_mode and self.batches_per_iteration(0) == 0:
            raise UserError(
                f"global_batch_size={config.global_batch_size}: {config.epochs_per_iter} epochs of "
                f"{config.dataset_path / split} do not fill one batch; make it smaller"
            )

    def __getstate__(self) -> tuple[Any, ...]:
        return self.config, self.split, self._next_iteration, self._next_batch

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        config, split, iteration, batch = state
        self.__init__(config, split)  # type: ignore[misc]
        self.start_at(iteration, batch)

    @property
    def examples(self) -> int:
        """How many the split holds, over all sets; with `limit` at most so many."""
        held = sum(len(arrays.inputs) for arrays in self._sets.values())
        return min(held, self.config.limit or held)

    def batches_per_iteration(self, iteration: int = 0) -> int:
        """How many batches an iteration yields, over all sets.

        Where puzzles differ in their number of examples, the packing differs a little from one
        iteration to the next.
        """
        return sum(plan.batches(iteration) for plan in self._plans.values())

    def batch(self, iteration: int, index: int) -> NamedBatch:
        """Batch `index` of an iteration, reached directly.

        Raises:
            IndexError: the iteration has no such batch.
        """
        if iteration < 0 or index < 0:
            raise IndexError(f"iteration {iteration}, batch {index}: must not be negative")
        remaining = index
        for name, plan in self._plans.items():
            if remaining < plan.batches(iteration):
                examples, identifiers = plan.rows(iteration, remaining)
                mine = slice(
                    self.config.rank * self._local_batch_size,
                    (self.config.rank + 1) * self._local_batch_size,
                )
                batch = self._gather(self._sets[name], examples[mine], identifiers[mine])
                return name, batch, len(examples)
            remaining -= plan.batches(iteration)
        raise IndexError(f"iteration {iteration} has no batch {index}")

    def iterate(self, iteration: int, start_batch: int = 0) -> Iterator[NamedBatch]:
        """The batches of an iteration from `start_batch` on."""
        for index in range(start_batch, self.batches_per_iteration(iteration)):
            yield self.batch(iteration, index)

    def start_at(self, iteration: int, batch: int = 0) -> None:
        """Let the next `__iter__` begin there; the one after it reads the next iteration."""
        self._next_iteration, self._next_batch = iteration, batch

    def __iter__(self) -> Iterator[NamedBatch]:
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise UserError("the loader keeps its order only with num_workers=0 or 1")
        iteration, batch = self._next_iteration, self._next_batch
        self.start_at(iteration + 1)
        return self.iterate(iteration, batch)

    def _gather(
        self, arrays: PuzzleArrays, examples: np.ndarray, identifiers: np.ndarray
    ) -> dict[str, Tensor]:
        inputs, labels = (tokens.astype(np.int32) for tokens in arrays.take(examples))
        if self.metadata.ignore_label_id is not None:
            labels[labels == self.metadata.ignore_label_id] = IGNORE_LABEL_ID
        blank = self.metadata.blank_identifier_id
        if self.config.unseen_identifier is not None:
            blank = self.config.unseen_identifier
        batch = {
            "inputs": (inputs, self.metadata.pad_id),
            "labels": (labels, IGNORE_LABEL_ID),
            "puzzle_identifiers": (identifiers, blank),
        }
        return {
            name: torch.from_numpy(_pad(values, self._local_batch_size, padding))
            for name, (values, padding) in batch.items()
        }


def _sample(sizes: Sequence[int], config: PuzzleDatasetConfig) -> list[Sequence[int]]:
    """Which examples of each set are taken, in order."""
    ends = np.cumsum(sizes)
    if config.limit is None or config.limit >= ends[-1]:
        return [range(size) for size in sizes]
    drawn = np.random.default_rng(config.seed).choice(ends[-1], config.limit, replace=False)
    drawn.sort()
    parts = np.split(drawn, np.searchsorted(drawn, ends[:-1]))
    return [
        (part - (end - size)).tolist() for part, end, size in zip(parts, ends, sizes, strict=True)
    ]


def _pad(rows: np.ndarray, length: int, value: int) -> np.ndarray:
    """`rows` with rows of `value` appended up to `length`."""
    if len(rows) == length:
        return rows
    padding = np.full((length - len(rows), *rows.shape[1:]), value, rows.dtype)
    return np.concatenate([rows, padding])
