"""ONNX Runtime for browsers: downloaded once, from the registry that is named, and checked."""

import base64
import hashlib
import io
import tarfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from hrm.errors import UserError
from hrm.web import runtime


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry on this machine with a package of our own: the paths that it was asked for."""
    package, asked = io.BytesIO(), []
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        for name in runtime.FILES:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    content = package.getvalue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    monkeypatch.setattr(runtime, "INTEGRITY", digest)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv(runtime.REGISTRY_VARIABLE, f"http://127.0.0.1:{server.server_port}/npm/")
        yield asked
        server.shutdown()


def test_it_is_downloaded_once_and_checked_each_time(registry, tmp_path):
    wanted = {name: name.encode() for name in runtime.FILES}
    assert runtime.runtime_files() == runtime.runtime_files() == wanted
    name = f"{runtime.PACKAGE}-{runtime.VERSION}.tgz"
    assert registry == [f"/npm/{runtime.PACKAGE}/-/{name}"]
    (tmp_path / "hrm" / name).write_bytes(b"broken")
    assert runtime.runtime_files() == wanted
    assert len(registry) == 2


def test_another_archive_is_refused(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "INTEGRITY", "other")
    with pytest.raises(UserError, match="has another checksum; name a folder .* by --runtime"):
        runtime.runtime_files()
    assert not list(tmp_path.iterdir())


def test_without_a_connection_the_way_out_is_said(registry, monkeypatch, tmp_path, call):
    monkeypatch.setenv(runtime.REGISTRY_VARIABLE, "http://127.0.0.1:9")
    code, out, err = call("export", "sudoku-9x9", "--page", str(tmp_path / "page"))
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"set {runtime.REGISTRY_VARIABLE} to a registry that is reached" in err
    assert "--runtime" in err and not (tmp_path / "page").exists()
