"""Tasks that are there twice: under one name, or as versions of each other."""

import sys
from collections import defaultdict
from collections.abc import Collection, Sequence

from hrm.errors import UserError
from hrm.tasks.arc.equality import matches, signature
from hrm.tasks.arc.puzzles import Puzzle, Subset

SHOWN = 5  # by name


def check_repeats(subsets: Sequence[Subset], tests: Collection[str]) -> None:
    """Say on stderr which names are in two subsets, and which test tasks are tasks of others.

    Args:
        tests: names of the subsets with test tasks.

    Raises:
        UserError: the name of a test task is in another subset.
    """
    _check_names(subsets, tests)
    known = defaultdict(list)
    for subset in subsets:
        for puzzle in subset.puzzles:
            known[signature(puzzle.all_pairs)].append((subset.name, puzzle))
    equal = [
        f"{name}/{puzzle.name} is {other_name}/{other.name}"
        for alike in known.values()
        for name, puzzle in alike
        if name in tests
        for other_name, other in alike
        if other_name not in tests and _are_versions(puzzle, other)
    ]
    if equal:
        print(
            f"note: test tasks that are other tasks, up to versions: {len(equal):,} "
            f"({_shown(equal)})",
            file=sys.stderr,
        )


def _check_names(subsets: Sequence[Subset], tests: Collection[str]) -> None:
    found: dict[str, str] = {}
    repeated = []
    for subset in subsets:
        for puzzle in subset.puzzles:
            other = found.setdefault(puzzle.name, subset.name)
            if other == subset.name:
                continue
            if subset.name in tests or other in tests:
                raise UserError(
                    f"task {puzzle.name!r} is in subsets {other} and {subset.name}, of which one "
                    "is a test set: its versions would be trained on; leave one of the two out of "
                    "--subsets, or rename the task"
                )
            repeated.append(f"{puzzle.name} in {other} and {subset.name}")
    if repeated:
        print(
            f"note: names in two subsets, whose versions share identifiers: {len(repeated):,} "
            f"({_shown(repeated)})",
            file=sys.stderr,
        )


def _are_versions(puzzle: Puzzle, other: Puzzle) -> bool:
    return next(matches(puzzle.all_pairs, other.all_pairs), None) is not None


def _shown(found: Sequence[str]) -> str:
    return ", ".join(found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
