"""Files that are either whole or as they were before, brought to the disk, and their checksums."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hrm.errors import UserError

DIGEST_BLOCK = 1 << 20  # bytes
ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".zst"}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`, which it replaces at the end unless an error is raised.

    Raises:
        OSError: it cannot be replaced, or is no ordinary file, such as a device.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not an ordinary file")
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    finally:
        remove(temporary)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, which it replaces at the end unless an error is raised.

    Raises:
        OSError: it cannot be written, or cannot be replaced.
    """
    target = target.resolve()  # of a link the folder that it leads to
    temporary = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync_tree(temporary)
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, target: Path) -> None:
    """Put a folder in the place of `target`, which lies beside it; `target` stays where that fails.

    Raises:
        OSError: it cannot be replaced.
    """
    if not target.exists() or not any(target.iterdir()):
        new.replace(target)
        sync(target.parent)
        return
    old = new.with_name(f"{new.name}-old")
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path:
    """Where this project keeps what can be made or fetched again; it need not be there yet."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return caches / "hrm"


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write files, by their paths within a folder, each whole or as it was before.

    Returns:
        Where they are.

    Raises:
        UserError: one cannot be written; a folder that was made for it is gone again.
    """
    paths = []
    for name, text in texts.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            with suppress(OSError):
                path.parent.rmdir()  # only where it is empty
            raise UserError(f"{path}: could not be written ({error})") from None
        paths.append(path)
    return paths


def remove(path: Path) -> None:
    """Delete a file, if it is there and can be deleted."""
    with suppress(OSError):  # EROFS even of one that is not there
        path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """`sync` a folder and all that is in it."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Bring a file's or a folder's contents to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path, count: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Args:
        count: is told how many bytes more have been read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(DIGEST_BLOCK):
            digest.update(block)
            if count is not None:
                count(len(block))
    return digest.hexdigest()


def looked_in(path: Path) -> str:
    """Where a path that is not there was looked for, to be said after it."""
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def is_archive(path: Path) -> bool:
    """Whether a file must be unpacked first, by its name."""
    return path.suffix.lower() in ARCHIVES and path.is_file()


def not_a_folder(path: Path, wanted: str) -> str:
    """What to do where a file was named instead of `wanted`, to be said after its name."""
    return f"is {'an archive; unpack it and' if is_archive(path) else 'a file;'} name {wanted}"
