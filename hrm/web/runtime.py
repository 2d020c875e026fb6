"""ONNX Runtime for browsers: one version of an npm package, checked, and kept on this machine."""

import base64
import hashlib
import io
import os
import tarfile
import urllib.request
from pathlib import Path

from hrm.errors import UserError, one_line
from hrm.files import atomic_write, cache_folder
from hrm.progress import Progress

PACKAGE, VERSION = "onnxruntime-web", "1.22.0"  # 11 MB of WebAssembly; 1.21 has 13, 1.30 has 14
INTEGRITY = (  # SHA-512 of the archive, as npm states it
    "Ud/+EBo6mhuaQWt/OjaOk0iNWjXqJoeeMFr6xQEERZdIZH2OWpGzuujz7lfuOBjUa6TEE/sc4nb7Da5dNL34fg=="
)
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
REGISTRY = "https://registry.npmjs.org"
REGISTRY_VARIABLE = "npm_config_registry"
WAY_OUT = f"name a folder with its files by --runtime (the dist of: npm pack {PACKAGE}@{VERSION})"
SECONDS, BLOCK = 30, 1 << 18


def runtime_files(folder: Path | None = None) -> dict[str, bytes]:
    """The files that a page needs, by name: from a folder, from the cache, or from the registry.

    Args:
        folder: that holds them, such as the package's `dist`; None: the package is downloaded once
            from the registry that `npm_config_registry` names, else npm's own.

    Raises:
        UserError: the folder lacks one; there is no connection; or it is not that version.
    """
    if folder is not None:
        try:
            return {name: (folder / name).read_bytes() for name in FILES}
        except OSError as error:
            raise UserError(
                f"runtime={folder}: {FILES[0]} and the others of {PACKAGE}'s dist are "
                f"needed there ({one_line(error)})"
            ) from None
    return _unpacked(_archive())


def _archive() -> bytes:
    """The package as npm has it, whose checksum is right."""
    kept = cache_folder() / f"{PACKAGE}-{VERSION}.tgz"
    if kept.is_file() and _is_whole(found := kept.read_bytes()):
        return found
    registry = os.environ.get(REGISTRY_VARIABLE, REGISTRY).rstrip("/")
    found = _download(f"{registry}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz")
    if not _is_whole(found):
        raise UserError(f"{PACKAGE} {VERSION} from {registry} has another checksum; {WAY_OUT}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept) as temporary:
            temporary.write_bytes(found)
    except OSError:
        pass  # it is downloaded again next time
    return found


def _download(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            blocks = []
            with Progress(f"bytes of {PACKAGE} downloaded", total) as progress:
                while block := answer.read(BLOCK):
                    blocks.append(block)
                    progress.update(len(block))
            return b"".join(blocks)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{address}: cannot be downloaded ({one_line(error)}); set {REGISTRY_VARIABLE} to a "
            f"registry that is reached, or {WAY_OUT}"
        ) from None


def _is_whole(archive: bytes) -> bool:
    return base64.b64encode(hashlib.sha512(archive).digest()).decode() == INTEGRITY


def _unpacked(archive: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        for name in FILES:
            file = package.extractfile(f"package/dist/{name}")
            assert file is not None
            found[name] = file.read()
    return found
