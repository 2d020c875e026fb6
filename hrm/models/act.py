"""Adaptive computation time (ACT): the carry, halting, exploration and targets, for any core.

A core (such as `hrm.models.hrm.HRM`) knows how one ACT step is computed; what it keeps between
steps is, to this file, a dictionary of states of which every sequence has a row.

Shapes: B batch, T tokens, V vocabulary.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

States = dict[str, Tensor]  # name -> [B, …], or of one sequence [...]


class ACTSettings(Protocol):
    """What the wrapper needs of a core's configuration."""

    @property
    def halt_max_steps(self) -> int: ...
    @property
    def halt_exploration_prob(self) -> float: ...
    @property
    def q_continue(self) -> bool: ...
    @property
    def seed(self) -> int: ...
    @property
    def seq_len(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def num_puzzle_identifiers(self) -> int: ...


class CoreStep(NamedTuple):
    """What a core computes in one ACT step."""

    states: States  # detached
    logits: Tensor  # B T V, forward dtype
    q_halt: Tensor  # B, float32
    q_continue: Tensor  # B, float32


class Core(nn.Module, ABC):
    """One kind of model. Its configuration has the fields of `ACTSettings`."""

    config: Any

    @abstractmethod
    def initial_states(self, seed: int | None = None) -> States:
        """Where every sequence starts, without the batch dimension, in the dtype of the states.

        Args:
            seed: draw other start states, as the model's own were; None: the model's own.
        """

    @abstractmethod
    def prepare(self, inputs: Tensor, puzzle: Tensor | None) -> Any:
        """What all calls of an ACT step share, such as embedded inputs, with gradient.

        Args:
            inputs: [B, T].
            puzzle: as `look_up` gives it.
        """

    @abstractmethod
    def step(self, states: States, prepared: Any) -> CoreStep:
        """One ACT step."""

    def blank_states(self, rows: int, device: torch.device) -> States:
        """Zeros in the shape of the states, [rows, …]; here, in that of the initial ones."""
        starts = self.initial_states().items()
        return {n: torch.zeros(rows, *t.shape, dtype=t.dtype, device=device) for n, t in starts}

    def look_up(self, identifiers: Tensor) -> Tensor | None:
        """Rows of the puzzle embedding, [B, …], for identifiers [B]; None: the core has none.

        It stands apart, for the rows are leaves of their own, which no compiled graph can make.
        """
        return None

    @torch.no_grad()
    def next_q(self, states: States, prepared: Any) -> tuple[Tensor, Tensor]:
        """q_halt and q_continue, [B] float32 each, of one more ACT step; no gradient."""
        next_step = self.step(states, prepared)
        return next_step.q_halt, next_step.q_continue

    def blocks(self) -> Iterable[nn.Module]:
        """Modules of one kind that are worth compiling, each by itself."""
        return ()


@dataclass
class Carry:
    """What each sequence keeps from one ACT step to the next; every tensor has B rows."""

    states: States
    steps: Tensor  # B, int32: ACT steps taken on the current data
    halted: Tensor  # B, bool: takes new data at the next step
    row: Tensor  # B, int64: row in the global batch
    tick: Tensor  # B, int64: ACT steps since the carry was made
    current_data: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """Every tensor by a name of its own, for `of`; states by theirs."""
        plain = {name: getattr(self, name) for name in PLAIN_FIELDS}
        data = {f"{DATA_PREFIX}{name}": tensor for name, tensor in self.current_data.items()}
        return {**self.states, **plain, **data}

    @staticmethod
    def of(named: dict[str, Tensor]) -> "Carry":
        """The carry that gave these tensors."""
        data = {n.removeprefix(DATA_PREFIX): t for n, t in named.items() if DATA_PREFIX in n}
        plain = {name: named[name] for name in PLAIN_FIELDS}
        states = {n: t for n, t in named.items() if n not in plain and DATA_PREFIX not in n}
        return Carry(states=states, current_data=data, **plain)

    def take(self, other: "Carry") -> None:
        """Put what another carry of as many rows holds into this one's memory."""
        new = other.named()
        for name, held in self.named().items():
            held.copy_(new[name])

    def select(self, index: Tensor | slice) -> "Carry":
        """The carry of some rows."""
        return Carry.of({name: tensor[index] for name, tensor in self.named().items()})


DATA_PREFIX = "current_data/"
PLAIN_FIELDS = tuple(f.name for f in fields(Carry) if f.name not in ("states", "current_data"))


MASK = 0xFFFFFFFF


def _mixed(x: Tensor, word: Tensor | int) -> Tensor:
    """A 32-bit word taken into a 32-bit state; both are held in int64."""
    x = (x + (word & MASK) * 0x3C6EF35F + 0x1B873593) & MASK
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & MASK
    return x ^ (x >> 15)


def _uniform(x: Tensor) -> Tensor:
    """32-bit words as numbers in [0, 1), float32."""
    return (x >> 8).float() / (1 << 24)


def uniform_hash(seed: int, tick: Tensor, row: Tensor, stream: Tensor | int) -> Tensor:
    """Counter-based uniform numbers in [0, 1): float32, a pure function of the arguments, which
    are broadcast; [B] where `tick` and `row` are.

    Mixes 32-bit words held in int64, so that the result is the same on every device.
    """
    x = torch.full_like(tick, seed & MASK)
    for word in (tick, row, stream):
        x = _mixed(x, word)
    return _uniform(x)


def add_noise(states: States, scale: Tensor, seed: Tensor, *counters: Tensor) -> States:
    """z + scale · N(0, 1) for every element of every state.

    What is drawn is a pure function of seed, counters, state and element: whatever shares the
    batch, and on every device, but for the rounding of logarithm and cosine.

    Args:
        scale: B, float32; where it is 0 the states stay as they are.
        seed: B, int64.
        counters: B, int64 each, such as a sequence's number and its ACT steps; their lower 32
            bits count.
    """
    key = seed & MASK
    for word in (seed >> 32, *counters):
        key = _mixed(key, word)
    noisy = {}
    for number, name in enumerate(sorted(states)):
        state = states[name]
        drawn = _normal(_mixed(key, number), state.shape[1:].numel()).view(state.shape)
        noisy[name] = (state + expanded(scale, state) * drawn).to(state.dtype)
    return noisy


def _normal(key: Tensor, count: int) -> Tensor:
    """Numbers of N(0, 1) by Box and Muller, [B, count] float32, a pure function of `key` [B]."""
    half = (count + 1) // 2
    counter = torch.arange(2 * half, device=key.device)
    uniform = _uniform(_mixed(key[:, None], counter))
    radius = (-2 * torch.log1p(-uniform[:, :half])).sqrt()
    angle = 2 * math.pi * uniform[:, half:]
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def expanded(rows: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, …], to be broadcast with another tensor."""
    return rows.view(-1, *[1] * (like.ndim - 1))


class ACT(nn.Module):
    """The wrapper: replaces halted sequences, runs one step, decides which sequences halt."""

    def __init__(self, core: Core):
        super().__init__()
        self.inner = core
        self.config: ACTSettings = core.config
        self.has_continue_target = self.config.q_continue and self.config.halt_max_steps > 1

    def wants_to_halt(self, q_halt: Tensor, q_continue: Tensor) -> Tensor:
        """Whether halting is worth more than going on, [B] bool."""
        return q_halt > (q_continue if self.config.q_continue else 0)

    def initial_carry(self, batch: dict[str, Tensor], first_row: int = 0) -> Carry:
        """A carry in which every sequence is halted and so takes the batch at the first step.

        Args:
            batch: as the loader yields it.
            first_row: row of the batch's first sequence in the global batch.
        """
        inputs = batch["inputs"]
        B, device = inputs.shape[0], inputs.device
        return Carry(
            states=self.inner.blank_states(B, device),
            steps=torch.zeros(B, dtype=torch.int32, device=device),
            halted=torch.ones(B, dtype=torch.bool, device=device),
            row=torch.arange(first_row, first_row + B, device=device),
            tick=torch.zeros(B, dtype=torch.int64, device=device),
            current_data={name: torch.zeros_like(value) for name, value in batch.items()},
        )

    def staggered_carry(self, batch: dict[str, Tensor], first_row: int = 0) -> Carry:
        """A carry in which row r of the global batch counts its steps from r mod halt_max_steps on.

        Every sequence has taken the batch's data and stands before its first step. Its step count
        alone is that of an older one, so that it reaches the last step earlier; whatever takes its
        place begins at 0. Args as of `initial_carry`.
        """
        carry = self.take_new_data(self.initial_carry(batch, first_row), batch)
        steps = (carry.row % self.config.halt_max_steps).to(carry.steps.dtype)
        return replace(carry, steps=steps, halted=torch.zeros_like(carry.halted))

    def blank_batch(self, rows: int, device: torch.device | str) -> dict[str, Tensor]:
        """A batch of zeros, as the loader would yield it: for shapes, or for a pass on blanks."""
        tokens = torch.zeros(rows, self.config.seq_len, dtype=torch.int32, device=device)
        identifiers = torch.zeros(rows, dtype=torch.int32, device=device)
        return {"inputs": tokens, "labels": tokens, "puzzle_identifiers": identifiers}

    def forward(self, carry: Carry, batch: dict[str, Tensor]) -> tuple[Carry, dict[str, Tensor]]:
        """One ACT step of every sequence; those that have halted take the batch's data first.

        Returns:
            As `step`.
        """
        return self.step(self.take_new_data(carry, batch))

    def step(self, carry: Carry) -> tuple[Carry, dict[str, Tensor]]:
        """One ACT step of every sequence on the data that it has.

        Returns:
            As `compute`.
        """
        return self.compute(carry, self.look_up(carry))

    def look_up(self, carry: Carry) -> Tensor | None:
        """The puzzle rows of every sequence's data, as `Core.look_up`."""
        return self.inner.look_up(carry.current_data["puzzle_identifiers"])

    def compute(self, carry: Carry, puzzle: Tensor | None) -> tuple[Carry, dict[str, Tensor]]:
        """One ACT step with puzzle rows that were looked up: all of it can be one graph.

        Returns:
            The new carry, and outputs: `logits` [B, T, V], `q_halt_logits` and
            `q_continue_logits` [B] float32, in training also `target_q_continue` [B].
        """
        prepared = self.inner.prepare(carry.current_data["inputs"], puzzle)
        states, logits, q_halt, q_continue = self.inner.step(carry.states, prepared)
        outputs = {
            "logits": logits,
            "q_halt_logits": q_halt,
            "q_continue_logits": q_continue,
        }
        with torch.no_grad():
            steps = carry.steps + 1
            last_step = steps >= self.config.halt_max_steps
            halted = last_step
            if self.training and self.config.halt_max_steps > 1:
                halted = halted | self.wants_to_halt(q_halt, q_continue)
                halted = halted & (steps >= self._minimum_steps(carry))
            if self.training and self.has_continue_target:
                next_halt, next_continue = self.inner.next_q(states, prepared)
                best = torch.where(last_step, next_halt, torch.maximum(next_halt, next_continue))
                outputs["target_q_continue"] = torch.sigmoid(best)
        carry = replace(carry, states=states, steps=steps, halted=halted, tick=carry.tick + 1)
        return carry, outputs

    def take_new_data(self, carry: Carry, batch: dict[str, Tensor]) -> Carry:
        """Halted sequences start afresh with their rows of the batch."""
        halted, start = carry.halted, self.inner.initial_states()
        return replace(
            carry,
            states={
                name: torch.where(expanded(halted, old), start[name], old)
                for name, old in carry.states.items()
            },
            steps=torch.where(halted, 0, carry.steps),
            current_data={
                name: torch.where(expanded(halted, new), new, carry.current_data[name])
                for name, new in batch.items()
            },
        )

    def _minimum_steps(self, carry: Carry) -> Tensor:
        """Exploration: with some probability, a minimum drawn uniformly from 2…halt_max_steps."""
        c = self.config
        explore = uniform_hash(c.seed, carry.tick, carry.row, 0) < c.halt_exploration_prob
        drawn = uniform_hash(c.seed, carry.tick, carry.row, 1) * (c.halt_max_steps - 1)
        # Cut before adding 2: the float32 sum could round up to halt_max_steps + 1.
        return torch.where(explore, 2 + drawn.to(torch.int32), 0)
