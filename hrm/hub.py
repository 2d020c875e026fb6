"""Repositories of the Hugging Face Hub, named `hf://[datasets/]user/name[@revision][/folder]`.

Downloads go through the Hub's usual cache, which alone is used without a connection; nothing that
is downloaded is executed. A slash in the name of a revision is written %2F. `HF_ENDPOINT`,
`HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` act as usual.
"""

import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, unquote

from hrm.errors import UserError, one_line

REFERENCE = re.compile(
    r"(?:hf:/{1,2})?(datasets/)?([\w.-]+/[\w.-]+)(?:@([^/@\s]+))?(?:/([^@]+?))?/*"
)
NAMED_FILES = 3


def is_reference(path: str | Path) -> bool:
    """Whether a repository is named; a `Path` has lost one slash of `hf://`."""
    return str(path).startswith("hf:/")


@dataclass(frozen=True)
class Repository:
    """A repository at a revision (its newest state by default), and a folder or file in it."""

    name: str  # user/name
    revision: str | None = None
    place: str = ""
    kind: Literal["model", "dataset"] = "model"

    @classmethod
    def parse(cls, text: str, kind: Literal["model", "dataset"] = "model") -> "Repository":
        """
        Args:
            text: as above; `hf://` may be left out.
            kind: where the text does not say `datasets/`.

        Raises:
            UserError: it names no repository.
        """
        found = REFERENCE.fullmatch(text)
        if found is None:
            raise UserError(f"{text}: expected hf://user/name, maybe with @revision and /folder")
        is_dataset, name, revision, place = found.groups()
        branch = revision and unquote(revision)
        return cls(name, branch, place or "", "dataset" if is_dataset else kind)

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        place = f"/{self.place}" if self.place else ""
        return f"hf://{'datasets/' * (self.kind == 'dataset')}{self.name}{revision}{place}"


Choose = Callable[[Sequence[str]], Sequence[str]]


def fetch(repository: Repository, choose: Choose, said: str, way_out: str) -> Path:
    """Download files of a repository, with a bar for each in a terminal.

    A line on standard error says so where they are those of the cache.

    Args:
        choose: the names of those that are wanted, of the names of all (of those in the cache, if
            the Hub cannot be reached); raises `UserError` where they lack something.
        said: what the user wrote, for messages.
        way_out: what to do without a connection, for messages.

    Returns:
        A folder with the files in their places.

    Raises:
        UserError: the repository or the revision is unknown or private, or there is no connection.
    """
    hub, errors = _connect()
    where = {
        "repo_id": repository.name,
        "revision": repository.revision,
        "repo_type": repository.kind,
    }
    try:
        # Fails at once where listing the files by other functions tries again for half a minute.
        names = [file.rfilename for file in hub.HfApi().repo_info(**where).siblings]
    except errors.RevisionNotFoundError:
        what = f"{repository.name} has no revision {repository.revision}; name another"
        raise UserError(f"{said}: {what}") from None
    except errors.RepositoryNotFoundError:
        login = "check the name, or log in with `hf auth login`"
        raise UserError(f"{said}: no such repository, or a private one; {login}") from None
    except Exception as error:  # of many kinds, without a connection
        try:
            folder = Path(hub.snapshot_download(**where, local_files_only=True))
        except Exception:
            raise UserError(f"{said}: cannot be downloaded ({_line(error)}); {way_out}") from None
        found = choose([path.relative_to(folder).as_posix() for path in folder.rglob("*")])
        files = ", ".join(found[:NAMED_FILES]) + ", …" * (len(found) > NAMED_FILES)
        what = f"the Hub cannot be reached; {files} as downloaded earlier"
        print(f"{said}: {what}", file=sys.stderr)
        return folder
    wanted = choose(names)
    try:
        paths = [Path(hub.hf_hub_download(filename=name, **where)) for name in wanted]
    except Exception as error:
        raise UserError(f"{said}: cannot be downloaded ({_line(error)}); {way_out}") from None
    return paths[0].parents[len(PurePosixPath(wanted[0]).parts) - 1]


def push(
    folder: Path, repository: Repository, private: bool, message: str, delete: Sequence[str] = ()
) -> str:
    """Commit the files of a folder to a repository, which is made where it is not there.

    Args:
        private: of a repository that is made.
        delete: patterns of files that are deleted where the folder does not hold them.

    Returns:
        The address of the repository.

    Raises:
        UserError: nobody is logged in, or may write there, or there is no connection.
    """
    hub, errors = _connect()
    api = hub.HfApi()
    try:
        address = api.create_repo(repository.name, private=private, exist_ok=True)
        if repository.revision:
            api.create_branch(repository.name, branch=repository.revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository.name,
            folder_path=folder,
            revision=repository.revision,
            commit_message=message,
            delete_patterns=delete,
        )
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
            way_out = "log in with `hf auth login` or set HF_TOKEN, as a user who may write there"
        else:
            way_out = "check the connection, and push again"
        raise UserError(f"{repository}: cannot be pushed ({_line(error)}); {way_out}") from None
    return str(address)


def _connect() -> tuple[Any, Any]:
    """The Hub's library and its errors; it shows bars in terminals only, and says nothing else."""
    import huggingface_hub
    from huggingface_hub import errors, utils

    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    utils.logging.set_verbosity(logging.CRITICAL)
    return huggingface_hub, errors


def _line(error: Exception) -> str:
    return one_line(error, named=True)[:120].rstrip(". ")
