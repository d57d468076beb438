"""Texts put into OpenAI's shapes: chats and completions, whole or streamed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from pydantic import BaseModel

from ingot.serve.answer import Likely, Piece, Told, Written
from ingot.serve.shapes import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
    Delta,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    TokenLogprob,
    TopLogprob,
    Usage,
)


class Format(Protocol):
    """How one request is answered."""

    def whole(self, texts: Sequence[Written], usage: Usage) -> BaseModel:
        """The one answer to a request that is not streamed."""

    def opening(self, texts: int) -> Sequence[BaseModel]:
        """What a stream begins with."""

    def chunk(self, piece: Piece) -> BaseModel:
        """One event of a stream."""

    def closing(self, usage: Usage) -> BaseModel:
        """The event with the counts."""


def usage(prompt: int, written: int) -> Usage:
    """Counts, summed up."""
    return Usage(prompt_tokens=prompt, completion_tokens=written, total_tokens=prompt + written)


class ChatFormat:
    """Answers to a conversation."""

    def __init__(self, model: str, telling: bool):
        self._id, self._created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self._model, self._telling = model, telling

    def whole(self, texts: Sequence[Written], usage: Usage) -> ChatCompletion:
        """A message for each text."""
        choices = [
            ChatChoice(
                index=index,
                message=AnswerMessage(role="assistant", content=one.text, refusal=None),
                logprobs=self._logprobs(one.tokens),
                finish_reason=one.finish,
            )
            for index, one in enumerate(texts)
        ]
        return ChatCompletion(
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage,
        )

    def opening(self, texts: int) -> Sequence[ChatChunk]:
        """Every message begins with its role."""
        role = Delta(role="assistant", content="")
        return [self._chunk(ChatChunkChoice(index=index, delta=role, finish_reason=None)) for index in range(texts)]

    def chunk(self, piece: Piece) -> ChatChunk:
        """More of one message."""
        delta = Delta(content=piece.text) if piece.text or piece.tokens else Delta()
        told = self._logprobs(piece.tokens) if piece.tokens else None
        choice = ChatChunkChoice(index=piece.index, delta=delta, logprobs=told, finish_reason=piece.finish)
        return self._chunk(choice)

    def closing(self, usage: Usage) -> ChatChunk:
        """The counts, and no choice."""
        chunk = self._chunk()
        chunk.usage = usage
        return chunk

    def _chunk(self, *choices: ChatChunkChoice) -> ChatChunk:
        return ChatChunk(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            choices=list(choices),
        )

    def _logprobs(self, told: Sequence[Told]) -> ChatLogprobs | None:
        return ChatLogprobs(content=[_token(one) for one in told]) if self._telling else None


class TextFormat:
    """Continued texts."""

    def __init__(self, model: str, telling: bool):
        self._id, self._created = f"cmpl-{secrets.token_hex(12)}", int(time.time())
        self._model, self._telling = model, telling
        self._offsets: dict[int, int] = {}  # characters of the tokens of each text that were told

    def whole(self, texts: Sequence[Written], usage: Usage) -> TextCompletion:
        """All texts."""
        pieces = [Piece(index, one.text, tuple(one.tokens), one.finish) for index, one in enumerate(texts)]
        made = self._completion([self._choice(piece) for piece in pieces])
        made.usage = usage
        return made

    def opening(self, texts: int) -> Sequence[TextCompletion]:
        """Nothing."""
        return ()

    def chunk(self, piece: Piece) -> TextCompletion:
        """More of one text."""
        return self._completion([self._choice(piece)])

    def closing(self, usage: Usage) -> TextCompletion:
        """The counts, and no choice."""
        made = self._completion([])
        made.usage = usage
        return made

    def _completion(self, choices: list[TextChoice]) -> TextCompletion:
        return TextCompletion(
            id=self._id, object="text_completion", created=self._created, model=self._model, choices=choices
        )

    def _choice(self, piece: Piece) -> TextChoice:
        told = self._logprobs(piece) if self._telling else None
        return TextChoice(index=piece.index, text=piece.text, logprobs=told, finish_reason=piece.finish)

    def _logprobs(self, piece: Piece) -> TextLogprobs:
        tokens = [_shown(one.chosen) for one in piece.tokens]
        *offsets, self._offsets[piece.index] = accumulate(map(len, tokens), initial=self._offsets.get(piece.index, 0))
        return TextLogprobs(
            tokens=tokens,
            token_logprobs=[one.chosen.logprob for one in piece.tokens],
            top_logprobs=[{_shown(other): other.logprob for other in one.alternatives} for one in piece.tokens],
            text_offset=offsets,
        )


def _shown(token: Likely) -> str:
    return token.spelling.decode("utf-8", errors="replace")


def _token(told: Told) -> TokenLogprob:
    top = [_top(one) for one in told.alternatives]
    chosen = told.chosen
    return TokenLogprob(token=_shown(chosen), bytes=list(chosen.spelling), logprob=chosen.logprob, top_logprobs=top)


def _top(token: Likely) -> TopLogprob:
    return TopLogprob(token=_shown(token), bytes=list(token.spelling), logprob=token.logprob)
