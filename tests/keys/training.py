"""Runs so short that every step's checkpoint can be looked at."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from hrm.checkpoint import build_for, save_checkpoint, saved_steps, step_dir
from hrm.data.format import read_metadata
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.loop import train, with_run_name

PUZZLES, TEST_PUZZLES, VERSIONS, BATCH = 32, 12, 2, 16
TABLE = "model.inner.puzzle_emb.weights"
TINY_ARCH = (
    "arch.hidden_size=16",
    "arch.num_heads=2",
    "arch.H_layers=1",
    "arch.L_layers=1",
    "arch.expansion=1",
    "arch.halt_max_steps=4",
    "arch.halt_exploration_prob=0",
    "arch.forward_dtype=float32",
)
TINY = (
    *TINY_ARCH,
    f"global_batch_size={BATCH}",
    "epochs=2",
    "eval_interval=null",
    "lr=1e-2",
    "lr_warmup_steps=0",
    "lr_min_ratio=1",
    "puzzle_emb_lr=0.1",
    "puzzle_emb_dropout=0",
    "checkpoint_interval=1",
    "keep_checkpoints=null",
    "device=cpu",
    "compile=false",
    "progress=false",
)  # 4 steps, each with a checkpoint


@dataclass(frozen=True)
class Run:
    """What a run has left in its folder."""

    path: Path

    @cached_property
    def lines(self) -> list[dict[str, float]]:
        """`metrics.jsonl`."""
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    def logged(self, name: str) -> list[float]:
        """One metric, of every line that has it."""
        return [line[name] for line in self.lines if name in line]

    @property
    def steps(self) -> list[int]:
        """Of its checkpoints."""
        return saved_steps(self.path)

    def file(self, step: int, name: str) -> Path:
        return step_dir(self.path, step) / name

    def weights(self, step: int, kind: str = "model") -> dict[str, Tensor]:
        return load_file(self.file(step, f"{kind}.safetensors"))

    def kept(self, step: int, prefix: str) -> dict[str, Tensor]:
        """What resuming needs, under a prefix."""
        tensors = load_file(self.file(step, "training.safetensors"))
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    def dense(self, step: int) -> dict[str, Tensor]:
        """The weights that AdamATan2 updates."""
        names = self.kept(1, "optimizer/exp_avg/")
        return {name: t for name, t in self.weights(step).items() if name in names}


def run(data: Path, folder: Path, *keys: str, base: tuple[str, ...] = TINY) -> Run:
    """Train in this process, into `folder` unless `keys` name another."""
    places = (f"data_path={data}", f"checkpoint_path={folder}")
    config = with_run_name(load_pretrain_config([*places, *base, *keys]))
    return Run(train(config, Ranks(0, 1, 0), torch.device("cpu")))


def saved(
    data: Path,
    folder: Path,
    q_bias: tuple[float, float],
    *keys: str,
    ema_q_bias: tuple[float, float] | None = None,
    q_noise: float = 0.0,
) -> Path:
    """A run's folder with the checkpoint `step_7` of fresh weights.

    Args:
        q_bias: of q_halt and q_continue; with (5, -5) every puzzle wants to halt at once.
        ema_q_bias: likewise in the running average; None: there is none.
        q_noise: deviation of the weights by which q_halt and q_continue depend on the state.
    """
    named = (f"data_path={data}", f"run_name={folder.name}", *TINY)
    config = load_pretrain_config([*named, *keys])
    metadata = read_metadata(data / "train")
    torch.manual_seed(0)
    weights = build_for(config, metadata).state_dict()
    weights["model.inner.q_head.weight"] = q_noise * torch.randn(2, config.arch.hidden_size)

    def halting(bias: tuple[float, float]) -> dict[str, Tensor]:
        return weights | {"model.inner.q_head.bias": torch.tensor(bias)}

    ema = None if ema_q_bias is None else halting(ema_q_bias)
    save_checkpoint(folder, 7, config, metadata, halting(q_bias), ema)
    return folder
