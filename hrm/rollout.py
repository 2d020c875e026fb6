"""Runs puzzles until each halts: the one ACT scheduler, under evaluation, solver and server.

Puzzles run side by side in slots, the rows of a carry. With learned halting a slot whose puzzle has
halted takes the next one of the stream, so that a stream costs its mean number of ACT steps.

Shapes: B slots, T tokens per puzzle.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hrm.config import Halting
from hrm.models.act import Carry, States, add_noise
from hrm.models.losses import ACTLossHead

Batch = dict[str, Tensor]

# Slots are not halved below this: a step of fewer rows is hardly cheaper, and a compiled model
# would see more shapes.
FEWEST_SLOTS = 8


def halved(size: int, busy: int) -> int:
    """Slots for `busy` puzzles: `size`, halved as often as they fit, so that shapes stay few."""
    while busy <= size // 2 and size // 2 >= FEWEST_SLOTS:
        size //= 2
    return size


def to_host(tensor: Tensor) -> Tensor:
    """Copy to host memory, for which the host waits; nothing else in a step makes it wait."""
    return tensor.cpu()


@dataclass(frozen=True)
class RolloutStep:
    """One ACT step of B slots. The first three are on the host, the rest on the model's device."""

    index: Tensor  # B, int64: which puzzle of the stream the slot holds
    running: Tensor  # B, bool: false where the slot is idle, and what it holds means nothing
    halting: Tensor  # B, bool: puzzles whose answer is this step's; only running ones
    steps: Tensor  # B, int32: ACT steps that the puzzle has taken, this one included
    data: Batch  # the puzzle's own rows of the batches, [B, …]
    outputs: dict[str, Tensor]  # as `ACT.step` returns them

    def select(self, chosen: Tensor) -> "RolloutStep":
        """The step of some slots.

        Args:
            chosen: [B] bool, on the host.
        """
        slots = chosen.nonzero().flatten()
        rows = slots.to(self.steps.device)
        return RolloutStep(
            index=self.index[slots],
            running=self.running[slots],
            halting=self.halting[slots],
            steps=self.steps[rows],
            data={name: tensor[rows] for name, tensor in self.data.items()},
            outputs={name: tensor[rows] for name, tensor in self.outputs.items()},
        )


@dataclass(frozen=True)
class Noise:
    """Noise on the states of n puzzles before each of their ACT steps, and what it depends on.

    It is a function of these numbers, the ACT step, the state and its element. On the host.
    """

    scale: Tensor  # n, float32: standard deviation; 0: none
    seed: Tensor  # n, int64
    puzzle: Tensor  # n, int64: the puzzle's position in the input
    rollout: Tensor  # n, int64: which of the rollouts of that puzzle

    @staticmethod
    def none(puzzles: int) -> "Noise":
        zero = torch.zeros(puzzles, dtype=torch.int64)
        return Noise(zero.float(), zero, zero, zero)


class Slots:
    """The ACT scheduler: puzzles side by side in B slots, each until it halts.

    Whatever runs puzzles drives it: it admits some, takes a step, and reads which have halted.
    """

    def __init__(self, model: ACTLossHead, halt_probability: float = 0.0):
        """
        Args:
            model: in evaluation mode.
            halt_probability: with learned halting, a puzzle halts before its last step only where
                sigmoid(q_halt), the model's probability of being right, is at least this.
        """
        assert not model.training
        self._act, self._halt_probability = model.model, halt_probability
        self.clear()

    def clear(self) -> None:
        """Give up all slots."""
        self._carry: Carry | None = None
        self._noise: Batch = {}  # on the device: `Noise` of each slot's puzzle, [B]
        # On the host: the number of each slot's puzzle (B, int64), whether it is running (B, bool:
        # false where the slot is idle), and what else the host needs to know of it.
        self.index, self.running = torch.arange(0), torch.zeros(0, dtype=torch.bool)
        self._known: dict[str, Tensor] = {}

    @property
    def idle(self) -> int:
        """Slots without a running puzzle."""
        return len(self.running) - int(self.running.sum())

    def admit(
        self,
        index: Tensor,
        batch: Batch,
        max_steps: int,
        halting: Halting,
        start_seed: int | None = None,
        noise: Noise | None = None,
    ) -> None:
        """Let puzzles begin at the next step; they take idle slots first, then new ones.

        Args:
            index: [n] int64, on the host: a number for each puzzle, as `RolloutStep` gives it back.
            batch: their rows, on the model's device.
            max_steps, halting: as of `rollout`, for these puzzles.
            start_seed: other start states, as of `Core.initial_states`.
            noise: on their states; None: none.
        """
        fresh = self._act.initial_carry(batch)
        start = self._act.inner.initial_states(start_seed)
        fresh = replace(
            fresh,
            states={n: start[n].expand_as(blank).clone() for n, blank in fresh.states.items()},
            halted=torch.zeros_like(fresh.halted),
            current_data=batch,
        )
        noise, device = noise or Noise.none(len(index)), fresh.steps.device
        drawn = {name: values.to(device) for name, values in vars(noise).items()}
        known = {
            "left": torch.full_like(index, max_steps),
            "learned": torch.full_like(index, halting == "learned", dtype=torch.bool),
            "noisy": noise.scale > 0,
        }
        running = torch.ones(len(index), dtype=torch.bool)
        if self._carry is None:
            self._carry, self._noise, self._known = fresh, drawn, known
            self.index, self.running = index, running
            return
        places = (~self.running).nonzero().flatten()[: len(index)]
        slots = places.to(device)
        new = fresh.named()
        rows = {n: _placed(held, new[n], slots) for n, held in self._carry.named().items()}
        self._carry = Carry.of(rows)
        self._noise = {name: _placed(t, drawn[name], slots) for name, t in self._noise.items()}
        self._known = {name: _placed(t, known[name], places) for name, t in self._known.items()}
        self.index = _placed(self.index, index, places)
        self.running = _placed(self.running, running, places)

    def step(self) -> RolloutStep:
        """One ACT step; the slots of those that halt are idle afterwards.

        The device is asked once which puzzles halt, and only where one may before its last step.
        """
        assert self._carry is not None
        carry, outputs = self._act.step(self._with_noise(self._carry))
        self._known["left"] = self._known["left"] - 1
        ends = self._known["left"] <= 0
        if (asked := self.running & self._known["learned"] & ~ends).any():
            q_halt, q_continue = outputs["q_halt_logits"], outputs["q_continue_logits"]
            sure = torch.sigmoid(q_halt) >= self._halt_probability
            wants = self._act.wants_to_halt(q_halt, q_continue) & sure
            ends = ends | (asked & to_host(wants))
        ends = self.running & ends
        taken = RolloutStep(
            self.index, self.running, ends, carry.steps, carry.current_data, outputs
        )
        self._carry, self.running = carry, self.running & ~ends
        return taken

    def before(self, number: int) -> Carry:
        """What a puzzle has before its next step, one row; without noise."""
        assert self._carry is not None
        [slot] = (self.running & (self.index == number)).nonzero().flatten().tolist()
        return self._carry.select(slice(slot, slot + 1))

    def states(self, number: int) -> States:
        """Its states after the last step, likewise; it may have halted in it."""
        assert self._carry is not None
        [slot] = (self.index == number).nonzero().flatten().tolist()
        return {name: state[slot : slot + 1] for name, state in self._carry.states.items()}

    def _with_noise(self, carry: Carry) -> Carry:
        """The carry before the next step; noise is drawn for the rows that have some."""
        rows = (self._known["noisy"] & self.running).nonzero().flatten().to(carry.steps.device)
        if not len(rows):
            return carry
        own = {name: values[rows] for name, values in self._noise.items()}
        counters = own["puzzle"], own["rollout"], carry.steps[rows].long()
        states = {name: state[rows] for name, state in carry.states.items()}
        noisy = add_noise(states, own["scale"], own["seed"], *counters)
        put = {n: t.index_put((rows,), noisy[n]) for n, t in carry.states.items()}
        return replace(carry, states=put)

    def drop(self, index: Iterable[int]) -> None:
        """Puzzles that are given up; their slots are idle."""
        self.running = self.running & ~torch.isin(self.index, torch.tensor(list(index)))

    def halve(self) -> None:
        """Give up half of the slots where the other half holds what runs, as often as possible."""
        self._keep(halved(len(self.running), int(self.running.sum())))

    def compact(self) -> None:
        """Give up all idle slots."""
        self._keep(int(self.running.sum()))

    def _keep(self, size: int) -> None:
        """So many slots, the running ones first."""
        if size == len(self.running) or self._carry is None:
            return
        if size == 0:
            self.clear()
            return
        kept = self.running.sort(descending=True, stable=True).indices[:size]
        slots = kept.to(self._carry.steps.device)
        self.index, self.running = self.index[kept], self.running[kept]
        self._known = {name: values[kept] for name, values in self._known.items()}
        self._carry = self._carry.select(slots)
        self._noise = {name: values[slots] for name, values in self._noise.items()}


def _placed(held: Tensor, new: Tensor, places: Tensor) -> Tensor:
    """Rows of `held` with new ones in these places, and the rest of them behind."""
    taken = len(places)
    if taken:
        held = held.index_put((places,), new[:taken])
    return torch.cat([held, new[taken:]]) if taken < len(new) else held


def rollout(
    model: ACTLossHead,
    batches: Iterable[Batch],
    halting: Halting = "max_steps",
    halt_probability: float = 0.0,
    max_steps: int | None = None,
    start_seed: int | None = None,
    noise: Callable[[Tensor], Noise] | None = None,
    is_wanted: Callable[[int], bool] | None = None,
) -> Iterator[RolloutStep]:
    """Run a stream of puzzles, one item per ACT step, until every puzzle has halted.

    There are as many slots as the first batch has rows. Whenever all slots are free and no puzzle
    waits, the next batch starts afresh with its own number of rows; with `max_steps` that is so
    for every batch. Free slots at the end of the stream stay idle, and half of the slots is given
    up when the other half can hold what still runs.

    Args:
        model: in evaluation mode.
        batches: on the model's device: `inputs` [B, T], `puzzle_identifiers` [B], and `labels`
            where there are some. A batch is read when there is a free slot for one of its puzzles;
            it may have any number of rows.
        halting: `max_steps` takes all steps, as the original does; `learned` halts a puzzle when
            the model's halting value says so (the rule of training, without exploration).
        halt_probability: as of `Slots`.
        max_steps: ACT steps after which a puzzle halts; None: the model's `halt_max_steps`. More
            than in training is allowed.
        start_seed: other start states, as of `Core.initial_states`.
        noise: on the states of the stream's puzzles with these numbers, [n] int64.
        is_wanted: asked after each step about the puzzles that run and wait, by number; those that
            are not wanted any more are given up.
    """
    limit = max_steps or model.model.config.halt_max_steps
    slots, waiting = Slots(model, halt_probability), _Waiting(batches, is_wanted)

    def admit(count: int) -> None:
        index, batch = waiting.take(count)
        slots.admit(index, batch, limit, halting, start_seed, noise and noise(index))

    while waiting.pull():
        slots.clear()
        admit(len(waiting))
        while True:
            yield slots.step()
            if is_wanted is not None:
                slots.drop(n for n in slots.index[slots.running].tolist() if not is_wanted(n))
                waiting.forget_unwanted()
            if not slots.running.any() and not waiting:
                break
            while slots.idle and (waiting or waiting.pull()):
                admit(slots.idle)
            slots.halve()


class _Waiting:
    """Puzzles of a stream that no slot has taken yet; at most one batch of them is held."""

    def __init__(self, batches: Iterable[Batch], is_wanted: Callable[[int], bool] | None):
        self._batches, self._is_wanted = iter(batches), is_wanted
        self._held: Batch = {}
        self._index = torch.arange(0)  # which of the stream the held ones are
        self._pulled = 0

    def __len__(self) -> int:
        return len(self._index)

    def pull(self) -> bool:
        """Hold the next batch of which any is wanted, where none is held; False at the end."""
        assert not self
        for batch in self._batches:
            rows = len(batch["inputs"])
            self._held, self._index = batch, torch.arange(rows) + self._pulled
            self._pulled += rows
            self.forget_unwanted()
            if self:
                return True
        return False

    def forget_unwanted(self) -> None:
        """Hold only what is still wanted."""
        if self._is_wanted is None:
            return
        wanted = torch.tensor([self._is_wanted(n) for n in self._index.tolist()], dtype=torch.bool)
        if not wanted.all():
            self._index = self._index[wanted]
            self._held = {name: rows[wanted.to(rows.device)] for name, rows in self._held.items()}

    def take(self, limit: int) -> tuple[Tensor, Batch]:
        """The first `limit` of the held ones: which of the stream they are [n], and their rows."""
        index, rows = self._index[:limit], {n: t[:limit] for n, t in self._held.items()}
        self._index = self._index[limit:]
        self._held = {name: tensor[limit:] for name, tensor in self._held.items()}
        return index, rows
