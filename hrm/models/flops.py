"""FLOPs of the matrix products of a model, for one sequence.

A multiplication and an addition are 2 FLOPs.
"""

from hrm.models.recurrence import RecurrentConfig


def act_step_flops(config: RecurrentConfig) -> int:
    """Of one ACT step in evaluation."""
    return config.block_flops * config.block_calls + config.head_flops


def training_flops(config: RecurrentConfig) -> int:
    """Of one ACT step in training, target pass included; a backward pass is two forward ones."""
    c = config
    target = c.block_calls if c.q_continue and c.halt_max_steps > 1 else 0
    calls = c.block_calls + 2 * c.graded_block_calls + target
    return c.block_flops * calls + 3 * c.head_flops
