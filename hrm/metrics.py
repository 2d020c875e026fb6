"""Sums of metrics: kept on the device, reduced once, divided once."""

from collections.abc import Mapping

from torch import Tensor

from hrm.ranks import Ranks

FIRST_STEP = "first_step_"  # begins the names of what is summed over sequences at their first step


class MetricSums:
    """Sums of named metrics over steps or batches, kept on the device, each in one place."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        for name, value in metrics.items():
            if name in self._sums:
                self._sums[name] += value
            else:
                self._sums[name] = value.clone()

    def totals(self) -> dict[str, Tensor]:
        """The sums so far, on the device."""
        return dict(self._sums)

    def load(self, sums: Mapping[str, Tensor]) -> None:
        """Take up sums that `totals` gave."""
        self._sums = dict(sums)

    def reduce(self, ranks: Ranks) -> dict[str, float]:
        """Sum over ranks and divide: losses by `examples`, the rest by `count`, and reset.

        What is of first steps is divided by `first_step_count`, which is left out. Without
        `examples` (in evaluation) losses are divided by `count` too.

        Returns:
            Name -> value; what would be divided by 0 is left out.
        """
        sums = ranks.sum(self._sums)
        for held in self._sums.values():
            held.zero_()
        count = sums.pop("count", 0.0)
        examples = sums.pop("examples", count)
        first_steps = sums.pop(f"{FIRST_STEP}count", 0.0)
        result = {"count": count}
        if skipped := sums.pop("skipped_steps", 0.0):
            result["skipped_steps"] = skipped
        for name, total in sums.items():
            per = examples if name.endswith("_loss") else count
            per = first_steps if name.startswith(FIRST_STEP) else per
            if per:
                result[name] = total / per
        return result
