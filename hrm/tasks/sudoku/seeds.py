"""Finds puzzles that need nested trials, from nothing: those of `nested.txt`.

    python -m hrm.tasks.sudoku.seeds COUNT [SEED] > hrm/tasks/sudoku/nested.txt

A population of minimal puzzles climbs until one of them needs nested trials: assuming a candidate
has to settle ever fewer of their cells. Each puzzle comes from a population of its own, that begins
with random ones; that takes half a minute to a minute and a half.
"""

import random
import sys
from bisect import insort
from collections.abc import Iterator

from hrm.progress import Progress
from hrm.tasks.sudoku.families import MOST_ALIKE, Spot, begin, near
from hrm.tasks.sudoku.minimal import RATED_BOX

POPULATION, FIRST = 50, 5  # puzzles at most, and to begin with

Member = tuple[float, int, Spot]  # settled share; number, in the order in which they were found


def climb(rng: random.Random) -> Iterator[Spot]:
    """Yields each puzzle that joins the population."""
    members: list[Member] = []
    known: set[tuple[bytes, bytes]] = set()
    while True:
        if len(members) < FIRST:
            grid, given = begin(RATED_BOX, rng)
        else:
            better_more_often = int(rng.random() ** 2 * len(members))
            grid, given = near(members[better_more_often][2], rng)
        puzzle = grid.puzzle(given)
        if puzzle in known:
            continue
        full = len(members) == POPULATION
        most = members[-1][0] if full else 1.0
        share = grid.settled_share(given, most)
        if share > most:
            continue
        alike = [
            place
            for place, (*_, (own, _)) in enumerate(members)
            if (own.digits == grid.digits).all()
        ]
        if len(alike) == MOST_ALIKE:
            if members[alike[-1]][0] <= share:
                continue
            del members[alike[-1]]
        elif full:
            members.pop()
        known.add(puzzle)
        insort(members, (share, len(known), (grid, given)), key=lambda member: member[:2])
        yield grid, given


def find(stream: str) -> str:
    """A question: digits, and a point where a cell is blank."""
    for grid, given in climb(random.Random(stream)):
        if grid.is_nested(given):
            return "".join(map(str, grid.digits * given)).replace("0", ".")
    raise AssertionError("climbs do not end")


if __name__ == "__main__":
    count, seed = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "0"
    with Progress("puzzles found", count) as progress:
        for number in range(count):
            print(find(f"{seed} {number}"), flush=True)
            progress.update(1)
