"""FLOPs of the matrix products of a model, for one sequence.

A multiplication and an addition are 2 FLOPs. Shapes: S positions, D hidden size, C symbols.
"""

from hrm.models.layers import MLP_WIDTH_MULTIPLE, UNIT_MLP_WIDTH_MULTIPLE, UNITS, mlp_width
from hrm.models.recurrence import RecurrentConfig
from hrm.models.symbol_equivariant import SymbolEquivariantConfig
from hrm.models.transformer import TransformerConfig
from hrm.models.trm import TRMConfig


def block_flops(config: RecurrentConfig) -> int:
    """Of one call of a block."""
    D = config.hidden_size
    if isinstance(config, SymbolEquivariantConfig):
        vectors, multiple = config.seq_len * config.symbols, UNIT_MLP_WIDTH_MULTIPLE
        (rows, columns), box = config.units()
        boxes = 1 if box is None else config.seq_len // (box[0] * box[1])
        units = (rows + columns + boxes) * config.symbols + config.seq_len
        mixing = 2 * D * config.message_size * (UNITS * vectors + units)
    else:
        assert isinstance(config, TransformerConfig)
        vectors, multiple = config.positions, MLP_WIDTH_MULTIPLE
        mixing = 2 * vectors * 4 * D * D + 4 * vectors * vectors * D
        if isinstance(config, TRMConfig) and config.mlp_t:
            mixing = 2 * D * 3 * vectors * mlp_width(vectors, config.expansion)
    return mixing + 2 * vectors * 3 * D * mlp_width(D, config.expansion, multiple)


def head_flops(config: RecurrentConfig) -> int:
    """Of the logits."""
    if isinstance(config, SymbolEquivariantConfig):
        numbers = config.seq_len * (config.symbols + config.others)
    else:
        assert isinstance(config, TransformerConfig)
        numbers = config.positions * config.vocab_size
    return 2 * config.hidden_size * numbers


def act_step_flops(config: RecurrentConfig) -> int:
    """Of one ACT step in evaluation."""
    return block_flops(config) * config.block_calls + head_flops(config)


def training_flops(config: RecurrentConfig) -> int:
    """Of one ACT step in training, target pass included; a backward pass is two forward ones."""
    c = config
    target = c.block_calls if c.q_continue and c.halt_max_steps > 1 else 0
    calls = c.block_calls + 2 * c.graded_block_calls + target
    return block_flops(c) * calls + 3 * head_flops(c)
