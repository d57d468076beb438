"""The process that serves: a socket, uvicorn, and a good end at a signal."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from ingot.errors import Stopped, UserError
from ingot.serve.app import create_app
from ingot.serve.keys import Keys, hosts_of, is_loopback
from ingot.serve.limits import Limits
from ingot.serve.service import Service

if TYPE_CHECKING:
    from ingot.language_model import LanguageModel

BACKLOG = 2048  # connections that the system holds until they are accepted


def listen(host: str, port: int, keys: Path | None) -> socket.socket:
    """A socket that listens. Raises UserError for a host that others reach while there are no keys, or a busy port."""
    if keys is None and not is_loopback(host):
        raise UserError(
            "whoever reaches this machine could use the model",
            where=f"--host {host}",
            mend="give --keys FILE with an API key a line, or listen on 127.0.0.1",
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        what = f"nothing can listen here ({error.strerror})"
        raise UserError(what, where=f"--host {host} --port {port}", mend="choose another --port") from None
    return made


def address_of(made: socket.socket) -> str:
    """The URL at which a socket listens."""
    host, port = made.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """A server that drains at the first signal and ends at once at the second."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop, which signals have to reach."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal's handler in the main thread."""
        if self._service.draining or self._loop is None:
            self.force_exit = True
            super().handle_exit(sig, frame)
        else:
            self._service.draining = True
            self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._drain(sig, frame)))

    async def _drain(self, sig: int, frame: FrameType | None) -> None:
        await self._service.drain()
        super().handle_exit(sig, frame)


def serve(
    models: Mapping[str, LanguageModel],
    made: socket.socket,
    limits: Limits,
    *,
    keys: Keys | None = None,
    context: int | None = None,
) -> None:
    """Serve `models` by their names at the socket until a signal comes; then the signal does what it always does.

    Raises Stopped for a Ctrl-C that let open answers end.
    """
    service = Service(models, limits, context)
    host = made.getsockname()[0]
    app = create_app(service, keys, hosts_of(host) if keys is None else None)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=5)
    server = Server(config, service)
    try:
        server.run(sockets=[made])
    except KeyboardInterrupt:
        if server.force_exit and service.draining:  # the second of two, while answers were open
            raise
        raise Stopped from None
