"""The rules of a maze: the shortest path from the start to the goal, in 4-neighbour moves."""

from collections import deque

import numpy as np

SYMBOLS = "# SGo"
WALL, FREE, START, GOAL, PATH = "#", " ", "S", "G", "o"


def is_shortest_path(answer: np.ndarray, maze: np.ndarray) -> bool:
    """Whether the answer is the maze with one shortest path from start to goal drawn in it.

    Args:
        answer, maze: [rows, columns] of characters from `SYMBOLS`; only free cells may become path.
    """
    path = answer == PATH
    if ((answer != maze) & ~(path & (maze == FREE))).any():
        return False
    starts, goals = np.argwhere(maze == START), np.argwhere(maze == GOAL)
    if len(starts) != 1 or len(goals) != 1:
        return False
    start, goal = tuple(starts[0]), tuple(goals[0])
    length = _distance(maze != WALL, start, goal)
    # As many cells as the shortest path needs, and they connect: then they are such a path.
    return (
        length is not None
        and int(path.sum()) == length - 1
        and _distance(path | (maze == START) | (maze == GOAL), start, goal) == length
    )


def _distance(open_cells: np.ndarray, start: tuple[int, ...], goal: tuple[int, ...]) -> int | None:
    """Moves from start to goal through open cells, None where there is no way."""
    distance = {start: 0}
    queue = deque([start])
    while queue:
        row, column = cell = queue.popleft()
        if cell == goal:
            return distance[cell]
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= near[0] < open_cells.shape[0] and 0 <= near[1] < open_cells.shape[1]
            if inside and near not in distance and open_cells[near]:
                distance[near] = distance[cell] + 1
                queue.append(near)
    return None
