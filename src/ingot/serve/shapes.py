"""The answers of OpenAI's API. What was not set is left out of the JSON, as there."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Usage(BaseModel):
    """Counts of tokens: a prompt once, however many texts it has; end tokens of texts too."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(BaseModel):
    """A token that could have stood in a place. In `token`, U+FFFD stands for a part of a character; `bytes` has it."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(TopLogprob):
    """A token of a text, and the likeliest ones in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """The tokens of a message; together their bytes hold its text."""

    content: list[TokenLogprob]


class AnswerMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One of the answers to a conversation."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(BaseModel):
    """All answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(BaseModel):
    """What a chunk adds to a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(BaseModel):
    """More of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None


class ChatChunk(BaseModel):
    """One event of a streamed answer; the one with the usage has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class TextLogprobs(BaseModel):
    """The tokens of a text, one list for each of their sides; offsets are in characters of the text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    """One text, or a piece of it where the answer is streamed."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str | None


class TextCompletion(BaseModel):
    """All texts, or one event of their stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class Model(BaseModel):
    """A model that is served. `context` counts the tokens of a prompt and its answer together, `max_tokens` those of an
    answer at most; `tuned` on conversations it answers, else it continues texts."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "ingot"
    context: int
    max_tokens: int
    parameters: int
    tuned: bool


class ModelList(BaseModel):
    """All models that are served."""

    object: Literal["list"] = "list"
    data: list[Model]


class ModelHealth(BaseModel):
    """How one model is."""

    status: Literal["ok", "failed"]
    slots: int
    busy: int
    waiting: int


class Health(BaseModel):
    """How the server is: `draining` finishes what was begun, `failed` has a model that no longer works."""

    status: Literal["ok", "draining", "failed"]
    models: dict[str, ModelHealth]
