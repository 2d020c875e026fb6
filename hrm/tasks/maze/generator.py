"""Random mazes with one shortest path: a spanning tree, and loops that do not make another.

Rooms lie where row and column are even (counted from 0), walls and passages between them; an even
number of rows or columns leaves a line of wall at the end.
"""

import random
import time

import numpy as np

from hrm.data.grid import PAD_SYMBOL, Shape, parse_shape
from hrm.errors import UserError
from hrm.progress import Progress
from hrm.tasks.maze.rules import FREE, GOAL, PATH, START, SYMBOLS, WALL, Cell, explore, neighbours
from hrm.tasks.maze.symmetry import canonical

SMALLEST_SIDE = 3
MOST_CELLS = 10_000
LATEST_ROOM = 0.8  # how often a passage leads on from the latest room: long, winding ways
LOOPS = 0.15  # of the walls between rooms that are tried as a further passage
MAX_FAILURES_IN_A_ROW = 500
MAX_REPEATS_IN_A_ROW = 5_000
PATIENCE_SECONDS = 30  # for one maze

Puzzles = tuple[np.ndarray, np.ndarray]  # questions and answers, [N, cells] uint8 each


def parse_maze_shape(text: str) -> Shape:
    """'9x11' -> (9, 11), rows and columns of the grid.

    Raises:
        UserError: not of that form, or too small or too large.
    """
    shape = parse_shape(text)
    if min(shape) < SMALLEST_SIDE or shape[0] * shape[1] > MOST_CELLS:
        raise UserError(
            f"a maze of {text} cells: needs at least {SMALLEST_SIDE} rows and columns, and at most "
            f"{MOST_CELLS:,} cells"
        )
    return shape


def longest_path(shape: Shape) -> int:
    """No path of a generated maze has more moves."""
    rows, columns = _rooms_of(shape)
    return 2 * (rows * columns - 1)


def default_min_path(shape: Shape) -> int:
    """As many moves as between opposite corners without walls."""
    rows, columns = _rooms_of(shape)
    return 2 * (rows - 1 + columns - 1)


def _rooms_of(shape: Shape) -> Shape:
    """Rows and columns of rooms."""
    return (shape[0] + 1) // 2, (shape[1] + 1) // 2


def generate_split(
    shape: Shape, num_train: int, num_test: int, min_path: int | None = None, seed: int = 0
) -> tuple[Puzzles, Puzzles]:
    """Training and test mazes as tokens; none of them all is another one turned or reflected.

    Args:
        min_path: moves that the shortest path has at least.

    Raises:
        UserError: there is no such path, or there are not enough different mazes.
    """
    least = default_min_path(shape) if min_path is None else min_path
    if least > longest_path(shape):
        raise UserError(
            f"--min-path {least}: no path of a maze of {shape[0]}x{shape[1]} cells has more than "
            f"{longest_path(shape)} moves; lower it or choose a larger maze"
        )
    rng = random.Random(f"{seed} {shape} {least}")
    count = num_train + num_test
    mazes: dict[bytes, np.ndarray] = {}  # question and answer, by canonical form
    repeats = 0
    with Progress("mazes generated", count) as progress:
        while len(mazes) < count:
            maze = _one_maze(shape, least, rng)
            if mazes.setdefault(canonical(maze[0], shape), maze) is maze:
                repeats = 0
                progress.update()
            elif (repeats := repeats + 1) > MAX_REPEATS_IN_A_ROW:
                raise UserError(
                    f"--generate {shape[0]}x{shape[1]} --min-path {least}: too few different mazes "
                    f"for {num_train} training and {num_test} test puzzles (found {len(mazes)}); "
                    "lower --num-train or --num-test, or choose a larger maze"
                )
    questions, answers = np.stack([*mazes.values()], axis=1)
    train, test = slice(num_train), slice(num_train, None)
    return (questions[train], answers[train]), (questions[test], answers[test])


def _one_maze(shape: Shape, least: int, rng: random.Random) -> np.ndarray:
    """Question and answer, [2, cells] uint8."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for _ in range(MAX_FAILURES_IN_A_ROW):
        cells = _spanning_tree(shape, rng)
        ends = _ends(cells, least, rng)
        if ends is not None:
            _add_loops(cells, *ends, least, rng)
            return _drawn(cells, shape, *ends)
        if time.monotonic() > deadline:
            break
    raise UserError(
        f"--generate {shape[0]}x{shape[1]} --min-path {least}: out of reach; no maze with so long "
        "a shortest path was found; lower --min-path or choose a larger maze"
    )


def _spanning_tree(shape: Shape, rng: random.Random) -> set[Cell]:
    """The open cells of a maze in which just one way leads from any room to any other."""
    rows, columns = shape
    first = 2 * rng.randrange(_rooms_of(shape)[0]), 2 * rng.randrange(_rooms_of(shape)[1])
    cells, growing = {first}, [first]
    while growing:
        index = -1 if rng.random() < LATEST_ROOM else rng.randrange(len(growing))
        room = growing[index]
        new = [
            near
            for near in neighbours(room, 2)
            if 0 <= near[0] < rows and 0 <= near[1] < columns and near not in cells
        ]
        if not new:
            growing.pop(index)
            continue
        other = rng.choice(new)
        cells |= {other, _between(room, other)}
        growing.append(other)
    return cells


def _between(room: Cell, other: Cell) -> Cell:
    return (room[0] + other[0]) // 2, (room[1] + other[1]) // 2


def _ends(cells: set[Cell], least: int, rng: random.Random) -> tuple[Cell, Cell] | None:
    """Start and goal, `least` moves apart or more; None where no two rooms of the tree are."""
    start = rng.choice(_rooms(cells))
    for _ in range(2):
        moves = explore(cells, start)[0]
        goals = [room for room in _rooms(cells) if moves[room] >= least]
        if goals:
            return start, rng.choice(goals)
        start = max(moves, key=moves.__getitem__)  # an end of a longest path
    return None


def _rooms(cells: set[Cell]) -> list[Cell]:
    return sorted(cell for cell in cells if cell[0] % 2 == cell[1] % 2 == 0)


def _add_loops(cells: set[Cell], start: Cell, goal: Cell, least: int, rng: random.Random) -> None:
    """Open walls between rooms while one shortest path, of `least` moves or more, is left."""
    walls = sorted(
        {
            _between(room, other)
            for room in _rooms(cells)
            for other in neighbours(room, 2)
            if other in cells
        }
        - cells
    )
    for wall in rng.sample(walls, round(LOOPS * len(walls))):
        cells.add(wall)
        moves, ways = explore(cells, start)
        if ways[goal] > 1 or moves[goal] < least:
            cells.remove(wall)


def _drawn(cells: set[Cell], shape: Shape, start: Cell, goal: Cell) -> np.ndarray:
    """Question and answer as tokens, [2, cells] uint8."""
    maze = np.full((2, *shape), WALL)
    for cell in cells:
        maze[:, *cell] = FREE
    moves = explore(cells, start)[0]
    step = goal
    while step != start:
        step = next(n for n in neighbours(step) if moves.get(n) == moves[step] - 1)
        maze[1, *step] = PATH
    maze[:, *start], maze[:, *goal] = START, GOAL
    token_of = {symbol: token for token, symbol in enumerate(PAD_SYMBOL + SYMBOLS)}
    tokens = [token_of[symbol] for symbol in maze.ravel().tolist()]
    return np.array(tokens, np.uint8).reshape(2, -1)
