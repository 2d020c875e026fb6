"""`hrm train`: a recipe, changed by `key=value`."""

import os
import re
import sys
from collections.abc import Mapping, Sequence

import click
from pydantic.fields import FieldInfo

from hrm.cli.described import SETTINGS, Described
from hrm.cli.launch import next_command
from hrm.cli.options import Text, is_literal
from hrm.config import RECIPE, RECIPES
from hrm.errors import UserError, write_output
from hrm.signals import ending_at_once
from hrm.streams import lasting

KEY = re.compile(r"[+~]{0,2}([A-Za-z_]\w*)[\w.@/]*(?:=|$)")
HELP = """
hrm train data/sudoku-4x4 --config-name quickstart_4x4 run_name=first
hrm train data/sudoku-extreme-1k-aug-1000 lr=1e-4 epochs=20000 arch.L_cycles=8
hrm train data/sudoku-4x4 run_name=night resume=auto   # the same again goes on
torchrun --nproc-per-node 8 -m hrm train data/sudoku-extreme-1k-aug-1000

Train a model on a data set. A recipe gives keys and values, key=value changes
them; --keys lists them.
"""


def recipes() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def words_and_recipe() -> list[click.Parameter]:
    """A data set with keys and values, and the flag that names a recipe."""
    recipe = click.Option(
        ["--config-name"],
        type=Text(recipes()),
        default=RECIPE,
        metavar="NAME",
        help=f"recipe: {', '.join(recipes())} (default {RECIPE})",
    )
    return [click.Argument(["words"], nargs=-1, type=Text(is_path=True)), recipe]


class TrainCommand(Described):
    """Words that are keys and values go to Hydra, the other one is the data set."""

    usage = "[DATA] [key=value …]"

    def invoke(self, ctx: click.Context) -> None:
        run(ctx.params["words"], ctx.params["config_name"], ctx.command_path)


command = TrainCommand(
    "train",
    help=HELP,
    context_settings=SETTINGS,
    params=[
        *words_and_recipe(),
        click.Option(
            ["--keys"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=lambda ctx, _, asked: _print_keys(ctx) if asked else None,
            help="list all keys with their defaults and meaning",
        ),
    ],
)


def _print_keys(ctx: click.Context) -> None:
    from hrm.cli.keys import rows
    from hrm.training.config import PretrainConfig

    for key, value, default, meaning in rows(PretrainConfig):
        is_set = "" if default == "required" else f" = {default}"
        write_output(f"{key}{is_set}: {meaning} ({value})\n".replace("`", ""))
    ctx.exit()


def overrides_of(words: Sequence[str], fields: Mapping[str, FieldInfo], typed: str) -> list[str]:
    """Hydra's overrides, of words `key=value` and a word that is none as `data_path`.

    Values of paths and names are quoted, so that Hydra reads them as they were typed: `1e-4` is
    no number there, and `a,b` no list.

    Args:
        fields: of the known keys. A path may contain `=`, too.
        typed: the command, for messages.

    Raises:
        UserError: there are two data sets.
    """
    overrides: list[str] = []
    data: list[str] = []
    for word in words:
        found = KEY.match(word)
        is_key = found is not None and (found[1] in fields or not os.path.exists(word))
        is_override = is_key and ("=" in word or word.startswith("~"))
        if is_override:
            overrides.append(_literal(word, fields))
        else:
            data.append(word)
    given = [word for word in overrides if word.startswith("data_path=")]
    if len(data) + len(given) > 1 and data:
        raise UserError(
            f"{typed}: {data[-1]!r} is neither key=value nor the only data set; give one"
        )
    return [*(f"data_path={_quoted(path)}" for path in data), *overrides]


def _literal(word: str, fields: Mapping[str, FieldInfo]) -> str:
    """A word `key=value` with the value quoted where the key is a path or a name."""
    key, _, value = word.partition("=")
    field = fields.get(key.lstrip("+"))
    if field is None or value == "null" or not is_literal(field):
        return word
    return f"{key}={_quoted(value)}"


def _quoted(text: str) -> str:
    """A value that Hydra reads as this very text."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text).replace("${", "\\${")
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def run(words: Sequence[str], recipe: str, typed: str) -> None:
    """Train until the end, on every rank of the job, whatever becomes of what is printed."""
    with lasting("stdout"), ending_at_once():
        _run(words, recipe, typed)


def _run(words: Sequence[str], recipe: str, typed: str) -> None:
    from hrm.device import keep_memory, pick_device
    from hrm.ranks import Ranks
    from hrm.training.config import PretrainConfig, load_pretrain_config
    from hrm.training.loop import train

    keep_memory()
    ranks = Ranks.from_environment()
    with ranks.connected():
        keys = PretrainConfig.model_fields
        config = ranks.agree(lambda: load_pretrain_config(overrides_of(words, keys, typed), recipe))
        device = ranks.together(lambda: pick_device(config.device, ranks.local_rank))
        with ranks.answering_within(config.rank_timeout) as group:
            run_dir = train(config, group, device)
    if ranks.is_first:
        print(f"saved in {run_dir}; next: {next_command('evaluate', run_dir)}", file=sys.stderr)
