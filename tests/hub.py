"""A server that speaks as much of the Hugging Face Hub's protocol as we need, on this machine."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"
# What the Hub's own library does when it uploads a large file.
UPLOAD_WARNING = "ignore:Use 'content=:DeprecationWarning"
LARGE = (".safetensors",)  # stored as large files, the others in the commit itself

Files = dict[str, bytes]


@dataclass
class FakeHub:
    """Repositories by their paths (`me/name`, `datasets/me/name`), branches by name."""

    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # "METHOD path" of all requests
    objects: Files = field(default_factory=dict)  # large files by SHA-256
    url: str = ""

    def commit_of(self, repository: str, revision: str) -> str | None:
        """The commit that a branch or a commit names."""
        for branch, files in self.repositories[repository].items():
            content = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items())
            commit = hashlib.sha1(repr(content).encode()).hexdigest()
            if revision in (branch, commit):
                return commit
        return None

    def files(self, repository: str, revision: str) -> Files:
        commit = self.commit_of(repository, revision)
        return next(
            files
            for branch, files in self.repositories[repository].items()
            if self.commit_of(repository, branch) == commit
        )


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._get(with_body=False)

    def do_GET(self) -> None:
        self._get(with_body=True)

    def _get(self, with_body: bool) -> None:
        path = self._asked()
        if path == "/api/whoami-v2":
            return self._json({"name": "me"}) if self._is_known() else self._fail(401)
        if found := re.fullmatch(
            r"/api/(?:models|(datasets))/([^/]+/[^/]+)(?:/revision/(.+))?", path
        ):
            repository = f"{found[1]}/{found[2]}" if found[1] else found[2]
            if (commit := self._commit(repository, unquote(found[3] or "main"))) is None:
                return
            names = sorted(self.hub.files(repository, commit))
            siblings = [{"rfilename": name} for name in names]
            return self._json({"id": found[2], "sha": commit, "siblings": siblings})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            if (commit := self._commit(found[1], unquote(found[2]))) is None:
                return
            files = self.hub.files(found[1], commit).items()
            return self._json(
                [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in files]
            )
        if found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if (commit := self._commit(found[1], unquote(found[2]))) is None:
                return
            body = self.hub.files(found[1], commit).get(found[3])
            if body is None:
                return self._fail(404, "EntryNotFound", commit)
            etag = hashlib.sha256(body).hexdigest()
            return self._send(200, body if with_body else None, len(body), commit, etag)
        self._fail(404)

    def do_POST(self) -> None:
        path = self._asked()
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if not self._is_known():
            return self._fail(401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if not name.startswith("me/"):
                return self._fail(403)
            known = name in self.hub.repositories
            self.hub.repositories.setdefault(name, {"main": {}})
            if asked.get("private") or asked.get("visibility") == "private":
                self.hub.private.add(name)
            answer = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
            return self._json(answer, 409 if known else 200)
        if found := re.fullmatch(r"/api/models/(.+)/branch/(.+)", path):
            branches = self.hub.repositories[found[1]]
            known = found[2] in branches
            branches.setdefault(found[2], dict(branches["main"]))
            return self._json({}, 409 if known else 200)
        if found := re.fullmatch(r"/api/models/(.+)/preupload/(.+)", path):
            return self._json(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                            "shouldIgnore": False,
                        }
                        for file in json.loads(body)["files"]
                    ]
                }
            )
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/put/{item['oid']}"}}
            return self._json({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            return self._take(found[1], unquote(found[2]), body)
        self._fail(404)

    def do_PUT(self) -> None:
        oid = self._asked().removeprefix("/put/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._send(200, b"")

    def _take(self, repository: str, branch: str, body: bytes) -> None:
        files = self.hub.repositories[repository].setdefault(branch, {})
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                files.pop(value["path"])
        address = f"{self.hub.url}/{repository}/commit"
        commit = self.hub.commit_of(repository, branch)
        self._json({"commitUrl": f"{address}/{commit}", "commitOid": commit})

    def _asked(self) -> str:
        # A slash within the name of a revision stays %2F.
        path = unquote(urlsplit(self.path).path.replace("%2F", "%252F"))
        self.hub.asked.append(f"{self.command} {path}")
        return path

    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _commit(self, repository: str, revision: str) -> str | None:
        known = repository in self.hub.repositories
        if not known or (repository in self.hub.private and not self._is_known()):
            self._fail(401, "RepoNotFound")
            return None
        commit = self.hub.commit_of(repository, revision)
        if commit is None:
            self._fail(404, "RevisionNotFound")
        return commit

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode())

    def _fail(self, status: int, code: str | None = None, commit: str | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(
        self,
        status: int,
        body: bytes | None,
        size: int | None = None,
        commit: str | None = None,
        etag: str | None = None,
    ) -> None:
        self.send_response(status)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(body or b"") if size is None else size))
        self.end_headers()
        if body is not None:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve it meanwhile."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
