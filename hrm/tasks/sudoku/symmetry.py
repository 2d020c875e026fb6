"""The symmetries of Sudoku: random ones (augmentation), and telling puzzles equal up to them.

They are: relabelling digits, permuting bands, stacks, rows within a band and columns within a
stack, and, where the box is square, transposition.
"""

import math
from functools import lru_cache
from itertools import permutations

import numpy as np

from hrm.progress import Progress
from hrm.tasks.sudoku.rules import BoxShape

CHUNK_ROWS = 2048
REFINEMENT_ROUNDS = 4
_MAX_TABLED = 6
_ODD_A, _ODD_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ROW, _COLUMN, _DIGIT, _BAND = (
    np.uint64(salt)
    for salt in (0x9E3779B97F4A7C15, 0xD1342543DE82EF95, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB)
)


def augment(
    questions: np.ndarray,
    answers: np.ndarray,
    box_shape: BoxShape,
    rng: np.random.Generator,
    keep: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply to each row a random symmetry of its own, the same to question and answer.

    Args:
        questions, answers: [N, cells] uint8; each answer extends its question.
        keep: [N] bool, rows to leave as they are (they draw from `rng` all the same).

    Returns:
        New questions and answers, [N, cells] uint8.
    """
    count, cells = questions.shape
    side = math.prod(box_shape)
    place, digits = random_symmetries(rng, count, box_shape, keep)
    place += np.arange(count)[:, None] * cells
    # One gather moves both: a token above `side` is a given, its answer is that minus side + 1.
    packed = answers + np.uint8(side + 1) * (questions != 0)
    moved = packed.ravel().take(place)

    table = np.concatenate([digits, digits], axis=1)
    table_start = np.arange(count)[:, None] * (2 * side + 2)
    new_answers = table.ravel().take(table_start + moved)
    return new_answers * (moved > side), new_answers


def random_symmetries(
    rng: np.random.Generator, count: int, box_shape: BoxShape, keep: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`count` symmetries at random: version[c] = digits[puzzle[place[c]]].

    Args:
        keep: [count] bool, make these the identity (they draw from `rng` all the same).

    Returns:
        place [count, cells] int64, digits [count, side + 1] uint8; blank stays blank.
    """
    side = math.prod(box_shape)
    digits = np.zeros((count, side + 1), np.uint8)
    digits[:, 1:] = _random_permutations(rng, count, side) + 1
    rows = _random_lines(rng, count, side // box_shape[0], box_shape[0])
    columns = _random_lines(rng, count, side // box_shape[1], box_shape[1])
    flipped = rng.integers(2, size=count, dtype=np.uint8).astype(bool)
    if box_shape[0] != box_shape[1]:
        flipped[:] = False
    if keep is not None:
        digits[keep] = np.arange(side + 1)
        rows[keep] = columns[keep] = np.arange(side)
        flipped[keep] = False

    row_stride = np.where(flipped, 1, side)[:, None]
    column_stride = np.where(flipped, side, 1)[:, None]
    place = (rows * row_stride)[:, :, None] + (columns * column_stride)[:, None, :]
    return place.reshape(count, side * side), digits


def canonical_hash(questions: np.ndarray, box_shape: BoxShape) -> np.ndarray:
    """A hash that all puzzles equal up to symmetry share; others share it only rarely.

    Args:
        questions: [N, cells] uint8, 0 is blank.

    Returns:
        [N] uint64.
    """
    hashes = np.empty(len(questions), np.uint64)
    with Progress("puzzles compared", len(questions)) as progress:
        for start in range(0, len(questions), CHUNK_ROWS):
            chunk = questions[start : start + CHUNK_ROWS]
            lines = np.zeros((len(chunk), math.prod(box_shape)), np.uint64)
            rows, columns = _refine(chunk, box_shape, lines, lines)
            both = _mix(rows).sum(axis=1) + _mix(columns).sum(axis=1)
            hashes[start : start + CHUNK_ROWS] = _mix(both)
            progress.update(len(chunk))
    return hashes


def are_equivalent(first: np.ndarray, second: np.ndarray, box_shape: BoxShape) -> bool:
    """Whether a symmetry turns one puzzle, [cells] uint8, into the other; exact."""
    side = math.prod(box_shape)
    grid = first.reshape(side, side)
    orientations = [grid, grid.T] if box_shape[0] == box_shape[1] else [grid]
    unmarked = np.zeros((2, 2, side), np.uint64)
    return any(
        _match(np.stack([one.ravel(), second.ravel()]), box_shape, unmarked) for one in orientations
    )


def _match(pair: np.ndarray, box_shape: BoxShape, marks: np.ndarray) -> bool:
    """Whether a symmetry without transposition maps pair[0] to pair[1] and marks to marks.

    Lines (rows and columns) are coloured by refinement. Where all colours are distinct they give
    the only possible mapping; else one ambiguous line is paired with each of its look-alikes.

    Args:
        pair: [2, cells] uint8.
        marks: [2 (rows, columns), 2 (puzzle), side] uint64, initial colours of the lines.
    """
    colours = np.stack(_refine(pair, box_shape, marks[0], marks[1]))  # rows/columns, puzzle, side
    if (np.sort(colours[:, 0], axis=1) != np.sort(colours[:, 1], axis=1)).any():
        return False
    for kind in range(2):
        values, counts = np.unique(colours[kind, 0], return_counts=True)
        if (counts == 1).all():
            continue
        shared = values[counts > 1][:1]
        line = np.flatnonzero(colours[kind, 0] == shared)[0]
        for other in np.flatnonzero(colours[kind, 1] == shared):
            marked = colours.copy()
            marked[kind, 0, line] = marked[kind, 1, other] = _mix(shared + _BAND)[0]
            if _match(pair, box_shape, marked):
                return True
        return False
    return _maps(pair, box_shape, np.argsort(colours, axis=2))


def _maps(pair: np.ndarray, box_shape: BoxShape, order: np.ndarray) -> bool:
    """Whether putting the lines of both in the given order shows the same puzzle relabelled."""
    side = math.prod(box_shape)
    for kind, lines_per_band in enumerate(box_shape):
        band, other_band = order[kind] // lines_per_band
        if len(set(zip(band.tolist(), other_band.tolist(), strict=True))) != len(set(band)):
            return False
    one, other = (
        pair[puzzle].reshape(side, side)[np.ix_(order[0, puzzle], order[1, puzzle])].ravel()
        for puzzle in range(2)
    )
    if ((one == 0) != (other == 0)).any():
        return False
    labels = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(labels) == len(set(one.tolist())) == len(set(other.tolist()))


def _refine(
    questions: np.ndarray, box_shape: BoxShape, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colour rows and columns by what they hold, as Weisfeiler and Leman do.

    In each round a given cell's colour comes from its row, column and digit, and a line's from
    its cells and its band's other lines. Where the box is square rows and columns are treated
    alike, so that transposing swaps the two results.

    Args:
        questions: [N, cells] uint8.
        rows, columns: [N, side] uint64, initial colours.

    Returns:
        Colours of rows and of columns, [N, side] uint64 each.
    """
    count, side = len(questions), math.prod(box_shape)
    given = (questions != 0).reshape(count, side, side)
    digit_of = questions + np.arange(count)[:, None] * (side + 1)  # N, cells
    digits = np.zeros(count * (side + 1), np.uint64)
    column_salt = _ROW if box_shape[0] == box_shape[1] else _COLUMN
    for _ in range(REFINEMENT_ROUNDS):
        cells = _mix(digits).take(digit_of).reshape(given.shape)
        cells += _mix(rows + _ROW)[:, :, None]
        cells += _mix(columns + column_salt)[:, None, :]
        cells = _mix(cells)
        cells *= given
        rows = _line_colours(rows, cells.sum(axis=2), box_shape[0])
        columns = _line_colours(columns, cells.sum(axis=1), box_shape[1])
        # bincount adds float64: 46 bits each, so that the sum of a digit's cells is exact.
        halves = (cells >> np.uint64(18)).astype(np.float64)
        sums = np.bincount(digit_of.ravel(), halves.ravel(), minlength=len(digits))
        digits = _mix(digits + sums.astype(np.uint64) * _DIGIT)
    return rows, columns


def _line_colours(old: np.ndarray, sums: np.ndarray, lines_per_band: int) -> np.ndarray:
    lines = _mix(old * _DIGIT + sums)
    bands = _mix(lines.reshape(len(lines), -1, lines_per_band).sum(axis=2) + _BAND)
    return lines + np.repeat(bands, lines_per_band, axis=1)


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble each 64-bit number, one to one."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= _ODD_A
    mixed ^= mixed >> np.uint64(27)
    mixed *= _ODD_B
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _random_lines(
    rng: np.random.Generator, count: int, bands: int, lines_per_band: int
) -> np.ndarray:
    """[count, bands * lines_per_band] permutations that keep bands together."""
    band = _random_permutations(rng, count, bands)
    within = _random_permutations(rng, count * bands, lines_per_band)
    lines = band[:, :, None] * lines_per_band + within.reshape(count, bands, lines_per_band)
    return lines.reshape(count, bands * lines_per_band)


def _random_permutations(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """[count, size] int64, each row a permutation of 0..size-1."""
    if size <= _MAX_TABLED:
        table = _permutation_table(size)
        return table[rng.integers(len(table), size=count)]
    return rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)


@lru_cache
def _permutation_table(size: int) -> np.ndarray:
    return np.array(list(permutations(range(size))), np.int64)
