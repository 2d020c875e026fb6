"""Checksums of a folder: which files belong to it, and whether they are as they were written."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hrm.checkpoint.layout import MANIFEST_FILE
from hrm.errors import UserError
from hrm.files import file_digest

FORMAT = 1


class Damaged(UserError):
    """A file is missing, or is not what was written."""


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def write_manifest(folder: Path, known: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write `manifest.json`: size and SHA-256 of every file in `folder`, and its own checksum.

    Args:
        known: entries of files that were read already.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    files = {
        name: (known or {}).get(name) or file_entry(path)
        for name, path in names.items()
        if path.name != MANIFEST_FILE
    }
    body: dict[str, Any] = {"format": FORMAT, "files": files}
    body["sha256"] = _digest_of(body)
    (folder / MANIFEST_FILE).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def verify(folder: Path, names: Iterable[str] | None = None) -> None:
    """Compare files with the manifest.

    Args:
        names: which files; None means all that the manifest lists.

    Raises:
        Damaged: a file, or the manifest, is missing, truncated or changed.
        UserError: a file cannot be read, or a later version of this package wrote the folder.
    """
    listed = _read(folder)
    for name in listed if names is None else names:
        if name not in listed:
            raise Damaged(f"{folder}: {name} is not listed in {MANIFEST_FILE}")
        path, expected = folder / name, listed[name]
        try:
            if not path.is_file():  # a pipe would be waited for
                raise FileNotFoundError
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise Damaged(
                    f"{path}: truncated or damaged ({size} bytes, not {expected['bytes']})"
                )
            if file_digest(path) != expected["sha256"]:
                raise Damaged(f"{path}: damaged (checksum differs)")
        except FileNotFoundError:
            raise Damaged(f"{path}: missing") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def listed_files(folder: Path) -> set[str]:
    """Names of the files that belong to a folder.

    Raises:
        Damaged, UserError: as `verify`.
    """
    return set(_read(folder))


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST_FILE
    try:
        if not path.is_file():
            raise FileNotFoundError
        body = json.loads(path.read_bytes())
        said = body.pop("sha256")
        intact = said == _digest_of(body)
    except FileNotFoundError:
        raise Damaged(f"{path}: missing, so that nothing vouches for the files here") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        raise Damaged(f"{path}: damaged") from None
    if not intact:
        raise Damaged(f"{path}: damaged (checksum differs)")
    if body.get("format") != FORMAT:
        raise UserError(f"{path}: format {body.get('format')}, this version reads {FORMAT}")
    files = body.get("files")
    if not isinstance(files, dict) or not all(_is_entry(*item) for item in files.items()):
        raise Damaged(f"{path}: damaged (not a list of files)")
    return files


def _is_entry(name: str, entry: Any) -> bool:
    inside = not name.startswith("/") and ".." not in name.split("/")
    return (
        inside
        and name.isprintable()
        and isinstance(entry, dict)
        and {"bytes", "sha256"} <= entry.keys()
    )


def _digest_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
