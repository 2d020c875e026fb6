"""The progress of training."""

from collections.abc import Mapping

from hrm.progress import Progress, say


class TrainingProgress:
    """Live progress on rank 0: step, loss, exact accuracy, ACT steps, examples/s, time left."""

    def __init__(
        self, first_step: int, total_steps: int, batch_size: int, enabled: bool, is_first_rank: bool
    ):
        self._speaks = is_first_rank
        self._batch_size = batch_size
        self._shown: dict[str, str] = {}
        self.is_shown = enabled and is_first_rank
        self._bar = Progress("step", total_steps, first_step, self.is_shown, lasting=True)

    def update(self, metrics: Mapping[str, float]) -> None:
        """One more step; `metrics` are the newest known, {} between log intervals."""
        for label, name, style in (
            ("loss", "lm_loss", ".3f"),
            ("exact", "exact_accuracy", ".1%"),
            ("ACT steps", "steps", ".1f"),
        ):
            if name in metrics:
                self._shown[label] = f"{label} {metrics[name]:{style}}"
        if rate := self._bar.rate:
            self._shown["rate"] = f"{rate * self._batch_size:.0f} examples/s"
        self._bar.update(shown=", ".join(self._shown.values()))

    def go_back(self, step: int) -> None:
        """Show an earlier step."""
        self._bar.set(step)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._speaks:
            say(line)

    def close(self) -> None:
        self._bar.close()
