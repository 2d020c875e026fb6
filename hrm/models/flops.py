"""FLOPs of the matrix products of a model, for one sequence.

A multiplication and an addition are 2 FLOPs. Shapes: S positions, D hidden size.
"""

from hrm.models.layers import mlp_width
from hrm.models.recurrence import RecurrentConfig
from hrm.models.trm import TRMConfig


def block_flops(config: RecurrentConfig) -> int:
    """Of one call of a block."""
    D, S = config.hidden_size, config.positions
    mixing = 2 * S * 4 * D * D + 4 * S * S * D
    if isinstance(config, TRMConfig) and config.mlp_t:
        mixing = 2 * D * 3 * S * mlp_width(S, config.expansion)
    return mixing + 2 * S * 3 * D * mlp_width(D, config.expansion)


def head_flops(config: RecurrentConfig) -> int:
    """Of the logits."""
    return 2 * config.positions * config.hidden_size * config.vocab_size


def act_step_flops(config: RecurrentConfig) -> int:
    """Of one ACT step in evaluation."""
    return block_flops(config) * config.block_calls + head_flops(config)


def training_flops(config: RecurrentConfig) -> int:
    """Of one ACT step in training, target pass included; a backward pass is two forward ones."""
    c = config
    target = c.block_calls if c.q_continue and c.halt_max_steps > 1 else 0
    calls = c.block_calls + 2 * c.graded_block_calls + target
    return block_flops(c) * calls + 3 * head_flops(c)
