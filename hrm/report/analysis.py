"""What solved puzzles say about a model: plain numbers, computed with numpy alone.

Shapes: N puzzles, S ACT steps, T tokens per puzzle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hrm.data.split import differs

CONFIDENCE_95 = 1.959964  # standard deviations of a normal distribution
CALIBRATION_BINS = 10
MOST_GROUPS = 12
DIFFICULTY_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # first of each group


@dataclass(frozen=True)
class Rate:
    """How many of a group of puzzles were solved exactly."""

    label: str
    right: int
    total: int

    @property
    def value(self) -> float:
        return self.right / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval."""
        low, high = wilson_interval(np.array(self.right), np.array(self.total))
        return float(low), float(high)


@dataclass(frozen=True)
class Calibration:
    """Halting probabilities in bins of equal width, against how often the answer was right."""

    counts: np.ndarray  # bins, int64
    right: np.ndarray  # bins, int64
    mean_probability: np.ndarray  # bins, float64; NaN in an empty bin

    @property
    def edges(self) -> np.ndarray:
        """[bins + 1] float64."""
        return np.linspace(0, 1, len(self.counts) + 1)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right answers, [bins] float64; NaN in an empty bin."""
        return _divide(self.right, self.counts)

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean gap between probability and accuracy, by counts."""
        gaps = np.abs(self.accuracy - self.mean_probability)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def wilson_interval(right: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95% interval of a binomial share; (0, 1) where the total is 0.

    Args:
        right, total: integers of one shape.

    Returns:
        Lower and upper end, float64 in 0..1.
    """
    square = CONFIDENCE_95**2
    count = np.maximum(total, 1)
    share = right / count
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = CONFIDENCE_95 * np.sqrt(share * (1 - share) / count + (square / (4 * count)) / count)
    half /= 1 + square / count
    low = np.where(right == 0, 0.0, middle - half)
    high = np.where(right == total, 1.0, middle + half)
    return np.where(total == 0, 0.0, low), np.where(total == 0, 1.0, high)


def wrong_by_step(tokens: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Wrong cells of each puzzle after each ACT step, [N, S] int64.

    Args:
        tokens: [N, S, T] integers.
        answers: [N, T] integers, negative where unknown.
    """
    counts: np.ndarray = differs(tokens, answers[:, None]).sum(axis=2)
    return counts


def accuracy_by_step(right: np.ndarray) -> list[Rate]:
    """Exact accuracy after 1, 2, … S steps.

    Args:
        right: [N, S] bool.
    """
    return [Rate(str(s), int(of.sum()), len(of)) for s, of in enumerate(right.T, 1)]


def halting_histogram(
    steps: np.ndarray, right: np.ndarray, most_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Puzzles by the number of steps they took, right and wrong ones apart: [most_steps] int64.

    Args:
        steps: [N] integers in 1..most_steps.
        right: [N] bool.
    """
    assert steps.max(initial=0) <= most_steps
    of_right, of_wrong = (
        np.bincount(steps[chosen] - 1, minlength=most_steps) for chosen in (right, ~right)
    )
    return of_right, of_wrong


def calibration(
    probability: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS
) -> Calibration:
    """Compare probabilities of being right with being right.

    Args:
        probability: any shape, in 0..1; a bin holds its lower edge, the last one also 1.
        right: bool of the same shape.
    """
    p = probability.ravel().astype(np.float64)
    bin_of = np.minimum((p * bins).astype(np.int64), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    sums = np.bincount(bin_of, weights=p, minlength=bins)
    of_right = np.bincount(bin_of[right.ravel()], minlength=bins)
    return Calibration(counts, of_right, _divide(sums, counts))


def by_givens(right: np.ndarray, givens: np.ndarray) -> list[Rate]:
    """Exact accuracy by number of givens, in ranges of equal width where there are many.

    Args:
        right: [N] bool.
        givens: [N] integers.
    """
    if not len(givens):
        return []
    first, last = int(givens.min()), int(givens.max())
    width = -(-(last - first + 1) // MOST_GROUPS)
    return by_group(right, givens, range(first, last + 1, width), last)


def by_difficulty(right: np.ndarray, difficulty: np.ndarray, most: int) -> list[Rate]:
    """Exact accuracy by difficulty, a whole number, in ranges that double.

    Args:
        right: [N] bool.
        difficulty: [N] integers, as of `hrm.tasks.Difficulty`.
    """
    edges = [e for e in DIFFICULTY_EDGES if e <= most]
    inside = (difficulty >= 0) & (difficulty <= most)
    rates = by_group(right[inside], difficulty[inside], edges, most)
    for label, chosen in (
        (f"more than {most:,}", difficulty > most),
        ("no solution", difficulty < 0),
    ):
        if chosen.any():
            rates.append(Rate(label, int(right[chosen].sum()), int(chosen.sum())))
    return rates


def by_group(right: np.ndarray, values: np.ndarray, edges: Sequence[int], last: int) -> list[Rate]:
    """Exact accuracy in ranges of a whole number; empty ranges are left out.

    Args:
        right: [N] bool.
        values: [N] integers in edges[0]..last.
        edges: the first number of each range, ascending.
    """
    group = np.searchsorted(np.asarray(edges), values, "right") - 1
    rates = []
    for number, start in enumerate(edges):
        end = edges[number + 1] - 1 if number + 1 < len(edges) else last
        chosen = group == number
        if chosen.any():
            label = str(start) if start == end else f"{start}–{end}"
            rates.append(Rate(label, int(right[chosen].sum()), int(chosen.sum())))
    return rates


def worst(wrong: np.ndarray, probability: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Puzzles with the most wrong cells, and the others that the model was surest of.

    Args:
        wrong: [N] integers, wrong cells of the final answer.
        probability: [N], of being right as the model says.
        count: of each kind, at most; ties go to the earlier puzzle.

    Returns:
        Two arrays of puzzle numbers, worst first; none stands in both, none of them is solved.
    """
    failed = np.flatnonzero(wrong)
    most = failed[np.lexsort((-probability[failed], -wrong[failed]))][:count]
    rest = np.setdiff1d(failed, most)
    surest = rest[np.argsort(-probability[rest], kind="stable")][:count]
    return most, surest


def one_right_one_wrong(wrong: np.ndarray, probability: np.ndarray) -> list[int]:
    """A puzzle that took many steps to be solved, and the one with the most wrong cells.

    Args:
        wrong: [N, S] integers, wrong cells after each step.
        probability: [N], halting probability at the last step.

    Returns:
        Their rows; fewer where there are none.
    """
    steps = (wrong > 0).sum(axis=1)
    solved = np.flatnonzero(wrong[:, -1] == 0)
    most, _ = worst(wrong[:, -1], probability, 1)
    return [*solved[np.argsort(-steps[solved], kind="stable")][:1].tolist(), *most.tolist()]


def _divide(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
