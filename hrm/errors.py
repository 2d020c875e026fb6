"""What a user did wrong, told in one line."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_USER_ERROR = 2
LONGEST_MESSAGE = 1500


class UserError(ValueError):
    """A mistake that the user can mend: one line naming the key or file, and the way out.

    What was read from a file may be in the message, so control characters are written as escapes,
    and the middle of a very long one is left out.
    """

    def __init__(self, message: str):
        if len(message) > LONGEST_MESSAGE:
            half = LONGEST_MESSAGE // 2
            message = f"{message[:half]}…{message[-half:]}"
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


class OneLineParser(argparse.ArgumentParser):
    """Argument parser whose mistakes are `UserError`s."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help shows all options")


def run_command(main: Callable[[], None]) -> None:
    """Run `main`; a `UserError` becomes one line on stderr and exit code 2, without a traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
