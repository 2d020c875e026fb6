"""Files of data sets on the Hugging Face Hub."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hrm.errors import UserError


def download(
    repo: str, required: Sequence[str], optional: Sequence[str] = (), way_out: str = ""
) -> dict[str, Path]:
    """Files of a data set repository, from the cache or the Hub: name -> path.

    Args:
        optional: files that may be missing there; they are missing in the result then.
        way_out: what to use instead, for messages.

    Raises:
        UserError: one cannot be downloaded.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)

    def fetch(name: str) -> Path:
        if not isinstance(hub.try_to_load_from_cache(repo, name, repo_type="dataset"), str):
            # Fails at once where hf_hub_download would try again for half a minute.
            hub.get_hf_file_metadata(hub.hf_hub_url(repo, name, repo_type="dataset"))
        return Path(hub.hf_hub_download(repo, name, repo_type="dataset"))

    try:
        found = {name: fetch(name) for name in required}
        for name in optional:
            try:
                found[name] = fetch(name)
            except EntryNotFoundError as error:
                if isinstance(error, FileNotFoundError):  # not in the cache, and no connection
                    raise
    except Exception as error:  # a failed download has many kinds of errors
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120].rstrip(". ")
        raise UserError(
            f"--source-repo {repo}: cannot be downloaded ({reason}); {way_out}"
        ) from None
    return found
