"""A test double of the Hugging Face Hub's HTTP protocol on loopback, for the real `huggingface_hub` client.

It keeps model repositories in memory, serves downloads, takes uploads by the LFS protocol, and misbehaves on request.
It speaks no xet: set `HF_HUB_DISABLE_XET=1` for a client that uploads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit


class Request(NamedTuple):
    """One request that came, as it was answered."""

    method: str
    path: str  # unquoted, without the query
    status: int  # 0: hung up without an answer
    range: str | None


class Blob:
    """The content of one file, with the hashes that the Hub knows it by."""

    def __init__(self, name: str, data: bytes) -> None:
        self.data = data
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.lfs = name.endswith(".safetensors") and len(data) > 0  # clients send empty files as regular ones
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        stored = pointer if self.lfs else data
        self.git_oid = hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()
        self.etag = self.sha256 if self.lfs else self.git_oid


@dataclass
class Repo:
    """A model repository: its commits by hash, and the commit that each branch points to."""

    private: bool = False
    gated: bool = False  # nobody has been granted access: its files answer 403 with the token, 401 without
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What to do to the next `times` requests with one of `methods` and `path` within their path.

    A fault with one of the last three waits for a GET that gets a file's content; the others take any request.
    A `.safetensors` file comes by a HEAD of its `/resolve/` path and a GET of its `/cdn/` path; both end in its name.
    """

    path: str
    times: float = 1  # counted down; math.inf: for ever
    methods: tuple[str, ...] = ("GET", "HEAD")
    delay: float = 0.0  # seconds before anything else
    reset: bool = False  # reset the connection without an answer
    status: int | None = None  # answer with this instead
    cut_at: int | None = None  # announce all, send nothing from this byte of the file on, hang up
    shorten_to: int | None = None  # announce and send only so many bytes
    corrupt: bool = False  # alter the last byte

    def applies(self, method: str, path: str, on_content: bool) -> bool:
        """Whether this is for a request: asked when it comes, and once more when it gets a file's content."""
        waits = self.corrupt or self.cut_at is not None or self.shorten_to is not None
        return self.times > 0 and self.path in path and method in self.methods and waits == on_content


class HubServer:
    """The Hub: a context manager that listens on a free port of 127.0.0.1 while it is open.

    It plays the CDN too, by the name `localhost`. That has to be another host: the client reads a file's commit and
    size from the redirect and keeps its token from where it leads; one to the Hub's own host it would follow instead.
    """

    def __init__(self) -> None:
        self.token = "hf_the_one_valid_token"
        self.user = "tester"
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}  # the LFS store, by sha256
        self.requests: list[Request] = []  # everything that came; only ever appended to, which is thread-safe
        self.faults: list[Fault] = []
        self.lock, self.closing = threading.Lock(), threading.Event()
        self.connections: list[socket.socket] = []

    def __enter__(self) -> HubServer:
        self._listener = _Listener(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        port = self._listener.server_port
        self.url, self.cdn_url = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._listener.shutdown()
        self._listener.server_close()
        for connection in self.connections:  # their threads would go on answering on those that are kept alive
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def downloads(self, filename: str) -> list[Request]:
        """The requests that were answered with content of a file of this name, from whatever repository."""
        gets = [r for r in list(self.requests) if r.method == "GET" and r.status in (200, 206)]
        return [r for r in gets if r.path.endswith("/" + filename)]

    def add(
        self, repo_id: str, files: dict[str, bytes], private: bool = False, gated: bool = False, branch: str = "main"
    ) -> str:
        """Commit files on top of a branch, as an upload does, and return the commit's hash.

        A repository that does not exist is created; only then do `private` and `gated` apply. A new branch is empty.
        """
        with self.lock:
            repo = self.repos.setdefault(repo_id, Repo(private, gated))
            parent = repo.branches.get(branch)
            tree = (repo.commits[parent] if parent else {}) | {name: Blob(name, data) for name, data in files.items()}
            self.objects.update({blob.sha256: blob.data for blob in tree.values() if blob.lfs})
            identity = json.dumps([repo_id, parent, sorted((name, blob.git_oid) for name, blob in tree.items())])
            commit = hashlib.sha1(identity.encode()).hexdigest()
            repo.commits[commit], repo.branches[branch] = tree, commit
            return commit

    def fail(self, path: str, **what: Any) -> Fault:
        """Switch a fault on: see `Fault` for what there is. `faults.clear()` switches all off."""
        self.faults.append(Fault(path, **what))
        return self.faults[-1]


class _Listener(ThreadingHTTPServer):
    request_queue_size = 64


class _Error(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        self.status = status
        self.body = {"error": message}
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}) | headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer

    def handle(self) -> None:
        self.hub.connections.append(self.connection)
        with suppress(ConnectionError):  # a client that went away, or that was hung up on
            super().handle()

    def log_request(self, code: Any = 0, size: Any = None) -> None:  # called before the answer goes out
        self.hub.requests.append(Request(self.command, self.route, code, self.headers.get("Range")))

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = unquote(url.path), parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self._misbehave(on_content=False)
            for methods, pattern, action in _ROUTES:
                if self.command in methods and (match := re.fullmatch(pattern, url.path)):
                    return action(self, *(unquote(part or "") for part in match.groups()))
            raise _Error(404, f"The test double has no such route: {self.command} {self.route}")
        except _Error as error:
            self._answer_json(error.body, error.status, error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _misbehave(self, *, on_content: bool) -> Fault:
        with self.hub.lock:
            fits = (f for f in self.hub.faults if f.applies(self.command, self.route, on_content))
            fault = next(fits, Fault(""))
            fault.times -= 1
        closing = self.hub.closing.wait(fault.delay)
        if closing or fault.reset:
            self.log_request()
            if not closing:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())  # here and now: the orderly way would say goodbye first
            raise ConnectionAbortedError
        if fault.status is not None:
            headers = {"Retry-After": "1"} if fault.status == 429 else {}
            raise _Error(fault.status, "A fault that the test switched on", **headers)
        return fault

    def _answer(self, status: int, body: bytes, headers: dict[str, str], announced: int | None = None) -> None:
        self.send_response(status)
        length = len(body) if announced is None else announced
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer_json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self._answer(status, body, {"Content-Type": "application/json; charset=utf-8"} | (headers or {}))

    def _answer_content(self, data: bytes, headers: dict[str, str]) -> None:
        headers = headers | {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked and start >= len(data):
            raise _Error(416, "Range not satisfiable", **{"Content-Range": f"bytes */{len(data)}"})
        fault = self._misbehave(on_content=True) if self.command == "GET" else Fault("")
        body = data[start : int(asked[2]) + 1 if asked and asked[2] else None][: fault.shorten_to]
        if fault.corrupt:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if asked:
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(data)}"
        sent = body if fault.cut_at is None else body[: max(0, fault.cut_at - start)]
        self._answer(206 if asked else 200, sent, headers, announced=len(body))
        if len(sent) < len(body):
            raise ConnectionAbortedError

    def _authenticate(self, required: bool = False, code: str | None = None) -> bool:
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {self.hub.token}"):
            raise _Error(401, "Invalid credentials in Authorization header")
        if required and given is None:
            raise _Error(401, "Invalid username or password.", code)
        return given is not None

    def _find(self, repo_id: str, revision: str, *, write: bool = False) -> tuple[Repo, str, dict[str, Blob]]:
        repo = self.hub.repos.get(repo_id)
        self._authenticate(repo is None or repo.private or write, "RepoNotFound")
        if repo is None:
            raise _Error(404, "Repository not found", "RepoNotFound")
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise _Error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repo, commit, repo.commits[commit]

    def _resolve(self, repo_id: str, revision: str, filename: str) -> None:
        repo, commit, files = self._find(repo_id, revision)
        if repo.gated:
            raise _Error(403 if self._authenticate() else 401, f"Access to model {repo_id} is restricted.", "GatedRepo")
        headers = {"X-Repo-Commit": commit}
        if filename not in files:
            raise _Error(404, "Entry not found", "EntryNotFound", **headers)
        blob = files[filename]
        headers["ETag"] = f'"{blob.etag}"'
        if not blob.lfs:
            return self._answer_content(blob.data, headers)
        headers |= {"X-Linked-ETag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
        headers["Location"] = f"{self.hub.cdn_url}/cdn/{blob.sha256}/{quote(f'{repo_id}/{filename}')}"
        self._answer(302, b"", headers)

    def _cdn(self, sha256: str) -> None:
        if "Authorization" in self.headers:  # as a store of signed addresses: the token has no business here
            raise _Error(400, "Only one auth mechanism allowed")
        if self.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != sha256:
                raise _Error(400, "The content does not match its oid")
            self.hub.objects[sha256] = self.body
            return self._answer(200, b"", {})
        self._answer_content(self.hub.objects[sha256], {"ETag": f'"{sha256}"'})

    def _info(self, repo_id: str, revision: str) -> None:
        repo, commit, files = self._find(repo_id, revision or "main")
        info = {"id": repo_id, "sha": commit, "private": repo.private, "gated": "manual" if repo.gated else False}
        self._answer_json(info | {"siblings": [{"rfilename": name} for name in files], "tags": []})

    def _create(self) -> None:
        self._authenticate(required=True)
        wanted = json.loads(self.body)
        if wanted.get("type", "model") != "model":
            raise _Error(400, "The test double has only model repositories")
        repo_id = f"{wanted.get('organization') or self.hub.user}/{wanted['name']}"
        if not (exists := repo_id in self.hub.repos):
            private = wanted.get("private", wanted.get("visibility") == "private")
            self.hub.add(repo_id, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, private)
        self._answer_json({"url": f"{self.hub.url}/{repo_id}", "name": repo_id}, 409 if exists else 200)

    def _validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]  # no parser at hand: only whether the block of metadata ends
        bad = content.startswith("---") and not re.match(r"---\s*\n(.*\n)?---\s*(\n|$)", content, re.S)
        errors = [{"message": "the yaml metadata does not end"}] if bad else []
        self._answer_json({"errors": errors, "warnings": []}, 400 if bad else 200)

    def _preupload(self, repo_id: str, revision: str) -> None:
        files = self._find(repo_id, revision, write=True)[2]
        answer = json.loads(self.body)
        for file in answer["files"]:
            lfs, known = file["path"].endswith(".safetensors"), files.get(file["path"])
            file |= {"uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": known and known.etag}
        self._answer_json(answer)

    def _lfs_batch(self, repo_id: str) -> None:
        self._find(repo_id, "main", write=True)
        objects = json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.objects:  # else there is nothing to do
                item["actions"] = {"upload": {"href": f"{self.hub.cdn_url}/cdn/{item['oid']}/upload"}}
        self._answer_json({"transfer": "basic", "objects": objects})

    def _commit(self, repo_id: str, branch: str) -> None:
        head = self._find(repo_id, branch, write=True)[1]
        files: dict[str, bytes] = {}
        for item in map(json.loads, self.body.splitlines()):
            key, value = item["key"], item["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile" and value["oid"] in self.hub.objects:
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key != "header" or value.get("parentCommit", head) != head or "create_pr" in self.query:
                raise _Error(400, f"The test double cannot commit this: {item}")
        oid = self.hub.add(repo_id, files, branch=branch)
        self._answer_json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{oid}"})


_REPO = "([^/]+/[^/]+)"
_ROUTES = (
    ("GET HEAD", f"/{_REPO}/resolve/([^/]+)/(.+)", _Handler._resolve),
    ("GET HEAD PUT", "/cdn/([0-9a-f]{64})/.+", _Handler._cdn),
    ("GET", f"/api/models/{_REPO}(?:/revision/([^/]+))?", _Handler._info),
    ("POST", "/api/repos/create", _Handler._create),
    ("POST", "/api/validate-yaml", _Handler._validate_yaml),
    ("POST", f"/api/models/{_REPO}/preupload/([^/]+)", _Handler._preupload),
    ("POST", f"/api/models/{_REPO}/commit/([^/]+)", _Handler._commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler._lfs_batch),
)
