"""What every request passes: who asks, from where, whether the server still takes requests, and how it ended."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingot.serve.faults import ApiError
from ingot.serve.keys import Keys
from ingot.serve.service import Service
from ingot.serve.worker import stopping

OPEN = {"/", "/page.css", "/page.js", "/health", "/openapi.json"}  # what needs no key
ASKING = {"/v1/chat/completions": "chat", "/v1/completions": "completions"}
OUTCOME = "ingot.outcome"  # in a request's scope: how a stream ended after its status was sent

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def error_response(error: ApiError) -> Response:
    """As OpenAI's API tells errors."""
    return Response(error.json, error.status, dict(error.headers), media_type="application/json")


def outcome_of(status: int) -> str:
    """How a request ended, in a word for the metrics."""
    if status < 400:
        return "ok"
    return {429: "busy", 499: "gone", 503: "busy"}.get(status, "refused" if status < 500 else "failed")


class Guard:
    """ASGI middleware. `hosts`: the names by which the server may be called; none: any."""

    def __init__(self, app: ASGIApp, service: Service, keys: Keys | None, hosts: Collection[str] | None):
        self._app, self._service, self._keys, self._hosts = app, service, keys, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may not pass, and count what may."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        endpoint = ASKING.get(scope["path"]) if scope["method"] == "POST" else None
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self._service.under_way += endpoint is not None
        try:
            if refusal := self._refusal(scope, asking=endpoint is not None):
                await error_response(refusal)(scope, receive, send_on)
            else:
                await self._app(scope, self._bounded(receive), send_on)
        finally:
            self._service.under_way -= endpoint is not None
            if endpoint:
                self._service.metrics.count(endpoint, scope.get(OUTCOME) or outcome_of(status))

    def _refusal(self, scope: Scope, asking: bool) -> ApiError | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts:
            return ApiError(403, "this server answers to names of this machine only", code="unknown_host")
        if self._keys and scope["path"] not in OPEN and not self._keys.accept(headers.get("authorization")):
            what = "an API key is needed: Authorization: Bearer KEY"
            error = ApiError(401, what, code="invalid_api_key")
            error.headers = {"WWW-Authenticate": "Bearer"}
            return error
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._service.limits.body:
            return ApiError(413, self._too_long)
        return stopping() if asking and self._service.draining else None

    @property
    def _too_long(self) -> str:
        return f"a request has {self._service.limits.body:,} bytes at most"

    def _bounded(self, receive: Receive) -> Receive:
        """`receive` that raises HTTPException (413) when a body that does not tell its length grows too long."""
        size = 0

        async def count() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._service.limits.body:
                raise HTTPException(413, self._too_long)
            return message

        return count


def _name(host: str) -> str:
    """The host of a Host header, without its port."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def tell(scope: Any, outcome: str) -> None:
    """Say how a stream ended."""
    scope[OUTCOME] = outcome
