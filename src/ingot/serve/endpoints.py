"""The endpoints: OpenAI's, and what tells how the server is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from ingot.serve.answer import Answer
from ingot.serve.faults import ApiError, FaultBody
from ingot.serve.formats import ChatFormat, Format, TextFormat, usage
from ingot.serve.guard import tell
from ingot.serve.requests import ChatRequest, CompletionRequest
from ingot.serve.service import Service
from ingot.serve.shapes import ChatCompletion, Health, Model, ModelList, TextCompletion

T = TypeVar("T")
FAULTS: dict[int | str, dict[str, Any]] = {"4XX": {"model": FaultBody}, "5XX": {"model": FaultBody}}
EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"itemSchema": EVENT}}}}
GONE = 499  # nginx's status for a client that did not wait; nobody sees it but the log

router = APIRouter(responses=FAULTS)


def _service(request: Request) -> Service:
    return request.app.state.service


@router.get("/v1/models")
async def models(request: Request) -> ModelList:
    """The models that are served, the first one being the default."""
    return ModelList(data=[served.model for served in _service(request).models.values()])


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> Model:
    """One model."""
    return _service(request).find(name).model


@router.get("/health", response_model=Health, responses={503: {"model": Health}})
async def health(request: Request) -> Response:
    """How the server is: 503 while it stops, and when a model has failed."""
    found = _service(request).health
    return JSONResponse(found.model_dump(), 200 if found.status == "ok" else 503)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Counts in Prometheus's text format."""
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=STREAMED)
async def chat(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation; with `stream`, as server-sent events.

    With `truncation: auto`, the header X-Ingot-Dropped counts the oldest messages that the context had no room for.
    """
    served = _service(request).find(body.model)
    samplings = served.samplings(body)
    turns = [message.turn for message in body.messages]
    prompt = await asyncio.to_thread(served.chat_prompt, turns, samplings[0], body.truncation == "auto")
    served.check(prompt.ids, samplings[0], "messages")
    form = ChatFormat(served.id, body.alternatives is not None)
    answer = served.answer([prompt.ids] * len(samplings), samplings)
    reply = await _reply(request, answer, form, len(prompt.ids), body.stream, body.include_usage)
    reply.headers["X-Ingot-Dropped"] = str(prompt.dropped)
    return reply


@router.post("/v1/completions", response_model=TextCompletion, responses=STREAMED)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continue texts; with `stream`, as server-sent events."""
    served = _service(request).find(body.model)
    samplings = served.samplings(body)
    prompts = [
        await asyncio.to_thread(served.text_prompt, prompt) if isinstance(prompt, str) else prompt
        for prompt in body.prompts
    ]
    for prompt in prompts:
        served.check(prompt, samplings[0], "prompt")
    form = TextFormat(served.id, body.alternatives is not None)
    answer = served.answer([prompt for prompt in prompts for _ in samplings], samplings * len(prompts))
    return await _reply(request, answer, form, sum(map(len, prompts)), body.stream, body.include_usage)


async def _reply(
    request: Request, answer: Answer, form: Format, read: int, stream: bool | None, counted: bool
) -> Response:
    """The answer in its form, which is closed whatever happens; `read` counts the tokens of its prompts."""
    try:
        if stream:
            await _while_connected(request, answer.begin())
            return EventStream(answer, _events(request, answer, form, read, counted))
        texts = await _while_connected(request, answer.whole())
    except BaseException:
        answer.close()
        raise
    return _json(form.whole(texts, usage(read, answer.tokens)))


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, given up where the client does not wait for it."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(GONE, "the client has gone")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(request: Request, answer: Answer, form: Format, read: int, counted: bool) -> AsyncIterator[bytes]:
    try:
        for chunk in form.opening(answer.texts):
            yield _event(chunk)
        async for piece in answer.pieces():
            yield _event(form.chunk(piece))
        if counted:
            yield _event(form.closing(usage(read, answer.tokens)))
        yield b"data: [DONE]\n\n"
    except ApiError as error:  # the status has been sent: the last event tells it
        answer.close()
        tell(request.scope, "failed")
        yield b"data: " + error.json.encode() + b"\n\n"


class EventStream(StreamingResponse):
    """Server-sent events of an answer, which is closed however they end."""

    media_type = "text/event-stream"

    def __init__(self, answer: Answer, events: AsyncIterator[bytes]):
        super().__init__(events, headers={"X-Accel-Buffering": "no"})  # proxies hand each event on at once
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them all, or as many as the client waits for."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._answer.close():
                tell(scope, "gone")


def _event(chunk: BaseModel) -> bytes:
    return b"data: " + chunk.model_dump_json(exclude_unset=True).encode() + b"\n\n"


def _json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(exclude_unset=True), media_type="application/json")
