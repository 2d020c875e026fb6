"""Load a checkpoint once, solve many puzzles, and keep what every ACT step answered.

Shapes: N puzzles, T tokens per puzzle, S ACT steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hrm.checkpoint import WeightsName, load_checkpoint
from hrm.data.format import DatasetMetadata
from hrm.data.sudoku import is_valid_solution
from hrm.device import DeviceName, pick_device
from hrm.errors import UserError
from hrm.models.losses import ACTLossHead
from hrm.rollout import Halting, rollout
from hrm.viz import PAD_SYMBOL, GridLook


@dataclass(frozen=True)
class Solution:
    """One puzzle's answer, and how it came about."""

    inputs: np.ndarray  # T, int32
    steps: np.ndarray  # S T, int32: the answer after every ACT step, until the puzzle halted
    q_halt: np.ndarray  # S, float32 logits
    q_continue: np.ndarray  # S, float32 logits

    @property
    def tokens(self) -> np.ndarray:
        """The final answer, [T] int32."""
        return self.steps[-1]

    @property
    def halted_at(self) -> int:
        """ACT steps taken."""
        return len(self.steps)

    @property
    def halt_confidence(self) -> np.ndarray:
        """sigmoid(q_halt) of every step, [S] float32: how sure the model is of being right."""
        return torch.from_numpy(self.q_halt).sigmoid().numpy()


class Solver:
    """A model in evaluation mode on its device, and what it knows about the puzzles."""

    def __init__(
        self,
        model: ACTLossHead,
        metadata: DatasetMetadata,
        device: torch.device,
        halt_probability: float = 0.0,
    ):
        self.model = model.to(device).eval()
        self.metadata = metadata
        self.look = GridLook.from_metadata(metadata)
        self.device = device
        self.halt_probability = halt_probability  # with learned halting; see `rollout`

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: DeviceName = "auto",
        weights: WeightsName = "auto",
        data_path: Path | None = None,
    ) -> "Solver":
        """Rebuild the model of a checkpoint (a `step_<n>`, or the newest of a run's folder).

        The original's checkpoints take the sequence length from `data_path`.

        Raises:
            UserError: as `load_checkpoint` and `pick_device`.
        """
        chosen = pick_device(device)
        checkpoint = load_checkpoint(Path(path), weights, data_path)
        sure = checkpoint.config.eval_halt_probability
        return cls(checkpoint.model, checkpoint.metadata, chosen, sure)

    @property
    def unseen_identifier(self) -> int:
        """Identifier of a puzzle that training did not know: the shared one, else the blank."""
        shared = self.metadata.num_puzzle_identifiers == 1
        return 0 if shared else self.metadata.blank_identifier_id

    def solve(
        self,
        inputs: np.ndarray | Sequence[str],
        halting: Halting = "max_steps",
        puzzle_identifiers: np.ndarray | None = None,
        batch_size: int = 64,
    ) -> list[Solution]:
        """Solve puzzles, at most `batch_size` side by side.

        Args:
            inputs: [N, T] integer tokens, or N strings as `parse_puzzle` reads them.
            halting: `max_steps` takes all steps; `learned` lets the model halt each puzzle.
            puzzle_identifiers: [N] integers; None: all are unseen.

        Raises:
            UserError: a puzzle does not fit the model.
        """
        tokens = self._tokens(inputs)
        if puzzle_identifiers is None:
            puzzle_identifiers = np.full(len(tokens), self.unseen_identifier)
        identifiers = torch.from_numpy(np.asarray(puzzle_identifiers, np.int32))
        if len(identifiers) != len(tokens):
            raise UserError(f"{len(tokens)} puzzles, but {len(identifiers)} puzzle identifiers")
        return self._solve(tokens, identifiers, halting, batch_size) if len(tokens) else []

    def _tokens(self, inputs: np.ndarray | Sequence[str]) -> np.ndarray:
        if not isinstance(inputs, np.ndarray):
            if isinstance(inputs, str):
                raise UserError("inputs: give a list of puzzles, not one string")
            inputs = np.array([parse_puzzle(text, self.metadata) for text in inputs], np.int32)
            inputs = inputs.reshape(-1, self.metadata.seq_len)
        vocab_size, seq_len = self.metadata.vocab_size, self.metadata.seq_len
        if inputs.dtype.kind not in "iu" or inputs.ndim != 2 or inputs.shape[1] != seq_len:
            raise UserError(
                f"inputs: {inputs.dtype} of shape {list(inputs.shape)}, expected integers of "
                f"shape [puzzles, {seq_len}]"
            )
        if inputs.size and not 0 <= inputs.min() <= inputs.max() < vocab_size:
            raise UserError(f"inputs: tokens must be in 0..{vocab_size - 1}")
        return inputs.astype(np.int32)

    @torch.inference_mode()
    def _solve(
        self, tokens: np.ndarray, identifiers: Tensor, halting: Halting, batch_size: int
    ) -> list[Solution]:
        inputs = torch.from_numpy(tokens)
        batches = (
            {"inputs": rows.to(self.device), "puzzle_identifiers": names.to(self.device)}
            for rows, names in zip(
                inputs.split(batch_size), identifiers.split(batch_size), strict=True
            )
        )
        index, answers, q_halt, q_continue = [], [], [], []
        for step in rollout(self.model, batches, halting, self.halt_probability):
            taken = step.select(step.running)
            index.append(taken.index)
            answers.append(taken.outputs["logits"].argmax(-1).to(torch.int32))
            q_halt.append(taken.outputs["q_halt_logits"])
            q_continue.append(taken.outputs["q_continue_logits"])
        puzzles, by_puzzle = torch.cat(index).sort(stable=True)
        steps = torch.bincount(puzzles).tolist()
        columns = (
            [part.numpy() for part in torch.cat(values).cpu()[by_puzzle].split(steps)]
            for values in (answers, q_halt, q_continue)
        )
        return [Solution(*of_puzzle) for of_puzzle in zip(tokens, *columns, strict=True)]


def parse_puzzle(text: str, metadata: DatasetMetadata) -> np.ndarray:
    """One character per token, line breaks ignored; `.`, `0` and `_` are blank in a Sudoku.

    Returns:
        [T] int32.

    Raises:
        UserError: the wrong number of characters, or one that the data set does not have.
    """
    look = GridLook.from_metadata(metadata)
    token_of = {symbol: token for token, symbol in enumerate(look.symbols)}
    if look.is_sudoku:
        token_of |= dict.fromkeys(f"0{PAD_SYMBOL}", token_of["."])
    text = text.replace("\r", "").replace("\n", "")
    if wrong := [c for c in text if c not in token_of]:
        known = "".join(dict.fromkeys(look.symbols))
        raise UserError(f"puzzle: character {wrong[0]!r} is not one of {known!r}")
    if len(text) != metadata.seq_len:
        rows, columns = look.shape
        raise UserError(
            f"puzzle: {len(text)} characters, expected {metadata.seq_len} ({rows}x{columns})"
        )
    return np.array([token_of[c] for c in text], np.int32)


def is_valid_sudoku(tokens: np.ndarray, inputs: np.ndarray, look: GridLook) -> bool:
    """Whether the answer keeps the givens and has every digit once per row, column and box.

    Args:
        tokens, inputs: [T] integers; `look` is a Sudoku's.
    """
    assert look.box_shape is not None
    digits = tokens.astype(np.int64) - look.symbols.index(".")
    return (
        bool(is_valid_solution(digits[None], look.box_shape)[0])
        and not ((tokens != inputs) & look.givens(inputs)).any()
    )


def contradiction(inputs: np.ndarray, look: GridLook) -> str | None:
    """Which given a Sudoku has twice in a row, column or box, in words; None where there is none.

    Args:
        inputs: [T] integers.
    """
    assert look.box_shape is not None
    cells = np.arange(len(inputs))
    rows, columns = np.divmod(cells, look.shape[1])
    boxes_across = look.shape[1] // look.box_shape[1]
    boxes = rows // look.box_shape[0] * boxes_across + columns // look.box_shape[1]
    givens = look.givens(inputs)
    for name, units in (("row", rows), ("column", columns), ("box", boxes)):
        for unit in range(look.shape[0]):
            tokens, counts = np.unique(inputs[givens & (units == unit)], return_counts=True)
            if (counts > 1).any():
                symbol = look.symbol(tokens[counts > 1][0])
                return f"{symbol} is given {counts.max()} times in {name} {unit + 1}"
    return None
