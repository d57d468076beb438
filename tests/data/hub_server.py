"""A hub on loopback: enough of the Hugging Face hub's API for its real clients, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34  # every branch of every repository stands at this commit


@dataclass
class Fault:
    """What goes wrong with requests whose `METHOD /path` contains `match`: the next `times` of them."""

    match: str
    status: int = 0  # answered instead; 0: the connection breaks off
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 0  # bytes of the body sent before it breaks off
    times: int = 10**9
    passes: int = 0  # requests let through first


class Server:
    """Repositories as mappings of path to content, by name, such as `datasets/someone/stories`."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []  # `METHOD /path range` of every request
        self.tokens: dict[str, str] = {}  # repository -> the token that it asks for
        self.lock = threading.Lock()
        self.address = ""

    def fault(self, line: str) -> Fault | None:
        """The fault that strikes this request."""
        with self.lock:
            for fault in self.faults:
                if fault.match in line and fault.times > 0:
                    if fault.passes > 0:
                        fault.passes -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def hub_server() -> Iterator[Server]:
    """A hub that answers at `address` until the block ends."""
    hub = Server()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *words: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        line = f"{self.command} {path}"
        with self.hub.lock:
            self.hub.log.append(f"{line} {self.headers.get('range', '')}".strip())
        self.struck = self.hub.fault(line)
        if self.struck and self.struck.status:
            self._send(self.struck.status, b"{}", dict(self.struck.headers))
        elif self.struck and not self.struck.after:
            self.close_connection = True
        elif path.startswith("/api/"):
            self._answer_api(path, body)
        elif found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self._answer_file(found[1], found[3])
        elif path.startswith("/files/"):  # of no repository: what a list of addresses names
            self._answer_file("files", path.removeprefix("/files/"))
        else:
            self._send(404, b"{}")

    def _repository(self, name: str) -> dict[str, bytes] | None:
        """The repository's files; None once the client was told why not."""
        wanted = self.hub.tokens.get(name)
        if wanted and self.headers.get("authorization") != f"Bearer {wanted}":
            code = "GatedRepo" if wanted == "gated" else "RepoNotFound"
            self._send(401, b"{}", {"X-Error-Code": code})
        elif name not in self.hub.repositories:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        else:
            return self.hub.repositories[name]
        return None

    def _answer_api(self, path: str, body: bytes) -> None:
        found = re.fullmatch(r"/api/((?:datasets|models)/[^/]+/[^/]+)(?:/([a-z-]+)/([^/]+)(?:/(.*))?)?", path)
        if not found:
            self._send(404, b"{}")
            return
        files = self._repository(found[1].removeprefix("models/"))
        if files is None:
            return
        if found[2] == "tree":
            self._json(_tree(files, (found[4] or "").rstrip("/"), "recursive=true" in self.path.lower()))
        elif found[2] == "paths-info":
            asked = set(parse_qs(body.decode()).get("paths", []))
            if body.startswith(b"{"):
                asked = set(json.loads(body)["paths"])
            everything = [*_tree(files, "", True)]
            self._json([entry for entry in everything if entry["path"] in asked])
        else:
            name = found[1].partition("/")[2]
            siblings = [{"rfilename": file} for file in files]
            self._json({"_id": "1", "id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})

    def _answer_file(self, repository: str, path: str) -> None:
        files = self._repository(repository)
        if files is None:
            return
        if path not in files:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        content = files[path]
        headers = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", "")):
            begin, end = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
            self._send(206 if begin < len(content) else 416, content[begin:end], headers)
        else:
            self._send(200, content, headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.struck and self.struck.after:
            body = body[: self.struck.after]
            self.close_connection = True
        self.wfile.write(body)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _tree(files: Mapping[str, bytes], below: str, recursive: bool) -> list[dict[str, object]]:
    """Entries as the hub lists them: files, and the folders that they lie in."""
    prefix = f"{below}/" if below else ""
    entries: dict[str, dict[str, object]] = {}
    for path, content in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            folder = prefix + "/".join(parts[:depth])
            entries[folder] = {"type": "directory", "path": folder, "size": 0, "oid": _digest(folder.encode())}
        entries[path] = {"type": "file", "path": path, "size": len(content), "oid": _digest(content)}
    if not recursive:
        entries = {path: entry for path, entry in entries.items() if "/" not in path.removeprefix(prefix)}
    return list(entries.values())
