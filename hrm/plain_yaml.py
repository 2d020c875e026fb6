"""YAML files as plain data, whoever wrote them: no interpolation, no tags, no aliases."""

import os
import reprlib
from pathlib import Path
from typing import Any

import yaml

from hrm.errors import UserError
from hrm.files import atomic_write

LARGEST_FILE = 100_000  # bytes; our configurations have about 1,500


class _PlainLoader(yaml.SafeLoader):
    """YAML as plain data, no larger than its text: no alias, no tag, and every key a word, once."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("tags are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key in (self.construct_object(key_node, deep=True) for key_node, _ in node.value):
            if not isinstance(key, str):
                raise yaml.YAMLError(f"key {shown(key)} is not a word")
            if key in keys:
                raise yaml.YAMLError(f"key {shown(key)} stands there twice")
            keys.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of keys and values, as it stands.

    Raises:
        UserError: the file is missing or anything else.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise yaml.YAMLError("not a file")
        with open(path, "rb") as file:
            text = file.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            raise yaml.YAMLError(f"larger than {LARGEST_FILE:,} bytes")
        values = yaml.load(text, _PlainLoader)
        if not isinstance(values, dict):
            raise yaml.YAMLError("no keys and values")
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except Exception as error:  # damaged YAML raises more than YAMLError
        raise UserError(f"{path}: not a configuration ({first_line(error)})") from None
    return values


def write_yaml(values: dict[str, Any], path: Path) -> None:
    """Write plain values, whole or not at all; `read_yaml` reads them back."""
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False))


def shown(value: object) -> str:
    """A value in a message, however large it is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return f"a huge {type(value).__name__}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
