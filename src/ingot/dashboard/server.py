"""The dashboard as a server on this machine: pages, what has changed since, and the check of a checkpoint."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ingot.dashboard import compare, report, study
from ingot.dashboard.curves import chart_data
from ingot.dashboard.library import SHOWN, Library
from ingot.dashboard.page import page
from ingot.dashboard.run import RunRecord, checkpoint_state
from ingot.dashboard.text import escape, to_json
from ingot.errors import UserError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Query = Mapping[str, list[str]]


class Missing(Exception):
    """There is no such page."""


class Dashboard(ThreadingHTTPServer):
    """Serves the runs of a folder. `names`: the hosts by which it may be called; none: any."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, runs: Path, host: str, port: int, *, public: bool = False):
        """Raises UserError for a missing folder, a busy port, and a host that others reach unless `public`."""
        if host not in LOOPBACK and not public:
            raise UserError(
                "whoever reaches this machine could read all runs",
                where=f"--host {host}",
                mend="add --public if that is meant, or listen on 127.0.0.1",
            )
        self.library = Library(runs)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.names = {*LOOPBACK, "[::1]"} if host in LOOPBACK else None
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            what = f"nothing can listen here ({error.strerror})"
            raise UserError(what, where=f"--host {host} --port {port}", mend="choose another --port") from None

    @property
    def address(self) -> str:
        """The URL at which it listens."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Gives socket and threads back in the end."""
        try:
            yield
        finally:
            self.server_close()
            self.library.close()

    # --- the pages ----------------------------------------------------------------------------------------------------

    def html(self, path: str, query: Query) -> str:
        """A page. Raises Missing."""
        live = f"/live{path}"
        if path.startswith("/run/"):
            return report.render(self._run(path), live)
        if path.startswith("/sweep/"):
            return study.render(self._study(path), live)
        every, chosen = self._chosen(query)
        title = self.library.folder.resolve().name
        inside = {"title": escape(title)} | compare.parts(every, chosen, self._studies())
        return page("runs.html", inside, chart_data(chosen, together=True), title=title, live=live)

    def news(self, path: str, query: Query) -> dict[str, Any]:
        """What the page of `path` shows by now: `parts`, and the `data` of its charts. Raises Missing."""
        known = query.get("known", [])
        if path.startswith("/run/"):
            run = self._run(path)
            return {"parts": report.parts(run, live=True), "data": chart_data([run], known)}
        if path.startswith("/sweep/"):
            found = self._study(path)
            return {"parts": study.parts(found), "data": study.chart(found)}
        every, chosen = self._chosen(query)
        parts = compare.parts(every, chosen, self._studies())
        return {"parts": parts, "data": chart_data(chosen, known, together=True)}

    def verified(self, path: str) -> dict[str, str]:
        """What a check of all sums says: of `/run/NAME/verify/CHECKPOINT`. Raises Missing."""
        start, _, folder = path.rpartition("/verify/")
        run = self._run(start)
        if folder not in [manifest["folder"] for manifest in run.checkpoints]:
            raise Missing
        return {"state": checkpoint_state(run.folder / "checkpoints" / folder, contents=True)}

    def _run(self, path: str) -> RunRecord:
        if not (run := self.library.run(path.removeprefix("/run/"))):
            raise Missing
        return self.library.look(run)

    def _study(self, path: str) -> study.Study:
        if not (found := self.library.studies().get(path.removeprefix("/sweep/"))):
            raise Missing
        return study.Study.read(found)

    def _studies(self) -> dict[str, str]:
        return {name: f"/sweep/{quote(name)}" for name in self.library.studies()}

    def _chosen(self, query: Query) -> tuple[list[RunRecord], list[RunRecord]]:
        """All runs, and those that are wanted: by name, all, or the newest."""
        every = [self.library.look(run) for run in self.library.runs()]
        names = query.get("run")
        if names is not None:
            return every, [run for run in every if run.name in names]
        return every, every if "all" in query else every[:SHOWN]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Dashboard
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ingot", ""

    def do_GET(self) -> None:
        """A page, or under /live what is new on it."""
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)
        if not self._may_ask():
            return
        try:
            with self.server.library.asking():
                self._answer(path, query)
        except Missing:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        except UserError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def _answer(self, path: str, query: Query) -> None:
        if path.startswith("/live/"):
            self._answer_news(self.server.news(path.removeprefix("/live"), query), query)
        elif path == "/" or path.startswith(("/run/", "/sweep/")):
            self._send(self.server.html(path, query).encode(), "text/html; charset=utf-8")
        else:
            raise Missing

    def do_POST(self) -> None:
        """The check of a checkpoint's sums, which reads all of it: only for the dashboard's own pages."""
        self.close_connection = True  # whatever else was sent is not read
        if not self._may_ask():
            return
        own = self.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
        if not own or self.headers.get("Origin", f"http://{self.headers['Host']}") != f"http://{self.headers['Host']}":
            return self._refuse(HTTPStatus.FORBIDDEN, "only the dashboard's own pages may ask for this")
        try:
            self._send(to_json(self.server.verified(unquote(urlsplit(self.path).path))), "application/json")
        except Missing:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such checkpoint")

    def _may_ask(self) -> bool:
        """A page of elsewhere can't read this server by a name that it made point here."""
        host = (self.headers.get("Host") or "").lower()
        name = host[: host.index("]") + 1] if "]" in host else host.partition(":")[0]
        if self.server.names is None or name in self.server.names:
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "this server answers to names of this machine only")
        return False

    def _answer_news(self, news: dict[str, Any], query: Query) -> None:
        versions = [run["version"] for run in news["data"]["runs"]]
        token = hashlib.sha256(json.dumps([news["parts"], versions]).encode()).hexdigest()[:16]
        if query.get("token") == [token]:
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            self._send(to_json(news | {"token": token}), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(f"{why}\n".encode(), "text/plain; charset=utf-8", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the page was left meanwhile
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""
