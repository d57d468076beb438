"""The models of one server, each with its worker, and how many requests are under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingot.chat.context import Message, Prompt, prompt_of
from ingot.errors import UserError, nearest
from ingot.generate.batch import Batch
from ingot.generate.sampling import Sampling
from ingot.model.architecture import parameter_counts
from ingot.serve.answer import Answer
from ingot.serve.faults import ApiError
from ingot.serve.limits import Limits
from ingot.serve.metrics import Meter, Metrics
from ingot.serve.requests import ChatRequest, CompletionRequest
from ingot.serve.shapes import Health, Model, ModelHealth
from ingot.serve.worker import Worker

if TYPE_CHECKING:
    from ingot.language_model import LanguageModel

PATIENCE = 0.05  # seconds between two looks at what is still under way


@dataclass(frozen=True)
class Served:
    """One model at work."""

    id: str
    language: LanguageModel
    batch: Batch
    worker: Worker
    limits: Limits
    created: int

    @property
    def longest(self) -> int:
        """Tokens of one answer at most."""
        return min(self.limits.tokens or self.batch.context, self.batch.context)

    def chat_prompt(self, turns: Sequence[Message], sampling: Sampling, cut: bool) -> Prompt:
        """What the model reads before it answers; with `cut`, the oldest turns go where the context does not hold all.

        Raises ApiError for what the template refuses.
        """
        try:
            if cut:
                return prompt_of(self.language.template, turns, self.batch.context, sampling)
            return Prompt(self.language.template.prompt(turns), 0)
        except UserError as error:
            raise ApiError(400, str(error), param="messages") from None

    def text_prompt(self, text: str) -> list[int]:
        """A text as a document that goes on. Raises ApiError for what is no text."""
        try:
            return [self.language.tokenizer.end, *self.language.tokenizer.encode(text)]
        except UserError as error:
            raise ApiError(400, str(error), param="prompt") from None

    def samplings(self, body: ChatRequest | CompletionRequest) -> list[Sampling]:
        """One for each text of a prompt. Raises ApiError where more tokens are asked for than an answer may have."""
        if body.limit and body.limit > self.longest:
            what = f"{body.limit:,} tokens are asked for, and an answer has {self.longest:,} at most"
            raise ApiError(400, what, param="max_tokens")
        return body.samplings(body.limit or min(body.usual_tokens or self.longest, self.longest))

    def check(self, prompt: Sequence[int], sampling: Sampling, field: str) -> None:
        """Raises ApiError for a prompt or a setting that the model can't do anything with."""
        vocabulary = self.language.tokenizer.vocabulary
        if prompt and max(prompt) >= vocabulary:
            what = f"there is no token {max(prompt)}; the vocabulary has {vocabulary:,}"
            raise ApiError(400, what, param=field)
        if len(prompt) > self.batch.context:
            what = f"the prompt has {len(prompt):,} tokens, and the model's context is {self.batch.context:,}"
            raise ApiError(400, what, param=field, code="context_length_exceeded")
        try:
            self.batch.check(prompt, sampling)
        except UserError as error:
            raise ApiError(400, str(error), param=error.where) from None

    def answer(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> Answer:
        """Begin to write a text for each prompt. Raises ApiError where there is no room."""
        if len(prompts) > self.worker.capacity:
            what = f"{len(prompts)} texts at once are more than this server's {self.worker.capacity}"
            raise ApiError(400, what, param="n")
        return Answer(self.worker, self.language.tokenizer, prompts, samplings, self.limits.seconds)

    @property
    def model(self) -> Model:
        """As /v1/models tells it."""
        parameters = parameter_counts(self.language.model.arch)["total"]
        return Model(
            id=self.id,
            created=self.created,
            context=self.batch.context,
            max_tokens=self.longest,
            parameters=parameters,
            tuned=self.language.tuned,
        )

    @property
    def health(self) -> ModelHealth:
        """As /health tells it."""
        worker = self.worker
        status = "failed" if worker.failure else "ok"
        return ModelHealth(status=status, slots=self.limits.slots, busy=worker.busy, waiting=worker.waiting)


class Service:
    """All that the endpoints share."""

    def __init__(self, models: Mapping[str, LanguageModel], limits: Limits, context: int | None = None):
        """`models` by the names under which they are served; `context`: tokens of prompt and answer, at most."""
        self.limits, self.metrics = limits, Metrics()
        self.draining = False
        self.under_way = 0
        self.models = {name: self._serve(name, model, context) for name, model in models.items()}

    def _serve(self, name: str, model: LanguageModel, context: int | None) -> Served:
        batch = model.generator.batch(self.limits.slots, context)
        meter = Meter(self.metrics, name)
        worker = Worker(name, batch, self.limits, meter)
        meter.watch(lambda: worker.waiting, lambda: worker.busy, self.limits.slots)
        return Served(name, model, batch, worker, self.limits, int(time.time()))

    def find(self, name: str | None) -> Served:
        """The model of this name; none: the first. Raises ApiError (404) for an unknown one."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            what = f"there is no model {name[:100]!r}; {nearest(name[:100], list(self.models))}"
            raise ApiError(404, what, param="model", code="model_not_found")
        return self.models[name]

    @property
    def health(self) -> Health:
        """How everything is."""
        models = {name: served.health for name, served in self.models.items()}
        failed = any(one.status == "failed" for one in models.values())
        return Health(status="failed" if failed else "draining" if self.draining else "ok", models=models)

    def start(self, post: Callable[[Callable[[], None]], None]) -> None:
        """Start the workers; `post` brings a call into the event loop."""
        for served in self.models.values():
            served.worker.start(post)

    async def drain(self) -> None:
        """Take nothing new, and wait until what is under way has ended, or for as long as the limits allow."""
        self.draining = True
        end = time.monotonic() + self.limits.drain
        while self.under_way and time.monotonic() < end:
            await asyncio.sleep(PATIENCE)
        await self.close()

    async def close(self) -> None:
        """End the workers; who still waits is told so."""
        await asyncio.gather(*(asyncio.to_thread(served.worker.close) for served in self.models.values()))
