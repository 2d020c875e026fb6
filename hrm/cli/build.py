"""Build a Sudoku data set.

    python dataset/build_sudoku_dataset.py --generate 2x2 --output-dir data/sudoku-4x4
    python dataset/build_sudoku_dataset.py --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
"""

import argparse
import signal
import time
from pathlib import Path

from hrm.errors import OneLineParser, UserError
from hrm.tasks.sudoku.builder import DEFAULT_REPO, BuildOptions, build
from hrm.tasks.sudoku.rules import parse_box_shape

SOURCE_OPTIONS = ("source_repo", "source_dir", "generate")
CSV_OPTIONS = ("box", "subsample_size", "min_difficulty", "allow_leakage")
GENERATOR_OPTIONS = ("givens", "num_train", "num_test")


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output-dir", type=Path, default=Path("data/sudoku-extreme-full"))
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data set")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal bytes")

    source = parser.add_argument_group("source (one of)")
    source.add_argument("--source-repo", help=f"Hugging Face data set (default {DEFAULT_REPO})")
    source.add_argument("--source-dir", type=Path, help="folder with train.csv and maybe test.csv")
    source.add_argument("--generate", metavar="RxC", help="new puzzles with boxes of RxC cells")

    csv = parser.add_argument_group("with CSV files (source,question,answer,rating)")
    csv.add_argument("--box", metavar="RxC", help="box shape, where not the obvious one (36: 2x3)")
    csv.add_argument("--subsample-size", type=int, metavar="N", help="draw N training puzzles")
    csv.add_argument("--min-difficulty", type=int, metavar="R", help="only ratings of R and above")
    csv.add_argument(
        "--allow-leakage",
        action="store_true",
        help="accept test puzzles that equal training puzzles up to symmetry",
    )

    generator = parser.add_argument_group("with --generate")
    generator.add_argument("--givens", metavar="MIN-MAX", help="number of given cells")
    generator.add_argument("--num-train", type=int, metavar="N", help="default 1000")
    generator.add_argument("--num-test", type=int, metavar="N", help="default 500")

    output = parser.add_argument_group("what to write")
    output.add_argument(
        "--num-aug", type=int, default=0, metavar="N", help="N more versions per training puzzle"
    )
    output.add_argument(
        "--format", choices=("hrm", "original"), default="hrm", help="original: digit + 1, set all"
    )
    output.add_argument("--identifiers", choices=("per-puzzle", "shared"))
    return parser


def parse_options(argv: list[str] | None = None) -> BuildOptions:
    """Read the command line.

    Raises:
        UserError: an option is unknown, out of range, or contradicts another.
    """
    args = make_parser().parse_args(argv)
    sources = [name for name in SOURCE_OPTIONS if getattr(args, name) is not None]
    if len(sources) > 1:
        raise UserError(f"{' and '.join(map(_flag, sources))} exclude each other; keep one")
    misplaced = GENERATOR_OPTIONS if args.generate is None else CSV_OPTIONS
    for name in misplaced:
        value = getattr(args, name)
        if value is not None and value is not False:
            relation = "needs" if args.generate is None else "does not go with"
            raise UserError(f"{_flag(name)} {relation} --generate; drop one or add the other")
    for name, least in (
        ("num_train", 1),
        ("num_test", 0),
        ("subsample_size", 1),
        ("num_aug", 0),
        ("seed", 0),
    ):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"{_flag(name)} {value}: must be at least {least}")
    if args.format == "original" and args.identifiers == "per-puzzle":
        raise UserError(
            "--identifiers per-puzzle does not go with --format original, which has one for all"
        )
    return BuildOptions(
        output_dir=args.output_dir,
        source_repo=DEFAULT_REPO if args.source_repo is None else args.source_repo,
        source_dir=args.source_dir,
        generate=None if args.generate is None else _box("--generate", args.generate),
        givens=None if args.givens is None else _givens(args.givens),
        num_train=1000 if args.num_train is None else args.num_train,
        num_test=500 if args.num_test is None else args.num_test,
        box_shape=None if args.box is None else _box("--box", args.box),
        subsample_size=args.subsample_size,
        min_difficulty=args.min_difficulty,
        num_aug=args.num_aug,
        seed=args.seed,
        format=args.format,
        identifiers=args.identifiers or "per-puzzle",
        allow_leakage=args.allow_leakage,
        overwrite=args.overwrite,
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _box(flag: str, text: str) -> tuple[int, int]:
    try:
        return parse_box_shape(text)
    except UserError as error:
        raise UserError(f"{flag}: {error}") from None


def _givens(text: str) -> tuple[int, int]:
    fewest, dash, most = text.partition("-")
    if not fewest.isdecimal() or (dash and not most.isdecimal()):
        raise UserError(f"--givens {text}: must be a number or MIN-MAX, e.g. 4-7")
    return int(fewest), int(most if dash else fewest)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    started = time.perf_counter()
    summary = build(parse_options())
    print(
        f"{summary.train_rows:,} training rows ({summary.train_puzzles:,} puzzles) and "
        f"{summary.test_puzzles:,} test puzzles in {summary.output_dir} "
        f"({time.perf_counter() - started:.1f} s)"
    )
