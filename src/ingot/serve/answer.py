"""The texts of one request as they come to be: tokens of the worker's thread in, pieces of text out."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from ingot.generate.sampling import Sampling
from ingot.generate.token import Token
from ingot.generate.writer import Writer
from ingot.serve.faults import ApiError
from ingot.serve.worker import Event, Job, OutOfTime, Worker
from ingot.tokenizer.tokenizer import Tokenizer

Finish = str  # OpenAI's words: "stop" or "length"
FINISHES: dict[str | None, Finish] = {"end": "stop", "stop": "stop", "length": "length", "context": "length"}
UNLIKELY = -9999.0  # OpenAI's word for a probability of nothing, which JSON has no number for


@dataclass(frozen=True)
class Likely:
    """A token as its bytes, which may be part of a character, and the logarithm of its probability."""

    spelling: bytes
    logprob: float


@dataclass(frozen=True)
class Told:
    """A token that a text holds, and the likeliest ones in its place."""

    chosen: Likely
    alternatives: tuple[Likely, ...]


@dataclass(frozen=True)
class Piece:
    """More of one text: `tokens` are those whose first byte it holds; `finish` is set on a text's last piece."""

    index: int
    text: str
    tokens: tuple[Told, ...] = ()
    finish: Finish | None = None


class Text:
    """One text in the making. Of tokens that a stop string cuts away, none is told."""

    def __init__(self, tokenizer: Tokenizer, sampling: Sampling):
        self._tokenizer, self._telling = tokenizer, sampling.logprobs is not None
        self._writer = Writer(tokenizer, sampling.stop)
        self._held: deque[tuple[int, Told]] = deque()  # where it begins in the text, in bytes
        self._begun = self._written = 0  # bytes that tokens stand for, and that pieces have brought

    def push(self, index: int, token: Token) -> Piece:
        """What the token adds."""
        text = self._writer.push(token)
        if not self._telling:
            return Piece(index, text, finish=FINISHES.get(token.reason))
        self._written += len(text.encode())
        if token.reason != "end":
            self._hold(token)
        whole = token.reason in ("length", "context")
        told = []
        while self._held and (whole or self._held[0][0] < self._written):
            told.append(self._held.popleft()[1])
        return Piece(index, text, tuple(told), FINISHES.get(token.reason))

    def _hold(self, token: Token) -> None:
        chosen = self._likely(token.id, token.logprob or 0.0)
        alternatives = tuple(self._likely(other, logprob) for other, logprob in token.alternatives)
        self._held.append((self._begun, Told(chosen, alternatives)))
        self._begun += len(chosen.spelling)

    def _likely(self, token: int, logprob: float) -> Likely:
        return Likely(self._tokenizer.decode_bytes([token]), max(logprob, UNLIKELY))


@dataclass
class Written:
    """One text that is done."""

    text: str = ""
    tokens: list[Told] = field(default_factory=list)
    finish: Finish = "length"


class Answer:
    """All texts of one request. Made and used in the thread of the event loop; `close` it whatever happens."""

    def __init__(
        self,
        worker: Worker,
        tokenizer: Tokenizer,
        prompts: Sequence[Sequence[int]],
        samplings: Sequence[Sampling],
        seconds: float,
    ):
        """A text for each prompt and its sampling. Raises ApiError where there is no room for all of them."""
        self._worker = worker
        self._events: asyncio.Queue[tuple[Job, Event]] = asyncio.Queue()
        deadline = time.monotonic() + seconds
        self._jobs = [
            Job(index, prompt, sampling, self._take, deadline)
            for index, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True))
        ]
        self._making = [Text(tokenizer, sampling) for sampling in samplings]
        self._open = set(self._jobs)
        self._first: tuple[Job, Event] | None = None
        self.texts = len(self._jobs)
        self.tokens = 0
        """made so far, end tokens too"""
        worker.submit(self._jobs)

    async def begin(self) -> None:
        """Wait until there is a first token. Raises ApiError where there will be none."""
        self._first = await self._events.get()
        if isinstance(self._first[1], ApiError):
            raise self._first[1]

    async def pieces(self) -> AsyncIterator[Piece]:
        """What is written, as it is written, after `begin`. Raises ApiError where it breaks off."""
        while self._open:
            job, event = self._first or await self._events.get()
            self._first = None
            if isinstance(event, ApiError):
                raise event
            if isinstance(event, OutOfTime):
                piece = Piece(job.index, "", finish="length")
            else:
                self.tokens += 1
                piece = self._making[job.index].push(job.index, event)
            if piece.finish:
                self._open.remove(job)
            if piece.text or piece.tokens or piece.finish:
                yield piece

    async def whole(self) -> list[Written]:
        """All texts when they are done, in the order of the prompts."""
        made = [Written() for _ in self._jobs]
        await self.begin()
        async for piece in self.pieces():
            one = made[piece.index]
            one.text += piece.text
            one.tokens += piece.tokens
            one.finish = piece.finish or one.finish
        return made

    def close(self) -> bool:
        """Free what the request still holds, slots or places in the queue; whether there was anything."""
        held, self._open = self._open, set()
        self._worker.withdraw(held)
        return bool(held)

    def _take(self, job: Job, event: Event) -> None:
        self._events.put_nowait((job, event))
