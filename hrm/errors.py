"""Mistakes of users, said in one line; and how a command writes, fails and ends."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import hrm
from hrm.signals import Interrupted, end_at_once, end_with_torchrun, handled_by, interrupt
from hrm.streams import lasting, lead_nowhere, open_streams

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST_MESSAGE = 1500
TOP_LEVEL = "(top level)"  # the key of a mistake that is of several keys
MEMORY_IS_FULL = ("out of memory", "can't allocate memory")  # as torch says it


class UserError(ValueError):
    """A mistake that the user can fix: one line naming the key or file, and the way out.

    What was read from a file may be in the message, so control characters are written as escapes,
    and the middle of a very long one is left out.
    """

    exit_code = 2

    def __init__(self, message: str):
        if len(message) > LONGEST_MESSAGE:
            half = LONGEST_MESSAGE // 2
            message = f"{message[:half]}…{message[-half:]}"
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


class TrainingDiverged(UserError):
    """Losses or gradients stay non-finite, from `step` on."""

    exit_code = 3

    def __init__(self, message: str, step: int = 0):
        super().__init__(message)
        self.step = step


class RankLost(UserError):
    """A process of the job is gone or does not answer."""

    exit_code = 4


def install_command(extra: str) -> str:
    """What installs an extra of this package."""
    return f"pip install '{hrm.DISTRIBUTION}[{extra}]'"


def one_line(error: BaseException, named: bool = False) -> str:
    """What an error says, on one short line; behind the name of its kind, or that name alone."""
    name, said = type(error).__name__, " ".join(str(error).split())[:200]
    return f"{name}: {said}" if named and said else said or name


def explained(error: BaseException) -> BaseException:
    """The error itself; where memory has run out, a `UserError` that says so."""
    is_full = isinstance(error, RuntimeError) and any(t in str(error) for t in MEMORY_IS_FULL)
    if not (is_full or isinstance(error, MemoryError)):
        return error
    return UserError(
        f"memory is full ({one_line(error)}); where puzzles run side by side, let fewer: by "
        "micro_batch_size in training, --global-batch-size of evaluate, --batch-size of solve"
    )


def first_mistake(error: "ValidationError") -> tuple[str, str]:
    """The first wrong key, dotted, and what is wrong with it."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or TOP_LEVEL
    if first["type"] == "extra_forbidden":
        return key, "unknown key"
    return key, first["msg"].removeprefix("Value error, ")


def write_output(text: str) -> None:
    """Write to standard output, at once.

    Raises:
        UserError: it cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        lead_nowhere(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"standard output: cannot be written ({error.strerror})") from None


def report_and_exit(error: BaseException) -> NoReturn:
    """Report what ends this process, and end it at once, with the exit code of `run_command`.

    For where Python's own way to the end would wait for something that does not come.
    """
    code, error = 1, explained(error)
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    elif isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif isinstance(error, KeyboardInterrupt):
        end_at_once(error.number if isinstance(error, Interrupted) else signal.SIGINT)
    else:
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run_command(main: Callable[[], None]) -> None:
    """Run `main`; a `UserError` becomes one line on stderr and its exit code, no traceback.

    A signal that asks to end raises `Interrupted` in `main`; the exit code is 128 + its number.
    """
    open_streams()
    with lasting("stderr"), handled_by(interrupt):
        end_with_torchrun()
        try:
            main()
        except BrokenPipeError:
            sys.exit(128 + signal.SIGPIPE)
        except KeyboardInterrupt as error:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            # At once: a thread that still writes would not survive Python's own end.
            end_at_once(error.number if isinstance(error, Interrupted) else signal.SIGINT)
        except Exception as error:
            known = explained(error)
            if not isinstance(known, UserError):
                raise
            print(f"error: {known}", file=sys.stderr)
            sys.exit(known.exit_code)
