"""One ACT step as a function of tensors alone, which other runtimes can compute.

Shapes: B batch, T tokens, S positions, D hidden size, V vocabulary.
"""

import torch
from torch import Tensor, nn

from hrm.models.act import ACT, States, expanded


class OneStep(nn.Module):
    """The step of any core; whoever calls it keeps the states, counts steps and halts."""

    def __init__(self, act: ACT):
        super().__init__()
        self.act = act

    def forward(
        self,
        tokens: Tensor,
        begins: Tensor,
        states: States,
        puzzle_identifiers: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, States]:
        """One ACT step of every sequence.

        Args:
            tokens: [B, T] int32.
            begins: [B] bool: sequences before their first step, which take the start states; what
                `states` holds of them does not matter.
            states: of the step before: z_H and z_L, [B, S, D] in the forward dtype.
            puzzle_identifiers: [B] int32, rows of the puzzle embedding; negative: none. Left out
                where the model has no such embedding.

        Returns:
            logits [B, T, V] in the forward dtype; q_halt [B] float32, of which the sigmoid is the
            model's probability of being right; whether it wants to halt by the rule of training,
            [B] bool; and the new states.
        """
        core, start = self.act.inner, self.act.inner.initial_states()
        known = {
            name: torch.where(expanded(begins, state), start[name], state)
            for name, state in states.items()
        }
        puzzle = None if puzzle_identifiers is None else core.look_up(puzzle_identifiers)
        new, logits, q_halt, q_continue = core.step(known, core.prepare(tokens, puzzle))
        return logits, q_halt, self.act.wants_to_halt(q_halt, q_continue), new
