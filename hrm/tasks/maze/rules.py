"""The rules of a maze: the shortest path from the start to the goal, in 4-neighbour moves."""

from collections import deque
from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

import numpy as np

WALL, FREE, START, GOAL, PATH = "#", " ", "S", "G", "o"
SYMBOLS = WALL + FREE + START + GOAL + PATH

Cell = tuple[int, int]  # row, column


@dataclass(frozen=True)
class Fault:
    """What is wrong with a maze or its answer."""

    part: Literal["question", "answer"]
    reason: str
    cell: int | None = None  # counted row by row, where it is a single one


def find_fault(maze: np.ndarray, answer: np.ndarray) -> Fault | None:
    """Why the answer is not the maze with one shortest path drawn in it; None where it is.

    Args:
        maze, answer: [rows, columns] of characters from `SYMBOLS`; only free cells may become path.
    """
    if (fault := fault_of(maze)) is not None:
        return fault
    path = answer == PATH
    changed = np.flatnonzero((answer != maze) & ~(path & (maze == FREE)))
    if len(changed):
        cell = int(changed[0])
        reason = f"'{answer.flat[cell]}' where the question has '{maze.flat[cell]}'"
        return Fault("answer", reason, cell)
    # Cells that connect start and goal, and no more of them than needed, are a shortest path.
    if _moves_to_goal(maze, path | (maze == START) | (maze == GOAL)) is None:
        return Fault("answer", f"its {PATH} do not lead from {START} to {GOAL}")
    shortest, count = _moves_to_goal(maze, maze != WALL), int(path.sum())
    assert shortest is not None
    if count != shortest - 1:
        reason = f"is not a shortest path: {count} cells are {PATH}, {shortest - 1} are enough"
        return Fault("answer", reason)
    return None


def fault_of(maze: np.ndarray) -> Fault | None:
    """Why a maze, [rows, columns] of characters, has no answer; None where it has one."""
    for symbol, name in ((START, "start"), (GOAL, "goal")):
        places = np.flatnonzero(maze == symbol)
        if len(places) == 0:
            return Fault("question", f"no {name}; one cell must be {symbol}")
        if len(places) > 1:
            return Fault("question", f"a second {name} ({symbol})", int(places[1]))
    if _moves_to_goal(maze, maze != WALL) is None:
        return Fault("question", f"there is no way from {START} to {GOAL}")
    return None


def _moves_to_goal(maze: np.ndarray, free: np.ndarray) -> int | None:
    """Moves of a shortest path through cells that are free, bool; None where there is no way."""
    [start], [goal] = (cells_of(maze == symbol) for symbol in (START, GOAL))
    return explore(cells_of(free), start)[0].get(goal)


def cells_of(mask: np.ndarray) -> set[Cell]:
    """The cells where a mask, [rows, columns] bool, is true."""
    return {(row, column) for row, column in np.argwhere(mask).tolist()}


def explore(cells: Set[Cell], start: Cell) -> tuple[dict[Cell, int], dict[Cell, int]]:
    """Where one gets from the start: moves to each cell, and the number of shortest ways there.

    Args:
        cells: those through which a way may lead.
    """
    moves, ways = {start: 0}, {start: 1}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        for near in neighbours(cell):
            if near not in cells:
                continue
            if near not in moves:
                moves[near], ways[near] = moves[cell] + 1, 0
                queue.append(near)
            if moves[near] == moves[cell] + 1:
                ways[near] += ways[cell]
    return moves, ways


def neighbours(cell: Cell, away: int = 1) -> tuple[Cell, ...]:
    """The four cells so many moves away in a straight line; they may lie outside of the maze."""
    row, column = cell
    up, down = (row - away, column), (row + away, column)
    return up, down, (row, column - away), (row, column + away)
