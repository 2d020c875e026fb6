"""Commands of schemas: the name, type, default and meaning of a key are written once, in its field.

A key is given as a word (`batch_size=8`) or, unless it is an input, as a flag (`--batch-size 8`).
A word that does not begin with a known key and `=` is an input, and so is every word after `--`.
"""

import os
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, Union, get_args, get_origin

import click
from click.shell_completion import CompletionItem
from pydantic.fields import FieldInfo

from hrm.cli.described import SETTINGS, Described, as_user_error
from hrm.config import Schema, flag, validate, with_home
from hrm.errors import UserError

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?==)")
METAVARS = {Path: "PATH", int: "N", float: "X", str: "NAME"}
LITERAL = "hrm.literal"  # words after --


class SchemaCommand(Described, Generic[Schema]):
    """A command that reads the keys of a schema.

    Args:
        run: does the work; it is given a function that checks what was typed and returns the
            configuration or raises `UserError`.
        help: its text; begins with an example.
        first: key of the input that the first word is, if no word or flag gives that key.
        second: likewise, of the word after it.
        rest: key of the inputs that the other words are.
        surplus: what is said of words beyond those.
        switches: flags that stand for something else.
    """

    def __init__(
        self,
        name: str,
        schema: type[Schema],
        run: Callable[[Callable[[], Schema]], None],
        help: str,
        first: str | None = None,
        rest: str | None = None,
        surplus: str = "is one input too many; give the others as key=value or --flags",
        switches: Sequence[click.Option] = (),
        second: str | None = None,
    ) -> None:
        self.schema, self.run, self.rest = schema, run, rest
        self.places = [key for key in (first, second) if key]
        self.surplus = surplus
        self.keys = {key: f for key, f in schema.model_fields.items() if key != rest}
        words = click.Argument(["words"], nargs=-1, type=Text(is_path=True))
        options = [option_of(key, f) for key, f in self.keys.items() if key not in self.places]
        super().__init__(
            name, params=[words, *options, *switches], help=help, context_settings=SETTINGS
        )
        pieces = []
        for key in self.places:
            is_needed = schema.model_fields[key].is_required()
            pieces.append(key.upper() if is_needed else f"[{key.upper()}]")
        if rest:
            one = rest.upper().removesuffix("S")
            pieces += [f"{one} …" if schema.model_fields[rest].is_required() else f"[{one} …]"]
        self.usage = " ".join([*pieces, "[--flags or key=value]"])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            end = args.index("--")
            args, ctx.meta[LITERAL] = args[:end], tuple(args[end + 1 :])
        if not (self.places or self.rest):
            args = self._with_lists_joined(args)
        return super().parse_args(ctx, args)

    def _with_lists_joined(self, args: list[str]) -> list[str]:
        """`--subsets a b` as `--subsets a,b`; no words can be inputs here."""
        lists = {flag(key) for key, field in self.keys.items() if is_list(field)}
        joined: list[str] = []
        items = 0  # of the list that the last word belongs to
        for word in args:
            is_item = items and not word.startswith("-") and self._key_of(word) is None
            if is_item and items > 1:
                joined[-1] += f",{word}"
            else:
                joined.append(word)
            items = items + 1 if is_item else int(word in lists)
        return joined

    def invoke(self, ctx: click.Context) -> None:
        self.run(lambda: self._read(ctx))

    def read(self, arguments: Sequence[str]) -> Schema:
        """The configuration that a command line asks for.

        Raises:
            UserError: something in it is unknown or wrong.
        """
        try:
            ctx = self.make_context(f"hrm {self.name}", list(arguments))
        except click.ClickException as error:
            raise as_user_error(error) from None
        return self._read(ctx)

    def _read(self, ctx: click.Context) -> Schema:
        given = {key: value for key, value in ctx.params.items() if value is not None}
        words = given.pop("words", ())
        values: dict[str, Any] = {}
        written: dict[str, str] = {}
        for key, text in given.items():
            values[key] = _plain(self.keys[key], text)
            written[key] = flag(key) if text is True else f"{flag(key)} {text}"
        inputs = []
        for word in words:
            known = self._key_of(word)
            if known is None:
                inputs.append(word)
            else:
                values[known] = _plain(self.keys[known], word.partition("=")[2])
                written[known] = word
        inputs += ctx.meta.get(LITERAL, ())
        for key in self.places:
            if key not in values and inputs:
                values[key] = inputs.pop(0)
        if self.rest:
            values[self.rest] = tuple(inputs)
        elif inputs:
            raise UserError(f"{ctx.command_path}: {inputs[0]!r} {self.surplus}")
        typed = with_home(self.schema, values)
        return validate(self.schema, typed, ctx.command_path, written)

    def _key_of(self, word: str) -> str | None:
        """The key that a word gives a value to, None where it is an input.

        Raises:
            UserError: it looks like a key and a value, but the key is unknown.
        """
        found = KEY.match(word)
        if found is None or (found[0] not in self.keys and os.path.exists(word)):
            return None
        if found[0] not in self.keys:
            close = get_close_matches(found[0], self.keys, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(self.keys)}"
            raise UserError(f"{word}: unknown key; {hint}")
        return found[0]


class Text(click.ParamType):
    """Text as it was typed, which is checked later; completes paths or known words."""

    name = "text"

    def __init__(self, known: Sequence[str] = (), is_path: bool = False) -> None:
        self._known, self._is_path = known, is_path

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if self._is_path:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(word) for word in self._known if word.startswith(incomplete)]


def option_of(key: str, field: FieldInfo) -> click.Option:
    """The flag of a key."""
    if field.annotation is bool:
        return click.Option([flag(key)], is_flag=True, default=None, help=field.description)
    default = field.get_default()
    shown = "" if field.is_required() or default in (None, ()) else f" (default {default})"
    return click.Option(
        [flag(key)],
        type=Text(choices(field.annotation), Path in kinds(field.annotation)),
        metavar=metavar(field),
        help=f"{field.description}{shown}",
    )


def metavar(field: FieldInfo) -> str:
    """What stands for the value in the help."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "metavar" in extra:
        return str(extra["metavar"])
    if is_list(field):
        return "A,B,…"
    known = choices(field.annotation)
    return "|".join(known) or next(METAVARS[k] for k in kinds(field.annotation) if k in METAVARS)


def kinds(annotation: Any) -> set[Any]:
    """The plain types in an annotation, e.g. {Path, NoneType} of `Path | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return set().union(*map(kinds, get_args(annotation)))
    return {origin or annotation}


def choices(annotation: Any) -> list[str]:
    """The words of all `Literal`s in an annotation, in their order."""
    if get_origin(annotation) is Literal:
        return list(map(str, get_args(annotation)))
    return [word for part in get_args(annotation) for word in choices(part)]


def is_literal(field: FieldInfo) -> bool:
    """Whether a field is a path or a name, whose value is the very text that was typed."""
    found = kinds(field.annotation)
    return Path in found or found <= {str, NoneType}


def is_list(field: FieldInfo) -> bool:
    """Whether a field takes any number of values."""
    return tuple in kinds(field.annotation) and get_args(field.annotation)[-1] is Ellipsis


def _plain(field: FieldInfo, text: str | bool) -> Any:
    """The value that a text stands for: `null`, a list (`a,b` or `[a,b]`), or the text itself."""
    if text == "null" and NoneType in kinds(field.annotation):
        return None
    if is_list(field) and isinstance(text, str):
        items = text.removeprefix("[").removesuffix("]")
        return tuple(item.strip() for item in items.split(",")) if items.strip() else ()
    return text
