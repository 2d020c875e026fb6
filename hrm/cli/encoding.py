"""Text for terminals and files whose encoding lacks some of it: frames become +, - and |."""

import codecs
from typing import TextIO

PLAIN = {
    **dict.fromkeys("┌┬┐├┼┤└┴┘", "+"),
    "─": "-",
    "│": "|",
    "█": "#",
    "·": ":",
    "…": "...",
    "×": "x",
    "–": "-",
    "’": "'",
    "“": '"',
    "”": '"',
}
ERRORS = "hrm.plain"


def plain(error: UnicodeError) -> tuple[str, int]:
    """What to write for characters that cannot be encoded, as `codecs.register_error` asks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or ascii(c)[1:-1] for c in missing), error.end


codecs.register_error(ERRORS, plain)


def accept_any_text(*streams: TextIO | None) -> None:
    """Let streams write any text, whatever their encoding; one that is closed is None."""
    for stream in streams:
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=ERRORS)
