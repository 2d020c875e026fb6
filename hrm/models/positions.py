"""Learned positions: a vector for each place, or for each row, column and box of a grid.

Shapes: P prefix positions of the puzzle embedding, T tokens (cells), S = P + T, D hidden size.
"""

import math

import torch
from torch import Tensor, nn

from hrm.data.grid import Shape
from hrm.models.layers import CastedEmbedding


def grid_units(grid: Shape, box: Shape | None) -> Tensor:
    """Row, column and, where there are boxes, box of every cell, int64 [2 or 3, T]."""
    rows, columns = grid
    cells = torch.arange(rows * columns)
    row, column = cells // columns, cells % columns
    if box is None:
        return torch.stack([row, column])
    return torch.stack([row, column, row // box[0] * (columns // box[1]) + column // box[1]])


def grid_relations(grid: Shape, box: Shape | None, prefix_len: int) -> Tensor:
    """What two positions share, int64 [S, S]: row 1 + column 2 + box 4; prefix 0.

    In a grid without boxes it is 4 where the cells are next to each other.
    """
    units = grid_units(grid, box)
    same = units.unsqueeze(2) == units.unsqueeze(1)
    if box is None:
        apart = (units.unsqueeze(2) - units.unsqueeze(1)).abs().sum(0)
        same = torch.cat([same, (apart == 1).unsqueeze(0)])
    relations = (same * torch.tensor([1, 2, 4]).view(3, 1, 1)).sum(0)
    return nn.functional.pad(relations, (prefix_len, 0, prefix_len, 0))


class GridEmbedding(nn.Module):
    """Learned row + column (+ box) tables added to the tokens of a grid."""

    def __init__(
        self, grid: Shape, box: Shape | None, prefix_len: int, dim: int, dtype: torch.dtype
    ):
        super().__init__()
        (rows, columns), std = grid, 1.0 / math.sqrt(dim)
        self.index = nn.Buffer(grid_units(grid, box), persistent=False)
        self.prefix_len = prefix_len
        self.row = CastedEmbedding(rows, dim, std, dtype)
        self.column = CastedEmbedding(columns, dim, std, dtype)
        self.box = None
        if box is not None:
            boxes = (rows // box[0]) * (columns // box[1])
            self.box = CastedEmbedding(boxes, dim, std, dtype)

    def forward(self, e: Tensor) -> Tensor:  # B S D
        tables = self.row(self.index[0]) + self.column(self.index[1])
        if self.box is not None:
            tables = tables + self.box(self.index[2])
        return e + nn.functional.pad(tables, (0, 0, self.prefix_len, 0))


class LearnedPositions(CastedEmbedding):
    """One learned vector per position: (e + table)/√2."""

    def forward(self, e: Tensor) -> Tensor:  # B S D
        return (e + self.embedding_weight.to(self.cast_to)) / math.sqrt(2)
