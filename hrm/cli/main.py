"""`hrm`: one command for everything. Each command is imported when it is asked for."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

import click
from click.shell_completion import get_completion_class, shell_complete

import hrm
from hrm.cli.described import SETTINGS, Described, as_user_error
from hrm.cli.encoding import accept_any_text
from hrm.errors import UserError, run_command, write_output

COMMANDS = {
    "build": "build a data set",
    "check": "read all of a data set, and say whether it is whole",
    "train": "train a model",
    "sweep": "train with every combination of several values, and compare",
    "evaluate": "measure a checkpoint on unseen puzzles",
    "solve": "solve puzzles, and watch the model think",
    "serve": "solve puzzles on a web page",
    "report": "compare runs on one page: curves, accuracy, halting, failures",
    "export": "write the folder that others need to run a model",
    "push": "share a model on the Hugging Face Hub",
    "models": "list trained models, architectures and recipes, and what to expect",
    "doctor": "print what a report of a fault needs to say of this machine",
    "completion": "print a script that completes commands in your shell",
}
COMPLETION_VARIABLE = "_HRM_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
HELP = """
hrm build sudoku --generate 2x2 --num-aug 100 --output-dir data/sudoku-4x4
hrm train data/sudoku-4x4 --config-name quickstart_4x4 run_name=first
hrm evaluate checkpoints/quickstart/first
hrm solve checkpoints/quickstart/first .3..1.3...4.4...
hrm solve .3..1.3...4.4...                     # by a model of the package

Train, evaluate and understand hierarchical reasoning models.
"""


class Commands(Described, click.Group):
    """Commands by name, of which only the one that is asked for is imported.

    Args:
        table: name -> what it does, in a few words.
        find: returns a command of the table.
    """

    usage = "COMMAND …"

    def __init__(
        self, name: str, table: Mapping[str, str], find: Callable[[str], click.Command], help: str
    ) -> None:
        super().__init__(name, help=help, context_settings=SETTINGS)
        self._table, self._find = table, find

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._find(cmd_name) if cmd_name in self._table else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table.items()))
        Described.format_options(self, ctx, formatter)


def find(name: str) -> click.Command:
    """One of `COMMANDS`."""
    if name == "completion":
        return completion
    command: click.Command = import_module(f"hrm.cli.{name}").command
    return command


@click.command(
    "completion",
    cls=Described,
    context_settings=SETTINGS,
    help="""
    eval "$(hrm completion bash)"      # in ~/.bashrc; likewise zsh in ~/.zshrc
    hrm completion fish > ~/.config/fish/completions/hrm.fish

    Print a script that completes commands, flags and paths in your shell.
    """,
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    found = get_completion_class(shell)
    assert found is not None
    write_output(found(root, {}, "hrm", COMPLETION_VARIABLE).source())


completion.usage = f"{'|'.join(SHELLS)}"
root = Commands("hrm", COMMANDS, find, HELP)
root.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, _, asked: _print_version(ctx) if asked else None,
        help="print the version",
    )
)


def _print_version(ctx: click.Context) -> None:
    write_output(f"hrm {hrm.__version__}\n")
    ctx.exit()


def start(command: click.Command, arguments: Sequence[str], name: str) -> None:
    """Run a command line.

    Args:
        name: what the user typed to run the command, for its messages.

    Raises:
        UserError: a mistake in it.
        SystemExit: the command ends with an exit code of its own.
    """
    accept_any_text(sys.stdout, sys.stderr)
    try:
        with command.make_context(name, list(arguments)) as context:
            context.command.invoke(context)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        if (
            os.environ.get("RANK", "0") != "0" and "WORLD_SIZE" in os.environ
        ):  # under torchrun all ranks read the same words
            sys.exit(UserError.exit_code)
        raise as_user_error(error) from None


def run(name: str, typed: str) -> None:
    """Run one command as a script, which the user has typed as `typed`."""
    run_command(lambda: start(find(name), sys.argv[1:], typed))


def main() -> None:
    """Run `hrm`."""
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        sys.exit(shell_complete(root, {}, "hrm", COMPLETION_VARIABLE, instruction))
    run_command(lambda: start(root, sys.argv[1:], "hrm"))
