"""`hrm train` with one switch that the package does not have, for recipes.py.

    python benchmarks/switches.py random_starts train DATA_SET --config-name … KEY=VALUE …

A checkpoint does not know of its switch: resume by the same command. Evaluation has none of them.
For `arch=symbol_equivariant` without a puzzle embedding, uncompiled steps, one micro-batch.

Shapes: B batch, T tokens, V vocabulary.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm.cli.launch import run
from hrm.data.format import IGNORE_LABEL_ID
from hrm.models.act import ACT, Carry, States, add_noise, expanded, uniform_hash
from hrm.models.losses import ACTLossHead, LossConfig, softmax_cross_entropy
from hrm.models.registry import LOSS_HEADS
from hrm.models.symbol_equivariant import SymbolEquivariant

SMOOTHING = 0.1
SURE = 30.0  # logit
CORRUPTED, ERRORS, FIRST_CELL = 1000, 1001, 1002  # streams of `uniform_hash`
DEPTHS = {0: 1, 660: 2, 1060: 4}  # from this step on, so many L calls; 3 on average of 2,646


class SymbolsACT(ACT):
    """The wrapper of `arch=symbol_equivariant`."""

    inner: SymbolEquivariant

    def drawn(self, carry: Carry, *names: str) -> States:
        """States of N(0, 1) for each sequence, the same in all its cells: [B, 1, 1, D] float32."""
        row = carry.row
        zeros = torch.zeros(len(row), 1, 1, self.inner.config.hidden_size, device=row.device)
        one = torch.ones(len(row), device=row.device)
        seed = torch.full_like(row, self.config.seed)
        return add_noise(dict.fromkeys(names, zeros), one, seed, row, carry.tick)


class Switch(ACTLossHead):
    """A loss head that changes training; its model may be another wrapper of the same core."""

    act = SymbolsACT

    def __init__(self, model: ACT, config: LossConfig):
        super().__init__(self.act(model.inner), config)


class LabelSmoothing(Switch):
    """A tenth of the target is spread over all tokens (arXiv 1512.00567, section 7)."""

    def sequence_losses(self, outputs: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        losses = super().sequence_losses(outputs, labels)
        if self.training:
            spread = -F.log_softmax(outputs["logits"].float(), dim=-1).mean(-1)
            losses["lm_loss"] = torch.lerp(losses["lm_loss"], spread.mean(-1), SMOOTHING)
        return losses


class GivensKept(SymbolsACT):
    """In evaluation, answers have the givens where the puzzle has them."""

    def compute(self, carry: Carry, puzzle: Tensor | None) -> tuple[Carry, dict[str, Tensor]]:
        after, outputs = super().compute(carry, puzzle)
        if not self.training:
            inputs, logits = carry.current_data["inputs"].long(), outputs["logits"]
            sure = SURE * F.one_hot(inputs, logits.shape[-1]).to(logits.dtype)
            given = (inputs >= self.inner.config.others).unsqueeze(-1)
            outputs["logits"] = torch.where(given, sure, logits)
        return after, outputs


class BlanksOnly(Switch):
    """No loss on cells that are given; a puzzle is right where its blanks are."""

    act = GivensKept

    def forward(
        self, carry: Carry, batch: dict[str, Tensor], return_keys: Iterable[str] = ()
    ) -> Any:
        if self.training:
            given = batch["inputs"] >= self.model.inner.config.others
            labels = torch.where(given, IGNORE_LABEL_ID, batch["labels"])
            batch = {**batch, "labels": labels}
        return super().forward(carry, batch, return_keys)


class OtherStarts(SymbolsACT):
    """In training sequences start from states of their own."""

    def take_new_data(self, carry: Carry, batch: dict[str, Tensor]) -> Carry:
        taken = super().take_new_data(carry, batch)
        if not self.training:
            return taken
        starts = self.starts(taken)
        states = {
            name: torch.where(expanded(carry.halted, old), starts[name].to(old.dtype), old)
            for name, old in taken.states.items()
        }
        return replace(taken, states=states)

    def starts(self, taken: Carry) -> States:
        raise NotImplementedError


class DrawnStarts(OtherStarts):
    def starts(self, taken: Carry) -> States:
        return self.drawn(taken, "z_H", "z_L")


class RandomStarts(Switch):
    """In training both states of a sequence start from N(0, 1), the same in all its cells."""

    act = DrawnStarts


class CorruptedStarts(OtherStarts):
    def starts(self, taken: Carry) -> States:
        core, c = self.inner, self.inner.config
        row, tick, labels = taken.row, taken.tick, taken.current_data["labels"]
        chosen = uniform_hash(c.seed, tick, row, CORRUPTED) < 0.5
        errors = 0.2 + 0.8 * uniform_hash(c.seed, tick, row, ERRORS)
        cells = FIRST_CELL + torch.arange(labels.shape[1], device=row.device)
        is_wrong = uniform_hash(c.seed, tick[:, None], row[:, None], cells) < errors[:, None]
        drawn = uniform_hash(c.seed, tick[:, None], row[:, None], cells + labels.shape[1])
        symbols = c.others + (drawn * c.symbols).to(labels.dtype)
        with torch.no_grad():
            e = core.embed(torch.where(is_wrong, symbols, labels), None)
        own = core.initial_states()
        answered = torch.where(expanded(chosen, e), own["z_H"] + e, own["z_H"])
        return {"z_H": answered, "z_L": own["z_L"]}


class CorruptedAnswers(Switch):
    """In training half of the sequences start from an answer with errors.

    z_H is the start state and the embedded solution, in which 20 to 100% of the cells have a
    symbol that was drawn.
    """

    act = CorruptedStarts


class BestOfTwo(SymbolsACT):
    """In training a second z_L; each step's gradient is that of the better answer's."""

    def initial_carry(self, batch: dict[str, Tensor], first_row: int = 0) -> Carry:
        carry = super().initial_carry(batch, first_row)
        if not self.training:
            return carry
        return replace(carry, states={**carry.states, "z_L1": carry.states["z_L"].clone()})

    def take_new_data(self, carry: Carry, batch: dict[str, Tensor]) -> Carry:
        states = dict(carry.states)
        second = states.pop("z_L1", None)
        taken = super().take_new_data(replace(carry, states=states), batch)
        if second is None:
            return taken
        drawn = self.drawn(carry, "z_L1")["z_L1"].to(second.dtype)
        new = torch.where(expanded(carry.halted, second), drawn, second)
        return replace(taken, states={**taken.states, "z_L1": new})

    def compute(self, carry: Carry, puzzle: Tensor | None) -> tuple[Carry, dict[str, Tensor]]:
        if "z_L1" not in carry.states:
            return super().compute(carry, puzzle)
        labels = carry.current_data["labels"]
        with torch.no_grad():
            prepared = self.inner.prepare(carry.current_data["inputs"], puzzle)
            steps = [
                self.inner.step({"z_H": carry.states["z_H"], "z_L": carry.states[name]}, prepared)
                for name in ("z_L", "z_L1")
            ]
            first, second = (softmax_cross_entropy(step.logits, labels).mean(-1) for step in steps)
            second_wins = expanded(second < first, carry.states["z_L"])
            chosen = torch.where(second_wins, carry.states["z_L1"], carry.states["z_L"])
        states = {"z_H": carry.states["z_H"], "z_L": chosen}
        after, outputs = super().compute(replace(carry, states=states), puzzle)
        z_Ls = dict(zip(("z_L", "z_L1"), (step.states["z_L"] for step in steps), strict=True))
        return replace(after, states={**after.states, **z_Ls}), outputs


class WinnerTakeAll(Switch):
    """Two z_L under one z_H, of which the better one learns (arXiv 2601.19085, there four)."""

    act = BestOfTwo


class Deepening(SymbolsACT):
    def compute(self, carry: Carry, puzzle: Tensor | None) -> tuple[Carry, dict[str, Tensor]]:
        core = self.inner
        full = core.config
        if self.training:
            done = int(carry.tick[0])
            depth = [depth for step, depth in DEPTHS.items() if step <= done][-1]
            core.config = full.model_copy(update={"L_cycles": depth})
        try:
            return super().compute(carry, puzzle)
        finally:
            core.config = full


class DepthCurriculum(Switch):
    """Fewer L calls at first (arXiv 2511.08653); with `arch.L_cycles` of the last part."""

    act = Deepening


SWITCHES: dict[str, type[Switch]] = {
    "label_smoothing": LabelSmoothing,
    "blanks_only": BlanksOnly,
    "random_starts": RandomStarts,
    "corrupted_answers": CorruptedAnswers,
    "winner_take_all": WinnerTakeAll,
    "depth_curriculum": DepthCurriculum,
}


def use(name: str) -> None:
    """Models that are built from now on have this switch."""
    LOSS_HEADS["act_loss_head"] = (SWITCHES[name], LossConfig)


def main() -> None:
    switch, command = [*sys.argv[1:3], "", ""][:2]
    if switch not in SWITCHES or command != "train":
        raise SystemExit(f"usage: switches.py SWITCH train …; switches: {', '.join(SWITCHES)}")
    use(switch)
    del sys.argv[1:3]
    run(command, f"switches.py {switch} {command}")


if __name__ == "__main__":
    main()
