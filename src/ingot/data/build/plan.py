"""What a token cache is to be made of, and how the work is cut: groups of parts, which any process can make alone.

All of it depends on the inputs alone, never on how many processes there are or in which order they work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from ingot.data.build.claims import alone
from ingot.data.clean import Cleaning
from ingot.data.conversations import LISTS
from ingot.data.digests import Digests
from ingot.data.document import Part
from ingot.data.source import Conversations, HeldOut, Source
from ingot.tokenizer.template import source_of
from ingot.tokenizer.tokenizer import Tokenizer

DIGESTS = "digests.json"  # in the folder of all caches
LAYOUT = 2  # of the folder; another layout is another fingerprint
SHARD_BYTES = (4 * 2**20, 64 * 2**20)  # of files behind a shard: at least, at most
SHARDS = 64  # between these bounds, a corpus is cut into about so many


@dataclass(frozen=True)
class Corpus:
    """What is read, which documents are kept back, and what is done to each."""

    sources: tuple[Source, ...]
    held_out: HeldOut = field(default_factory=HeldOut)
    clean: Cleaning = field(default_factory=Cleaning)
    asked: tuple[Source, ...] = ()  # the sources that the recipe names, where other ones stand in for some

    @property
    def name(self) -> str:
        """Its sources, for messages."""
        return ", ".join(source.name for source in self.sources)

    def fingerprint(self, folder: Path) -> str:
        """A name for what the documents will be: the files' content counts, their place and time do not.

        `folder` keeps the digests of files. Of several processes one reads the files, and the others what it found.
        """
        with alone(folder / ".digests.lock"):
            digests = Digests(folder / DIGESTS)
            described = [{"source": source.identity(), "content": source.content(digests)} for source in self.sources]
        cleaning = {"clean": self.clean.identity()} if self.clean.identity() else {}
        return fingerprint({"sources": described, "held_out": self.held_out.to_dict()} | cleaning)


@dataclass(frozen=True)
class Group:
    """The parts of one source that make one shard of each view."""

    number: int
    source: int
    parts: tuple[tuple[int, Part], ...]  # each with its number in the source

    @property
    def name(self) -> str:
        """The number as files bear it."""
        return f"{self.number:05d}"

    @property
    def size(self) -> int:
        """Bytes of the files that the group covers."""
        return sum(part.size for _, part in self.parts)


@dataclass(frozen=True)
class Plan:
    """All that a process needs to take part in making a cache: the same in each of them."""

    folder: Path  # the cache to be; what is under way lies below `work`
    corpus: Corpus
    inputs: str  # the corpus's fingerprint
    tokenizer: Tokenizer
    groups: tuple[Group, ...]

    @property
    def work(self) -> Path:
        """The folder of all that is not the finished cache."""
        return self.folder / "work"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(group.size for group in self.groups)


def cache_folder(folder: Path, corpus: Corpus, inputs: str, tokenizer: Tokenizer, parts: Iterable[Part]) -> Path:
    """Where below `folder` the cache of such inputs lies; where there are conversations, the chat template counts."""
    spelt: list[Any] = [tokenizer.fingerprint, tokenizer.end]
    fields = {getattr(part, "field", "") for part in parts}
    talks = any(isinstance(source, Conversations) for source in corpus.sources)
    if talks or any("+" in field or field in LISTS for field in fields):
        spelt.append(source_of(tokenizer))
    return folder / fingerprint({"layout": LAYOUT, "inputs": inputs, "tokenizer": spelt})


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value, shortened to 16 hexadecimal digits: a name for a folder."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def groups_of(parts: Sequence[Sequence[Part]]) -> tuple[Group, ...]:
    """Cut the parts of each source, in order, into groups of about the same size."""
    least, most = SHARD_BYTES
    full = min(most, max(least, sum(part.size for part in chain.from_iterable(parts)) // SHARDS))
    groups: list[Group] = []
    for source, own in enumerate(parts):
        taken: list[tuple[int, Part]] = []
        size = 0
        for number, part in enumerate(own):
            taken.append((number, part))
            size += part.size
            if size >= full or number == len(own) - 1:
                groups.append(Group(len(groups), source, tuple(taken)))
                taken, size = [], 0
    return tuple(groups)
