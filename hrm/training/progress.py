"""The progress bar of training."""

import sys
from collections.abc import Mapping

from tqdm import tqdm


class Progress:
    """Live progress bar of rank 0: step, loss, exact accuracy, ACT steps, examples/s, time left."""

    def __init__(
        self, first_step: int, total_steps: int, batch_size: int, enabled: bool, is_first_rank: bool
    ):
        self._speaks = is_first_rank
        self._batch_size = batch_size
        self._shown: dict[str, str] = {}
        self._bar = tqdm(
            initial=first_step,
            total=total_steps,
            disable=not (enabled and is_first_rank),
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 10,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar:20}| step {n_fmt}/{total_fmt}{postfix}, "
            "{elapsed}<{remaining}",
        )

    def update(self, metrics: Mapping[str, float]) -> None:
        """One more step; `metrics` are the newest known, {} between log intervals."""
        for label, name, style in (
            ("loss", "lm_loss", ".3f"),
            ("exact", "exact_accuracy", ".1%"),
            ("ACT steps", "steps", ".1f"),
        ):
            if name in metrics:
                self._shown[label] = f"{label} {metrics[name]:{style}}"
        rate = self._bar.format_dict["rate"] if not self._bar.disable else None
        if rate:
            self._shown["rate"] = f"{rate * self._batch_size:.0f} examples/s"
        if self._shown:
            self._bar.set_postfix_str(", ".join(self._shown.values()), refresh=False)
        self._bar.update()

    def go_back(self, step: int) -> None:
        """Show an earlier step."""
        self._bar.n = step
        self._bar.refresh()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._speaks:
            self._bar.write(line)

    def close(self) -> None:
        self._bar.close()
