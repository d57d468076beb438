"""Many texts to ids at once, by the fastest encoder whose ids are the tokenizer's own.

`fastest` tries every encoder that is installed on a sample of the corpus at hand and names one; `encoder` builds one by
its name, in this process or in a worker. Whatever the name, the ids are the same: it is a matter of speed alone.
"""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ingot.tokenizer.byte_pairs import describe
from ingot.tokenizer.fast import Gigatoken, Tiktoken, Unsuited
from ingot.tokenizer.spelling import byte_alphabet
from ingot.tokenizer.tokenizer import END, Tokenizer

PLAIN = b"aS1 .'\n\t"  # a letter of either case, a digit, a space … as patterns tell them apart
SAMPLE_BYTES = 2**17  # of the corpus, on which encoders are compared


class Encoder(Protocol):
    """Turns texts into ids. Not picklable: a worker process builds its own by name."""

    @property
    def name(self) -> str:
        """What `encoder` builds it from."""

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The ids of all texts in one array (total,) of the tokenizer's dtype, and how many belong to each (texts,).

        No end token is put in, and text can't forge a special one. Raises UserError for half a surrogate pair.
        """


@dataclass(frozen=True)
class Choice:
    """The encoder that is to be used, and why in one line for a person."""

    encoder: Encoder
    reason: str

    @property
    def name(self) -> str:
        """What `encoder` builds another one from."""
        return self.encoder.name

    @property
    def note(self) -> str:
        """What other processes learn of it, as JSON."""
        return json.dumps({"name": self.name, "reason": self.reason})


def encoder(tokenizer: Tokenizer, name: str = "tokenizers") -> Encoder:
    """The encoder of `name` for `tokenizer`. Raises ImportError where its library is not installed."""
    return ENCODERS[name](tokenizer)


def fastest(tokenizer: Tokenizer, sample: Sequence[str]) -> Choice:
    """The fastest encoder that is installed and gives `tokenizer`'s own ids for `sample` and for what is rare in it.

    Speeds are for each second of a core, on text that it had not met. One that gives other ids is left out, and
    `reason` says so.
    """
    texts = _spread(sample)
    tried: dict[str, Encoder] = {Library.name: Library(tokenizer)}
    reference, rate = _tried(tried[Library.name], texts)
    rates, wrong = {Library.name: rate}, []
    for name in ENCODERS:
        if name == Library.name:
            continue
        try:
            tried[name] = encoder(tokenizer, name)
            found, rate = _tried(tried[name], texts)
        except (ImportError, Unsuited):
            continue
        if not _equal(found, reference) or not _cuts_alike(tokenizer, name):
            wrong.append(name)
            continue
        rates[name] = rate
        if rate > rates[Library.name]:
            break  # the rest stand behind it because they are slower
    best = max(rates, key=rates.__getitem__)
    others = [f"{name}: {rate:,.0f}" for name, rate in rates.items() if name != best]
    reason = f"encoder: {best}, {rates[best]:,.0f} MB/s a core" + (f" ({', '.join(others)})" if others else "")
    return Choice(tried[best], "; ".join([reason, *(f"{name} gives other ids and is not used" for name in wrong)]))


class Library:
    """The library that `tokenizer.json` is written for: the measure of all others."""

    name = "tokenizers"

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """As `Encoder` says; on all cores."""
        found = self._tokenizer.encode_batch(texts)
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        return np.concatenate([np.zeros(0, self._tokenizer.dtype), *found]), lengths


# Behind the library, each is faster than those behind it wherever both were measured.
ENCODERS: dict[str, Callable[[Tokenizer], Encoder]] = {one.name: one for one in (Library, Gigatoken, Tiktoken)}


def _spread(sample: Sequence[str]) -> list[str]:
    """Texts from all over `sample`, of about `SAMPLE_BYTES` in all."""
    apart = max(1, -(-sum(map(len, sample)) // SAMPLE_BYTES))
    return [text[:SAMPLE_BYTES] for text in sample[::apart]]


Found = tuple[NDArray[Any], NDArray[np.int64]]


def _tried(encoder: Encoder, texts: Sequence[str]) -> tuple[list[Found], float]:
    """What it gives for `texts`, and how many MB of them for a second of a core, once it has begun to work."""
    begun, rest = texts[: len(texts) // 4], texts[len(texts) // 4 :]
    first = encoder.encode(begun)
    began = time.process_time()  # of all threads; and what else this machine does counts less
    second = encoder.encode(rest)
    seconds = max(time.process_time() - began, 1e-9)
    return [first, second], sum(len(text.encode()) for text in rest) / 1e6 / seconds


def _equal(found: Sequence[Found], reference: Sequence[Found]) -> bool:
    pairs = zip(found, reference, strict=True)
    return all(np.array_equal(*sides) for own, other in pairs for sides in zip(own, other, strict=True))


def _cuts_alike(tokenizer: Tokenizer, name: str) -> bool:
    """Whether a byte-level encoder prepares and cuts text as `tokenizer` does, whatever kind of character it meets."""
    described = json.loads(tokenizer.content)
    if "ByteLevel" not in json.dumps(described["pre_tokenizer"]):
        return True
    probe = split_probe(described)
    texts = [_surrounded(rare[place : place + 256]) for rare in [_rare()] for place in range(0, len(rare), 256)]
    return _equal([encoder(probe, name).encode(texts)], [Library(probe).encode(texts)])


def split_probe(described: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer whose ids tell where text is cut: as `described`, but it merges what a cut would keep apart.

    These are a plain character and a byte that a longer one begins with, or the byte that it ends with and a plain one.
    """
    shown = {byte: character for character, byte in byte_alphabet().items()}
    merges = [(shown[plain], shown[lead]) for plain in PLAIN for lead in range(0xC2, 0xF5)]
    merges += [(shown[trail], shown[plain]) for plain in PLAIN for trail in range(0x80, 0xC0)]
    vocabulary = {shown[byte]: byte for byte in range(256)}
    vocabulary |= {left + right: 256 + place for place, (left, right) in enumerate(merges)}
    special = {END: len(vocabulary)}
    return Tokenizer(describe(vocabulary, merges, described["pre_tokenizer"], special, described["normalizer"]))


def _rare() -> list[str]:
    """Characters of every kind: those of the first alphabets, and some of every further block."""
    points = chain(range(0x80, 0x250), range(0x250, 0x3100, 23), range(0x3100, 0x40000, 997))
    return [chr(point) for point in points if unicodedata.category(chr(point)) not in ("Cn", "Co", "Cs")]


def _surrounded(characters: Iterable[str]) -> str:
    return "".join(f"a{c}1{c} {c}.{c}'{c}S\n{c}\n\t{c}  {c}a{c}1" for c in characters)
