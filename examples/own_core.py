"""A core of its own under the usual wrapper: cells that look at their neighbours, again and again.

python examples/own_task.py data/stones
python examples/own_core.py data/stones
"""

import sys
from types import SimpleNamespace

import torch
from torch import nn

from hrm import Solver
from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.models.act import ACT, Core, CoreStep
from hrm.models.losses import ACTLossHead, LossConfig

ACT_SETTINGS = dict(halt_max_steps=4, halt_exploration_prob=0.2, q_continue=False, seed=0)


class Neighbours(Core):
    """Its one state is z [B, width, rows, columns]."""

    def __init__(self, metadata, width=48, looks=6):
        super().__init__()
        self.config, self.looks = SimpleNamespace(**ACT_SETTINGS, **dict(metadata)), looks
        self.start = nn.Buffer(torch.randn(width, *metadata.grid_shape))
        self.embed, self.norm = nn.Embedding(metadata.vocab_size, width), nn.GroupNorm(1, width)
        self.look = nn.Conv2d(2 * width, width, 3, padding=1)
        self.heads = nn.Conv2d(width, metadata.vocab_size + 1, 1)  # tokens, and how sure a cell is

    def initial_states(self, seed=None):
        return {"z": self.start}

    def blank_states(self, rows, device):
        return {"z": torch.zeros(rows, *self.start.shape, device=device)}

    def prepare(self, inputs, puzzle):
        return self.embed(inputs).mT.unflatten(-1, self.start.shape[1:])

    def step(self, states, e):
        z = states["z"]
        for _ in range(self.looks):
            z = self.norm(z + self.look(torch.cat([z, e], 1)).relu())
        cells = self.heads(z).flatten(2).mT  # B T vocabulary + 1
        sure = cells[..., -1].amin(1)  # as sure as the least sure cell
        return CoreStep({"z": z.detach()}, cells[..., :-1], sure, sure)

    def next_q(self, states, e):
        return self.step(states, e)[2:]

    def look_up(self, identifiers):
        return None  # there is no puzzle embedding

    def blocks(self):
        return []  # nothing is compiled


def main(data, epochs=20):
    def split(name):
        settings = dict(seed=0, global_batch_size=32, epochs_per_iter=1, rank=0, num_replicas=1)
        config = PuzzleDatasetConfig(dataset_path=data, test_set_mode=name == "test", **settings)
        return PuzzleDataset(config, split=name)
    train, test = split("train"), split("test")
    torch.manual_seed(0)
    model = ACTLossHead(ACT(Neighbours(train.metadata)), LossConfig(loss_type="softmax_cross_entropy"))
    optimizer, carry = torch.optim.AdamW(model.parameters(), lr=2e-3), None
    for epoch in range(epochs):
        for _, batch, size in train.iterate(epoch):
            carry, loss, *_ = model(carry=carry or model.initial_carry(batch), batch=batch)
            (loss / size).backward()
            optimizer.step()
            optimizer.zero_grad()
        solver = Solver(model, train.metadata, torch.device("cpu"))
        right = steps = 0
        for _, batch, size in test.iterate(0):
            found = solver.solve(batch["inputs"].numpy())
            right += sum((s.tokens == l.numpy()).all() for s, l in zip(found, batch["labels"]))
            steps+=sum(s.steps for s in found)
        model.train()
        print(epoch, loss.item()/size, right, steps/200)

if __name__ == "__main__":
    main(*sys.argv[1:])
