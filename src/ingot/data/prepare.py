"""Everything between sources and training, made where it is missing: the tokenizer, then the token cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from filelock import FileLock

from ingot.data.build import build, fingerprint, inputs
from ingot.data.cache import TokenCache
from ingot.data.digests import Digests
from ingot.data.document import Document, Dropped
from ingot.data.drops import Drops, nothing_left
from ingot.data.source import HeldOut, Source
from ingot.files import disk_errors, make_folder, new_folder
from ingot.tokenizer.tokenizer import Tokenizer
from ingot.tokenizer.training import TokenizerConfig

QUIET_SECONDS = 10.0  # between two lines on how far the token cache is


def prepare(
    sources: Sequence[Source],
    held_out: HeldOut,
    tokenizer: TokenizerConfig,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
    *,
    workers: int = 0,
) -> tuple[Tokenizer, TokenCache]:
    """Tokenizer and token cache below `folder`: found where the inputs are unchanged, made where they are not.

    Processes of one machine that ask at once do the work once. `say` is told in lines what was found, made and
    dropped, and now and then how far a long build is. Raises UserError for sources that give nothing to train on, and
    for a folder that can't be written to.
    """
    make_folder(folder)
    with disk_errors(folder):
        lock = FileLock(folder / ".lock").acquire()
    with lock:
        trained = find_tokenizer(sources, held_out, tokenizer, folder, say)
        cache = build(sources, trained, held_out, folder, workers=workers, progress=_Pace(say).tell)
    for line in described(cache):
        say(line)
    return trained, cache


class _Pace:
    """Says how far a build is, at most once in `QUIET_SECONDS`; a quick one is over before the first line."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._began = self._spoke = time.monotonic()
        self._first: int | None = None

    def tell(self, done: int, total: int) -> None:
        """Hear of `done` bytes of `total`; what was done before this build began says nothing about its speed."""
        now = time.monotonic()
        if self._first is None:
            self._first = done
            self._began = now
        if done >= total or now - self._spoke < QUIET_SECONDS:
            return
        self._spoke = now
        line = f"token cache: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {done / total:.0%}"
        if done > self._first:
            left = (now - self._began) / (done - self._first) * (total - done)
            line += f", about {left / 60:,.0f} minutes left" if left >= 90 else f", about {left:,.0f} seconds left"
        self._say(line)


def find_tokenizer(
    sources: Sequence[Source],
    held_out: HeldOut,
    config: TokenizerConfig,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Tokenizer:
    """The tokenizer that `config` trains on these sources, kept in `folder/tokenizers/`."""
    name = inputs(sources, held_out, Digests(folder / "digests.json"))
    place = folder / "tokenizers" / fingerprint({"inputs": name, "tokenizer": config.to_dict()})
    if not place.exists():
        size = min(config.text_bytes, sum(part.size for source in sources for part in source.parts()))
        say(f"tokenizer: training on {size / 1e6:,.1f} MB of text")
        trained = config.train(sample(sources, held_out, config.text_bytes))
        with new_folder(place) as draft:
            trained.save(draft)
    found = Tokenizer.load(place)
    say(f"tokenizer: {found.vocabulary:,} tokens in {place}")
    return found


def sample(sources: Sequence[Source], held_out: HeldOut, limit: int) -> Iterator[str]:
    """About `limit` bytes of text to train a tokenizer on: the same share of every part of every source.

    A share is the part's first documents, and the head of the one that exceeds it; held-out documents are left out.
    Raises UserError where there is none.
    """
    parts = [source.parts() for source in sources]
    total = sum(part.size for part in chain.from_iterable(parts))
    drops, held, given = Drops(), 0, False
    for source, own in zip(sources, parts, strict=True):
        for number, part in enumerate(own):
            left = total if total <= limit else -(-part.size * limit // total)
            for index, record in enumerate(source.documents(part)):
                if isinstance(record, Dropped):
                    drops.add(part, record)
                elif held_out.holds(number, index):
                    held += 1
                elif left > 0 and isinstance(record, Document):
                    text = _head(record.text, left)
                    left -= len(text.encode())
                    given = True
                    yield text
                else:
                    break
    if not given:
        placed = drops.placed(chain.from_iterable(parts))
        raise nothing_left(", ".join(source.name for source in sources), placed, held)


def _head(text: str, size: int) -> str:
    """The first `size` bytes of `text`, to the last whole character and at least one."""
    content = text.encode()
    return text if len(content) <= size else content[:size].decode(errors="ignore") or text[:1]


def described(cache: TokenCache) -> Iterator[str]:
    """What went into a cache, in lines for a person."""
    report = cache.report
    for source in report["sources"]:
        field = f", text field {' and '.join(map(repr, source['fields']))}" if source["fields"] else ""
        documents = source["train"]["documents"] + source["held_out"]["documents"]
        size = source["file_bytes"] / 1e6
        yield f"{source['name']}: {source['files']:,} files, {size:,.1f} MB, {documents:,} documents{field}"
    for reason, entry in report["dropped"].items():
        yield f"dropped {entry['count']:,} records: {reason} (the first at {', '.join(entry['examples'])})"
    for view in ("train", "held_out"):
        totals = report[view]
        label, rate = view.replace("_", " "), totals["bytes"] / max(1, totals["tokens"])
        yield f"{label}: {totals['documents']:,} documents, {totals['tokens']:,} tokens, {rate:.2f} bytes a token"
    yield f"token cache: {cache.folder}"
