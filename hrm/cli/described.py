"""What all commands have in common; imports nothing that takes long."""

import inspect

import click

from hrm.errors import UserError

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Described(click.Command):
    """A command whose help is its text as written, which begins with an example, and its flags."""

    usage = ""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(inspect.cleandoc(self.help or "") + "\n\n")
        self.format_usage(ctx, formatter)
        self.format_options(ctx, formatter)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [self.usage]


def as_user_error(error: click.ClickException) -> UserError:
    """What click says of a command line, as our one line."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"; {ctx.command_path} --help shows all" if ctx is not None else ""
    return UserError(f"{error.format_message().rstrip('.')}{hint}")
