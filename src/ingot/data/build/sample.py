"""A part of a corpus that stands for all of it: what a tokenizer is trained on, and encoders are compared on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePosixPath

from ingot.data.build.limits import Quota
from ingot.data.build.plan import Corpus
from ingot.data.document import Conversation, Dropped, Part, Record
from ingot.data.drops import Drops, nothing_left
from ingot.data.source import Source

MEASURED = 8  # parts of one suffix whose expansion is looked at


@dataclass(frozen=True)
class Run:
    """Parts of one source, each with its number there, and how much to take from the front of them."""

    source: Source
    parts: Sequence[tuple[int, Part]]
    bytes: float  # at most, and at least a character
    documents: float = math.inf


@dataclass
class Fates:
    """What became of the records that were read and not given."""

    drops: Drops = field(default_factory=Drops)
    held: int = 0


def sample(corpus: Corpus, limit: int, most_parts: int | None = None) -> Iterator[str]:
    """About `limit` bytes of text as it will be encoded: the same share of every part of every source.

    A share is the part's first documents, and the head of the one that exceeds it; where a source has many parts,
    evenly spaced ones stand for all, and one with limits gives its own first documents. Held-out documents are left
    out. Raises UserError where there is none.
    """
    parts = [source.parts() for source in corpus.sources]
    fates, given = Fates(), False
    for run in _runs(corpus.sources, parts, limit, most_parts):
        for text in _texts(corpus, run, fates):
            given = True
            yield text
    if not given:
        raise nothing_left(corpus.name, fates.drops.placed(chain.from_iterable(parts)), fates.held)


def _texts(corpus: Corpus, run: Run, fates: Fates) -> Iterator[str]:
    """The texts of one run, until they are enough; a part that is not needed is not opened."""
    size, documents = run.bytes, run.documents
    for number, part in run.parts:
        for index, found in enumerate(run.source.documents(part)):
            record = corpus.clean.record(found)
            if isinstance(record, Dropped):
                fates.drops.add(part, record)
                continue
            documents -= 1
            if corpus.held_out.holds(number, index):
                fates.held += 1
            else:
                text = _head(_text(record), size)
                size -= len(text.encode())
                yield text
            if size <= 0 or documents <= 0:
                return


def _runs(
    sources: Sequence[Source], parts: Sequence[Sequence[Part]], limit: int, most_parts: int | None
) -> Iterator[Run]:
    quotas = [Quota.of(source) for source in sources]
    # A token is a byte at least, so that so many bytes lie within a limit of so many tokens.
    caps = [min(quota.bytes or math.inf, quota.tokens or math.inf) for quota in quotas]
    contents = [content_sizes(own) for own in parts]
    sizes = [min(cap, sum(own)) for own, cap in zip(contents, caps, strict=True)]
    share = min(1.0, limit / max(1, sum(sizes)))
    for source, own, content, quota, cap, size in zip(sources, parts, contents, quotas, caps, sizes, strict=True):
        numbered = list(enumerate(own))
        if quota.limited:
            yield Run(source, numbered, cap if share == 1 else math.ceil(size * share), quota.documents or math.inf)
            continue
        apart = math.ceil(len(numbered) / (most_parts or source.sampled)) or 1
        for number, part in numbered[apart // 2 :: apart]:
            size = math.inf if share == 1 == apart else math.ceil(content[number] * share * apart)
            yield Run(source, [(number, part)], size)


def content_sizes(parts: Sequence[Part]) -> list[float]:
    """Bytes of content of each of a source's parts, unpacked: those of one suffix expand as a few of them do."""
    alike: dict[str, list[Part]] = {}
    for part in parts:
        alike.setdefault(PurePosixPath(part.name).suffix, []).append(part)
    factors = {suffix: _expansion(own) for suffix, own in alike.items()}
    return [part.size * factors[PurePosixPath(part.name).suffix] for part in parts]


def _expansion(parts: Sequence[Part]) -> float:
    chosen = parts[:: math.ceil(len(parts) / MEASURED)]
    return sum(part.size * part.expansion() for part in chosen) / max(1, sum(part.size for part in chosen))


def _text(record: Record) -> str:
    if isinstance(record, Conversation):
        return "\n".join(message.content for message in record.messages)
    assert not isinstance(record, Dropped)
    return record.text


def _head(text: str, size: float) -> str:
    """The first `size` bytes of `text`, to the last whole character and at least one."""
    content = text.encode()
    return text if len(content) <= size else content[: int(size)].decode(errors="ignore") or text[:1]
