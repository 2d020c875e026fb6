"""Data sets of minimal puzzles, of any difficulty or of wanted ones, made by several processes.

What is made follows from the seed and from what is asked for; the number of processes and their
pace change nothing.
"""

import itertools
import math
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from hrm.errors import UserError, install_command
from hrm.machine import usable_cores
from hrm.progress import SHORT_SECONDS, Progress, say
from hrm.signals import holding_signals
from hrm.tasks.processes import in_order
from hrm.tasks.sudoku.difficulty import MOST_GUESSES
from hrm.tasks.sudoku.generator import Puzzles, Split, as_arrays, classes, fill_splits
from hrm.tasks.sudoku.rules import BoxShape

if TYPE_CHECKING:
    from hrm.tasks.sudoku.families import Family, Made, Report

MINIMAL: Literal["minimal"] = "minimal"
LIKE_EXTREME = "like-extreme"
RATED_BOX: BoxShape = (3, 3)  # the one for which there are difficulties
CLIMBED = 8  # guesses from which on puzzles come from climbs, where hardness counts
MOST_OF_A_FAMILY, MOST_FROM_CLIMBS = 16, 32
UNRELATED = 4  # puzzles that a process makes at a time where no difficulty is wanted

Band = tuple[int, int]  # fewest and most guesses
ANY: Band = (0, sys.maxsize)
Bands = tuple[tuple[int, int, int], ...]  # weight, fewest and most guesses

# Of 1,000 puzzles of Sudoku-Extreme so many need so many guesses.
EXTREME: Bands = (
    *((105, 0, 0), (75, 1, 1), (64, 2, 3), (88, 4, 7), (85, 8, 15), (105, 16, 31)),
    *((164, 32, 63), (193, 64, 127), (88, 128, 255), (29, 256, 511), (4, 512, MOST_GUESSES)),
)


def parse_difficulty(text: str) -> Bands:
    """'32-127', '0' or 'like-extreme'.

    Raises:
        UserError: not of that form, or more guesses than are counted.
    """
    if text == LIKE_EXTREME:
        return EXTREME
    fewest, dash, most = text.partition("-")
    if not fewest.isdecimal() or (dash and not most.isdecimal()):
        raise UserError(f"must be a number of guesses, MIN-MAX or {LIKE_EXTREME}, e.g. 32-127")
    band = int(fewest), int(most if dash else fewest)
    if band[0] > band[1]:
        raise UserError(f"{band[0]} is more than {band[1]}; give MIN-MAX")
    if band[1] > MOST_GUESSES:
        raise UserError(f"must be MIN-MAX within 0-{MOST_GUESSES}, the most that are counted")
    return ((1, *band),)


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` shared out by weight; what is left over goes to the largest remainders."""
    whole = [total * weight // sum(weights) for weight in weights]
    remainders = [total * weight % sum(weights) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda band: -remainders[band])
    for band in by_remainder[: total - sum(whole)]:
        whole[band] += 1
    return whole


def generate_minimal_split(
    box_shape: BoxShape,
    num_train: int,
    num_test: int,
    seed: int = 0,
    difficulty: Bands | None = None,
    workers: int | None = None,
) -> tuple[Puzzles, Puzzles]:
    """Training and test puzzles that are minimal: no given can be taken away.

    Questions within a split are distinct, and no test puzzle is equivalent to a training puzzle.
    With a difficulty, for boxes of 3x3, each split has its exact share of each band, and no answer
    of a test puzzle is the answer of a training puzzle.

    Args:
        workers: processes; as many as there are cores by default.

    Raises:
        UserError: numba is missing, or there are not enough different puzzles, or none can be
            found, or a process was killed.
    """
    assert difficulty is None or box_shape == RATED_BOX
    wanted = num_train, num_test
    workers = workers or usable_cores()
    what = f"--givens {MINIMAL}" if difficulty is None else "--difficulty"
    make = ready_to_make(what, climbs=difficulty == EXTREME)
    with Progress("puzzles generated", sum(wanted), in_bursts=True) as progress:
        if difficulty is not None:
            return _fill_bands(make, wanted, seed, difficulty, workers, progress)
        streams = (f"{seed} {box_shape} {number}" for number in itertools.count())
        families = (make.Family(box_shape, ((ANY, UNRELATED),), stream) for stream in streams)
        most = math.ceil(sum(wanted) / UNRELATED)
        reports = in_order(make.make, families, min(workers, most), lambda _: progress.update(0))
        with closing(reports):
            rng = random.Random(f"{seed} {box_shape} {MINIMAL}")
            what = f"--generate {box_shape[0]}x{box_shape[1]} {what}"
            puzzles = ([made.puzzle for made in _joined(found)] for found in reports)
            return fill_splits(puzzles, wanted, box_shape, rng, progress, what)


def _fill_bands(
    make: ModuleType,
    wanted: tuple[int, int],
    seed: int,
    difficulty: Bands,
    workers: int,
    progress: Progress,
) -> tuple[Puzzles, Puzzles]:
    """Rounds of families, until each split has its share of each band; one round, as a rule."""
    splits: tuple[Split, Split] = ({}, {})
    split_of: dict[int | bytes, int] = {}  # of each class and each answer
    rng = random.Random(f"{seed} {difficulty}")
    weights = [weight for weight, *_ in difficulty]
    bands: list[Band] = [(fewest, most) for _, fewest, most in difficulty]
    missing = [dict(zip(bands, shares(total, weights), strict=True)) for total in wanted]
    tried = 0

    def heard(report: "Report") -> None:
        nonlocal tried
        tried += report.tried
        progress.update(len(report.made), f"{tried:,} tried")

    for turn in itertools.count():
        jobs = [
            (own, family)
            for own, of_bands in enumerate(missing)
            for family in _families(make, of_bands, f"{own} {turn}", seed, difficulty == EXTREME)
        ]
        if not jobs:
            break
        rng.shuffle(jobs)
        families = [family for _, family in jobs]
        with closing(in_order(make.make, families, min(workers, len(jobs)), heard)) as reports:
            for (own, _), made in zip(jobs, map(_joined, reports), strict=True):
                new = _new_ones(made, own, split_of)
                for (question, answer), band in new:
                    splits[own][question] = answer
                    missing[own][band] -= 1
                progress.update(len(new) - len(made))
    train, test = (_shuffled(split, rng) for split in splits)
    return train, test


def _families(
    make: ModuleType, missing: dict[Band, int], turn: str, seed: int, climbs: bool
) -> "Iterator[Family]":
    """Of each band, or of all together whose puzzles come from climbs, if there are any."""
    climbed = [band for band in missing if climbs and band[0] >= CLIMBED]
    for bands in (climbed, *([band] for band in missing if band not in climbed)):
        largest = MOST_FROM_CLIMBS if bands is climbed else MOST_OF_A_FAMILY
        parts = math.ceil(sum(missing[band] for band in bands) / largest)
        counts = [shares(missing[band], [1] * parts) for band in bands if parts]
        for number, part in enumerate(zip(*counts, strict=True)):
            wanted = tuple(zip(bands, part, strict=True))
            stream = f"{seed} {'climbs' if bands is climbed else bands[0]} {turn} {number}"
            yield make.Family(RATED_BOX, wanted, stream, bands is climbed)


def _new_ones(made: "list[Made]", own: int, split_of: dict[int | bytes, int]) -> "list[Made]":
    """Those of a new class that share no answer with the other split.

    Args:
        own: number of the split.
        split_of: of each class and each answer; those of the new puzzles are added.
    """
    new = []
    puzzles = [puzzle for puzzle, _ in made]
    for one, puzzle_class in zip(made, classes(puzzles, RATED_BOX), strict=True):
        answer = one.puzzle[1]
        if puzzle_class not in split_of and split_of.get(answer, own) == own:
            split_of.update({puzzle_class: own, answer: own})
            new.append(one)
    return new


def _joined(reports: "list[Report]") -> "list[Made]":
    return [made for report in reports for made in report.made]


def _shuffled(split: Split, rng: random.Random) -> Puzzles:
    puzzles = list(split.items())
    rng.shuffle(puzzles)
    return as_arrays(puzzles, RATED_BOX)


def require_numba(what: str) -> None:
    """Raise `UserError` where numba is missing, which the option `what` needs."""
    if find_spec("numba") is None:
        raise UserError(f"{what} needs numba; install it by: {install_command('generate')}")


def ready_to_make(what: str, climbs: bool) -> ModuleType:
    """The module that makes puzzles, compiled: here once, so that no process does it again.

    Args:
        what: the option that asks for them.
        climbs: also what `hrm.tasks.sudoku.nested` needs.

    Raises:
        UserError: numba is missing or cannot work here.
    """
    require_numba(what)
    line = (
        "getting the search for puzzles ready; the first time this takes half a minute, "
        "in which Ctrl-C may take seconds …"
    )
    notice = threading.Timer(SHORT_SECONDS, say, [line, sys.stderr])
    notice.daemon = True
    notice.start()
    try:
        from hrm.tasks.sudoku import families, nested

        if climbs:
            nested.get_ready()
        with holding_signals():
            list(families.make(families.Family((2, 2), (((0, 0), 1),), "")))
        return families
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        raise UserError(
            "numba finds no folder that it could keep compiled code in; name one by "
            "NUMBA_CACHE_DIR=FOLDER"
        ) from None
    finally:
        notice.cancel()
