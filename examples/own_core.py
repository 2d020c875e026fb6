"""A core of one's own under the usual wrapper: cells look at their neighbours, again and again.

python examples/own_task.py data/stones
python examples/own_core.py data/stones
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from own_loop import solved, train
from torch import Tensor, nn

from hrm.data.format import DatasetMetadata, read_metadata
from hrm.models.act import ACT, Core, CoreStep, States
from hrm.models.losses import ACTLossHead, LossConfig

SETTINGS = dict(halt_max_steps=4, halt_exploration_prob=0.2, q_continue=False, seed=0)


class Neighbours(Core):
    """An ACT step is six looks with one convolution; the state z is [B, width, rows, columns]."""

    def __init__(self, metadata: DatasetMetadata, width: int = 48) -> None:
        super().__init__()
        self.config = SimpleNamespace(**SETTINGS, **dict(metadata))  # halting, shapes of the data
        self.embed, self.norm = nn.Embedding(metadata.vocab_size, width), nn.GroupNorm(1, width)
        self.look = nn.Conv2d(2 * width, width, 3, padding=1)
        self.heads = nn.Conv2d(width, metadata.vocab_size + 1, 1)  # tokens, and how sure a cell is
        self.start = nn.Buffer(torch.randn(width, *(metadata.grid_shape or (1, 1))))

    def initial_states(self, seed: int | None = None) -> States:
        return {"z": self.start}

    def prepare(self, inputs: Tensor, puzzle: Tensor | None) -> Tensor:
        return self.embed(inputs).mT.unflatten(-1, self.start.shape[1:])

    def step(self, states: States, prepared: Tensor) -> CoreStep:
        z = states["z"]
        for _ in range(6):
            z = self.norm(z + self.look(torch.cat([z, prepared], 1)).relu())
        cells = self.heads(z).flatten(2).mT  # B T vocabulary + 1
        sure = cells[..., -1].amin(1)  # as sure as the least sure cell
        return CoreStep({"z": z.detach()}, cells[..., :-1], sure, sure)


if __name__ == "__main__":
    torch.manual_seed(0)
    core = Neighbours(read_metadata(Path(sys.argv[1], "train")))
    model = ACTLossHead(ACT(core), LossConfig(loss_type="softmax_cross_entropy"))
    train(model, sys.argv[1], epochs=int(sys.argv[2]) if sys.argv[2:] else 15)
    print(solved(model, sys.argv[1]))
