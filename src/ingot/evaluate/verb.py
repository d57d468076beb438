"""The job behind `ingot evaluate`: all that can be found out about a model, kept beside its run."""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

import ingot
from ingot.data.cache import TokenCache
from ingot.data.source import FileSource
from ingot.engine.device import describe
from ingot.engine.precision import narrowed
from ingot.errors import UserError
from ingot.evaluate.quality import SAMPLING, quality
from ingot.evaluate.record import Evaluation, ModelRecord, QualityRecord, TaskRecord, TextRecord
from ingot.evaluate.sources import Origin, as_source, documents_in, documents_of
from ingot.evaluate.speed import peak_memory, speed
from ingot.evaluate.tasks.answers import Answers
from ingot.evaluate.tasks.local import find
from ingot.evaluate.tasks.scoring import Examination
from ingot.evaluate.text import Document, Tally, score_text
from ingot.files import sha256
from ingot.language_model import LanguageModel, load
from ingot.model.architecture import parameter_counts

Part = Literal["text", "tasks", "quality", "speed"]
PARTS: tuple[Part, ...] = ("text", "tasks", "quality", "speed")
PROMPTS, PROMPT_TOKENS = 16, 32  # taken from documents where none are given
LEAST_REAL = 16  # tokens behind a prompt, to compare with
LOOKED_AT = 512  # documents among which prompts are looked for
QUIET_SECONDS = 10.0  # between two lines on how far a task is


def evaluate(
    reference: str | Path,
    *,
    data: Sequence[Any] = (),
    tasks: Sequence[str] = (),
    prompts: Sequence[str] = (),
    only: Sequence[Part] = PARTS,
    documents: int | None = None,
    items: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    runs: Path | str = Path("runs"),
    say: Callable[[str], None] = print,
) -> Evaluation:
    """Measure the model that `reference` means, and keep what was found in `evaluations/` of its run, if it has one.

    `data`: sources to score in place of the run's held-out documents, as words or as in a recipe. `documents` and
    `items` limit a source and a task. Log-likelihoods are kept below the cache folder, so a task that was interrupted
    goes on. `say` hears in lines what is being done, and what can't be. Raises UserError.
    """
    benchmarks, sources = find(tasks), [as_source(one) for one in data]  # mistakes are told before anything is loaded
    for source in sources:
        if isinstance(source, FileSource):
            source.parts()
    if unknown := set(only) - set(PARTS):
        raise UserError(f"there is no part {min(unknown)!r}", where="only", mend=f"name {', '.join(PARTS)}")
    model = load(reference, runs=runs)
    origin = Origin.of(model.folder)
    notes: list[str] = []
    job = _Job(model, origin, documents, items, precision, say, notes)
    cache = job.cache() if {"text", "quality"} & set(only) else None
    record = job.about(reference)
    text = job.text(sources, cache) if "text" in only else []
    scored = job.tasks(benchmarks, record.fingerprint) if "tasks" in only else []
    written = job.quality(prompts, sources, cache) if "quality" in only else None
    if "speed" in only:
        say("measuring the speed")
    found = Evaluation(
        model=record,
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        code=ingot.__version__,
        machine=describe(model.model.head_weight.device).to_dict(),
        precision=precision,
        text=text,
        tasks=scored,
        quality=written,
        speed=speed(model.model, model.tokenizer) if "speed" in only else [],
        peak_memory_bytes=peak_memory(model.model.head_weight.device),
        notes=notes,
    )
    if origin:
        say(f"kept in {found.save(origin.run)}")
    return found


class _Job:
    """The parts of one evaluation."""

    def __init__(
        self,
        model: LanguageModel,
        origin: Origin | None,
        documents: int | None,
        items: int | None,
        precision: str,
        say: Callable[[str], None],
        notes: list[str],
    ):
        self.model, self.origin, self.say, self.notes = model, origin, say, notes
        self.documents, self.items, self.precision = documents, items, precision

    def about(self, reference: str | Path) -> ModelRecord:
        """What is evaluated."""
        arch, origin = self.model.model.arch, self.origin
        return ModelRecord(
            reference=str(reference),
            fingerprint=_fingerprint(self.model.folder, origin),
            parameters=parameter_counts(arch)["total"],
            context=arch.context,
            run=origin.run.name if origin else "",
            step=origin.manifest.step if origin else None,
        )

    def cache(self) -> TokenCache | None:
        """What the model was trained on and what was held out; None, and a note, where that is not known."""
        try:
            if self.origin:
                return self.origin.cache(self.model.folder, self.say)
        except UserError as error:
            self.note(f"the run's own text can't be had: {error}")
            return None
        self.note("this model comes from no run here, so nothing is known of its training text")
        return None

    def note(self, line: str) -> None:
        """Say what can't be measured, and record it."""
        self.notes.append(line)
        self.say(line)

    def text(self, sources: Sequence[Any], cache: TokenCache | None) -> list[TextRecord]:
        """The loss on each of `sources` or, without one, on what the run held out."""
        if not sources and cache and cache.held_out.tokens:
            tally = Tally()
            self.say("measuring on held-out text")
            return [self._scored(documents_in(cache.held_out, tally, self.documents), tally, "held-out data")]
        if not sources:
            self.note("no held-out text is known: `--data` measures on any other")
        found = []
        for source in sources:
            tally = Tally()
            self.say(f"measuring on {source.name}")
            texts = documents_of(source, self.model.tokenizer, tally, self.documents, self.say)
            found.append(self._scored(texts, tally, source.name))
        return found

    def _scored(self, documents: Iterable[Document], tally: Tally, name: str) -> TextRecord:
        model, tokenizer = self.model.model, self.model.tokenizer
        sizes = np.zeros(max(model.arch.vocabulary, tokenizer.vocabulary), np.int64)
        sizes[: tokenizer.vocabulary] = tokenizer.token_bytes()
        with narrowed(self.precision, model.head_weight.device):
            found = score_text(model, documents, sizes, tally, name)
        if not found.tokens:
            self.note(f"{name}: there is nothing to score")
        elif found.documents.read < 2:
            self.note(f"{name}: one document tells nothing about how sure its figures are")
        if found.tokens and not tokenizer.exact:
            self.note(f"{name}: this tokenizer loses text, so there are no bits per byte")
        return found

    def tasks(self, benchmarks: Sequence[Any], fingerprint: str) -> list[TaskRecord]:
        """The scores in `benchmarks`; what the model answered before is not asked again."""
        if not benchmarks:
            return []
        recipe = self.origin.manifest.recipe if self.origin else {}
        file = Path(str(recipe.get("cache", "cache"))) / "answers" / f"{fingerprint[:16]}-{self.precision}.jsonl"
        answers, pace = Answers(file), _Pace(self.say)
        found = []
        try:
            examination = Examination(self.model.model, self.model.tokenizer, answers, pace.tell)
            for benchmark in benchmarks:
                pace.begin(benchmark.name)
                with narrowed(self.precision, self.model.model.head_weight.device):
                    found.append(examination.score(benchmark, self.items))
        finally:
            answers.close()
        return found

    def quality(self, prompts: Sequence[str], sources: Sequence[Any], cache: TokenCache | None) -> QualityRecord:
        """What the model writes after `prompts`, or after how documents begin, or without any prompt."""
        model, tokenizer = self.model.model, self.model.tokenizer
        self.say("writing and looking at it")
        train = cache.train if cache else None
        if prompts:
            given = [[tokenizer.end, *tokenizer.encode(prompt)] for prompt in prompts]
            return quality(model, tokenizer, given, source="given", train=train)
        begins, real = self._begins(sources, cache)
        if not begins:
            alone = [[tokenizer.end]] * PROMPTS
            return quality(model, tokenizer, alone, source="none: the model begins", train=train)
        source = "beginnings of held-out documents" if not sources else f"beginnings of documents of {sources[0].name}"
        shorter = SAMPLING.model_copy(update={"max_new_tokens": max(map(len, real))})
        return quality(model, tokenizer, begins, source=source, real=real, train=train, sampling=shorter)

    def _begins(self, sources: Sequence[Any], cache: TokenCache | None) -> tuple[list[list[int]], list[list[int]]]:
        """How documents begin, and as many tokens of how each goes on."""
        tally, room = Tally(), self.model.model.arch.context
        begin = min(PROMPT_TOKENS, room // 4)
        end = min(begin + SAMPLING.max_new_tokens, room)
        texts: Iterable[Document] = ()
        if sources:
            texts = documents_of(sources[0], self.model.tokenizer, tally, LOOKED_AT, self.say)
        elif cache:
            texts = documents_in(cache.held_out, tally, LOOKED_AT)
        long = [one.ids.tolist() for one in texts if len(one.ids) >= begin + min(LEAST_REAL, end - begin)]
        chosen = [ids for ids in long if len(ids) >= end] or long
        taken = min(PROMPTS, len(chosen))
        spread = [chosen[number * len(chosen) // taken] for number in range(taken)]
        length = min((len(ids) for ids in spread), default=end)
        return [ids[:begin] for ids in spread], [ids[begin : min(end, length)] for ids in spread]


class _Pace:
    """Says now and then how far a task is."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say

    def begin(self, name: str) -> None:
        """Hear which task begins."""
        self._name, self._spoke = name, time.monotonic()
        self._say(f"scoring {name}")

    def tell(self, done: int, of: int) -> None:
        """Hear how far it is."""
        if time.monotonic() - self._spoke > QUIET_SECONDS:
            self._spoke = time.monotonic()
            self._say(f"{self._name}: {done:,} of {of:,} items")


def _fingerprint(folder: Path, origin: Origin | None) -> str:
    """SHA-256 over weights, shape and tokenizer, as far as the checkpoint knows them already."""
    known = {} if origin is None else {f"{path}": record.sha256 for path, record in origin.manifest.files.items()}
    named = sorted([folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")])
    digests = [known.get(f"{folder.name}/{path.name}") or sha256(path) for path in named]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
