"""The web application: endpoints, the page, and errors in one shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from ingot import __version__
from ingot.errors import nearest
from ingot.serve.endpoints import router
from ingot.serve.faults import ApiError
from ingot.serve.guard import Guard, error_response
from ingot.serve.keys import Keys
from ingot.serve.requests import ChatRequest, CompletionRequest
from ingot.serve.service import Service

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def create_app(service: Service, keys: Keys | None = None, hosts: Collection[str] | None = None) -> FastAPI:
    """The application over `service`; `hosts` as in Guard. Its lifespan starts and ends the workers."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def post(call: Callable[[], None]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(call)

        service.start(post)
        yield
        await service.close()

    app = FastAPI(
        title="ingot",
        version=__version__,
        description="Models served in OpenAI's shapes.",
        lifespan=lifespan,
        docs_url=None,  # both pages would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.include_router(router)
    for path, (name, kind) in PAGE.items():
        app.add_api_route(path, _file(name, kind), methods=["GET"], include_in_schema=False)
    app.add_middleware(Guard, service=service, keys=keys, hosts=hosts)
    for kind_of_error, handler in HANDLERS.items():
        app.add_exception_handler(kind_of_error, handler)
    return app


def _file(name: str, kind: str) -> Callable[[], Any]:
    content = resources.files("ingot.serve").joinpath(name).read_bytes()

    async def send() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return send


async def _tell_fault(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _tell_failure(_: Request, error: Exception) -> Response:
    """The server logs it with its traceback; the client learns its kind only."""
    return error_response(ApiError(500, f"the server has failed ({type(error).__name__}); see its log"))


async def _tell_refusal(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: unknown paths, wrong methods, bodies that are too long or no JSON."""
    assert isinstance(error, HTTPException)
    said = {
        404: f"there is nothing at {request.url.path[:100]!r}",
        405: f"{request.method} is not what {request.url.path[:100]!r} takes",
    }
    fault = ApiError(error.status_code, said.get(error.status_code, str(error.detail)))
    fault.headers = dict(error.headers or {})
    return error_response(fault)


async def _tell_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = _nearest(error.errors())
    place = [str(part) for part in found["loc"][1:] if not _is_label(part)]
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "json_invalid":
        message, place = f"the body is no valid JSON: {found['ctx']['error']}", []
    elif found["type"] == "extra_forbidden" and len(place) == 1:
        known = [*ChatRequest.model_fields, *CompletionRequest.model_fields]
        message = f"there is no field {place[0][:100]!r}; {nearest(place[0][:100], known)}"
    elif found["loc"] == ("body",) and found["type"] != "value_error":
        message = "a JSON object is expected, with Content-Type: application/json"
    return error_response(ApiError(400, message, param=".".join(place)[:200] or None))


def _nearest(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The error to tell: that of the first field, and of the type that comes nearest where it may be one of several."""
    same = [error for error in errors if error["loc"][:2] == errors[0]["loc"][:2]]
    return max(same, key=lambda error: (not error["type"].endswith("_type"), len(error["loc"])))


def _is_label(part: object) -> bool:
    """Whether a part of an error's place names a member of a union, not a field."""
    return isinstance(part, str) and (part in ("str", "int") or "[" in part)


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Any]] = {
    ApiError: _tell_fault,
    HTTPException: _tell_refusal,
    RequestValidationError: _tell_invalid,
    Exception: _tell_failure,
}
