"""Many prompts continued by one model, in their order, and the file that the results go to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ingot.batches.journal import Journal, journal_of
from ingot.batches.progress import JobProgress
from ingot.batches.prompts import Entry
from ingot.batches.results import Result, form_of
from ingot.chat.context import Message, Prompt
from ingot.config.check import validate
from ingot.errors import UserError
from ingot.files import sha256, write_atomically
from ingot.generate.generator import Generator
from ingot.generate.sampling import Sampling
from ingot.generate.token import Generation


class Model(Protocol):
    """What a job needs of a language model."""

    generator: Generator
    folder: Path

    def prompt(self, messages: Sequence[Message], sampling: Sampling) -> Prompt:
        """What the model reads of `messages` before it answers."""


@dataclass(frozen=True)
class Work:
    """A prompt as the model reads it."""

    entry: Entry
    ids: Sequence[int]
    sampling: Sampling


class Job:
    """Prompts that are continued, many at once, each as if it were alone."""

    def __init__(self, model: Model, entries: Sequence[Entry], sampling: Sampling):
        """Raises UserError for the first prompt that the model can't read, or whose own options are none."""
        self._model, self._sampling = model, sampling
        self._work = [self._read(entry) for entry in entries]

    def run(self, output: Path | None = None) -> list[Generation]:
        """The texts, in the order of the prompts; into `output` they go at the end, whole or not at all.

        What is finished by then is kept beside it, so the same job goes on after any end. Raises UserError for an
        output that is there already or of no known form, or was begun by another job.
        """
        if output is None:
            return self._finish(None)
        form = form_of(output)
        if output.exists():
            raise UserError("this file is there already", where=str(output), mend="choose another name, or move it")
        with journal_of(output, self._identity()) as journal:
            made = self._finish(journal)
            write_atomically(output, form(results_of([work.entry for work in self._work], made)))
            journal.path.unlink()
        return made

    def _finish(self, journal: Journal | None) -> list[Generation]:
        made = dict(journal.finished) if journal else {}
        left = [place for place in range(len(self._work)) if place not in made]
        prompts, samplings = [self._work[place].ids for place in left], [self._work[place].sampling for place in left]
        with JobProgress(len(self._work), len(made)) if journal else nullcontext() as progress:
            for number, one in self._model.generator.completed(prompts, samplings):
                place = left[number]
                made[place] = replace(one, prompt=self._work[place].entry.prompt)
                if journal and progress:
                    journal.add(place, made[place])
                    progress.finished(len(one.ids))
        return [made[place] for place in range(len(self._work))]

    def _read(self, entry: Entry) -> Work:
        generator, sampling = self._model.generator, self._sampling
        try:
            if entry.options:
                sampling = validate(Sampling, self._sampling.to_dict() | dict(entry.options), where=entry.where)
            if entry.messages:
                ids = self._model.prompt(entry.messages, sampling).ids
            else:
                ids = [generator.tokenizer.end, *generator.tokenizer.encode(entry.prompt)]
        except UserError as error:
            where = error.where if error.where.startswith(entry.where) else entry.where
            raise UserError(error.what, where=where, mend=error.mend) from None
        context = generator.model.arch.context
        if len(ids) > context:
            what = f"the prompt has {len(ids):,} tokens, and the model's context is {context:,}"
            raise UserError(what, where=entry.where, mend="shorten it")
        return Work(entry, ids, sampling)

    def _identity(self) -> dict[str, Any]:
        """What makes this job the one it is."""
        asked = [[list(work.ids), sorted(work.entry.options.items())] for work in self._work]
        prompts = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()
        model = " ".join(sha256(path) for path in sorted(self._model.folder.glob("*.safetensors")))
        quantized = {"quantize": self._model.generator.quantize}
        return {"model": model, "prompts": prompts} | quantized | self._sampling.to_dict()


def results_of(entries: Sequence[Entry], made: Sequence[Generation]) -> list[Result]:
    """What is told of each text."""
    return [
        Result(entry.prompt, one.text, one.reason, len(one.ids), answers=bool(entry.messages))
        for entry, one in zip(entries, made, strict=True)
    ]
