"""Learning rate as a pure function of the step."""

import math


def total_steps(
    epochs: int, total_groups: int, mean_puzzle_examples: float, global_batch_size: int
) -> int:
    """⌊epochs · total_groups · mean_puzzle_examples / global_batch_size⌋, but at least 1."""
    return max(1, int(epochs * total_groups * mean_puzzle_examples / global_batch_size))


def learning_rate(
    step: int, base_lr: float, warmup_steps: int, total_steps: int, min_ratio: float
) -> float:
    """Linear warm-up step/warmup from 0, then cosine to `min_ratio`; the first update is step 1."""
    if step < warmup_steps:
        return base_lr * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return base_lr * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))
