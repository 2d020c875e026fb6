"""How people write Sudokus."""

from hrm.data.grid import PAD_SYMBOL
from hrm.tasks.reading import Notation, Spelling
from hrm.tasks.sudoku.rules import BLANK

DOTS = "·•‧∙⋅․・"  # U+00B7, 2022, 2027, 2219, 22C5, 2024, 30FB
BLANKS = f"0{PAD_SYMBOL}*{DOTS}"
DASHES = "-‐‑‒–—−"
LINES = "".join(map(chr, range(0x2500, 0x2580)))  # box drawing
FRAME = f" \t\u00a0\u3000\ufeff|¦+{LINES}"
CORNERS = f"+*{LINES}"
LARGEST_WITHOUT_LETTERS = 9


def sudoku_notation(symbols: str) -> Notation:
    """The notation of grids of these symbols: a blank, the digits and, perhaps, padding.

    `.`, `0`, `_`, `*` and other dots are blank, dashes where they are no frame; letters may be
    small; spaces and frames do not count.
    """
    small = {s.lower(): s for s in symbols if s.lower() != s}
    return Notation(
        symbols,
        aliases=small | dict.fromkeys(BLANKS, BLANK),
        frame=FRAME,
        corners=CORNERS,
        dashes=dict.fromkeys(DASHES, BLANK),
        stretched={"…": "..."},
        spellings=_spellings(symbols.removeprefix(PAD_SYMBOL).removeprefix(BLANK)),
    )


def _spellings(digits: str) -> tuple[Spelling, ...]:
    """Digits that begin with 0, and letters alone, as grids with letters are also written.

    Only characters that are not among ours get another meaning, so what is common to two
    spellings reads alike in both.
    """
    side = len(digits)
    if side <= LARGEST_WITHOUT_LETTERS:
        return ()
    last, numbers = digits[-1], digits[:LARGEST_WITHOUT_LETTERS]
    beyond = [chr(ord(last) + n) for n in range(1, LARGEST_WITHOUT_LETTERS + 1)]
    letters = dict(zip(beyond, numbers, strict=True))
    other_blanks = f"{BLANK}{PAD_SYMBOL}*{DOTS}{DASHES}…"
    never = "".join([last, *beyond])
    return (
        Spelling(
            {"0": last},
            beside=other_blanks,
            never=never + never.lower(),
            meaning=f"0 is read as a digit, {last}, since blanks are written otherwise",
        ),
        Spelling(
            letters | {c.lower(): digit for c, digit in letters.items()},
            beside="",
            never=numbers,
            meaning=f"{beyond[0]} to {beyond[-1]} are read as 1 to 9, since there are no numbers",
        ),
    )
