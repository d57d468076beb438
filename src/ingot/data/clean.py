"""What is done to a text before it is encoded, and which texts are left out: nothing unless it is asked for."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ingot.config.config import Config
from ingot.data.document import Document, Dropped, Record
from ingot.data.signatures import METHOD, RUN
from ingot.data.words import DIGIT, SPACE, SYMBOL, kinds, runs


class Cleaning(Config):
    """How texts are normalised, which are left out, and whether repeated ones are.

    The filters measure what means the same in every language: how much a text repeats itself, and of what characters
    it is made. Counts of words, stop words or full stops at the ends of lines do not, so there are none. Start from
    the values named, look at what `ingot prepare` reports as dropped, and only then believe them.
    """

    normalize: Literal["none", "nfc", "nfkc"] = "none"
    """Unicode normal form; nfc makes one of the spellings of é, nfkc also loses what looks alike, such as ² and ﬁ."""
    min_length: int = Field(default=0, ge=0)
    """Least characters of a text."""
    max_length: int | None = Field(default=None, ge=1)
    """Most characters of a text; null: any number."""
    max_repeated_lines: float | None = Field(default=None, ge=0, le=1)
    """Most of a text's characters that may lie in lines which stood in it before; Gopher: 0.2 (Rae et al., 2021,
    arXiv:2112.11446, table A1)."""
    max_repeated_runs: float | None = Field(default=None, ge=0, le=1)
    """Most of a text's runs of five words that may have stood in it before; Gopher: 0.15. In Han, kana or Thai a
    character counts as a word, and a run is repeated more easily."""
    max_commonest_pair: float | None = Field(default=None, ge=0, le=1)
    """Most of a text's words that its commonest pair of words may make up; Gopher: 0.2."""
    max_symbols: float | None = Field(default=None, ge=0, le=1)
    """Most of a text's characters, spaces aside, that may be punctuation, symbols or emoji. Prose stays below
    0.1, code does not; ROOTS (arXiv:2303.03915) drops what exceeds a bound found for each language by looking."""
    max_digits: float | None = Field(default=None, ge=0, le=1)
    """Most of a text's characters, spaces aside, that may be digits, as in tables and lists of numbers; RefinedWeb
    (arXiv:2306.01116) drops lines that are numbers alone."""
    duplicates: Literal["none", "exact", "near"] = "none"
    """Leave out what repeats an earlier document, or any held-out one: to the letter, or nearly. The second needs
    ingot's extra `data`."""
    similarity: float = Field(default=0.8, ge=0.5, le=1)
    """Near duplicates have at least so much of their runs of five words in common, as a share of all that either has
    (Jaccard; 0.8 as in Lee et al., arXiv:2107.06499); estimated, with a standard error of at most 0.035 there."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_length is not None and self.max_length < self.min_length:
            raise ValueError(f"max_length {self.max_length:,} is less than min_length {self.min_length:,}")
        return self

    def clean(self, text: str) -> tuple[str, str]:
        """`text` in its normal form, and why it is left out: empty where it stays."""
        text = self._normal(text)
        return text, next(self._faults(text), "")

    def record(self, record: Record) -> Record:
        """What becomes of a record: its texts are put in their normal form, or it is dropped with the reason.

        A conversation is judged as a whole, its messages line by line.
        """
        if isinstance(record, Dropped):
            return record
        if isinstance(record, Document):
            text, fault = self.clean(record.text)
            return Dropped(fault, record.offset) if fault else replace(record, text=text)
        messages = tuple(replace(message, content=self._normal(message.content)) for message in record.messages)
        fault = next(self._faults("\n".join(message.content for message in messages)), "")
        return Dropped(fault, record.offset) if fault else replace(record, messages=messages)

    def identity(self) -> dict[str, Any]:
        """All that shapes the documents, for a fingerprint; empty where nothing is asked for."""
        asked = {key: value for key, value in self.to_dict().items() if value != type(self).model_fields[key].default}
        if self.duplicates != "near":
            asked.pop("similarity", None)
        else:
            asked["similarity"] = self.similarity
        if self.duplicates != "none":
            asked["method"] = METHOD
        if self.normalize != "none":
            asked["unicode"] = unicodedata.unidata_version  # a newer Python knows normal forms of newer characters
        return asked

    def _normal(self, text: str) -> str:
        if self.normalize == "none":
            return text
        return unicodedata.normalize("NFC" if self.normalize == "nfc" else "NFKC", text)

    def _faults(self, text: str) -> Iterator[str]:
        """Why `text` is left out, the cheapest to find first."""
        if len(text) < self.min_length:
            yield f"shorter than {self.min_length:,} characters"
        if self.max_length is not None and len(text) > self.max_length:
            yield f"longer than {self.max_length:,} character{'s' if self.max_length > 1 else ''}"
        if self.max_symbols is not None or self.max_digits is not None:
            counts = kinds(text)
            visible = max(1, counts.sum() - counts[SPACE])
            if self.max_symbols is not None and counts[SYMBOL] > self.max_symbols * visible:
                yield "too many symbols"
            if self.max_digits is not None and counts[DIGIT] > self.max_digits * visible:
                yield "too many digits"
        if self.max_repeated_lines is not None and _repeated_lines(text) > self.max_repeated_lines:
            yield "repeated lines"
        if self.max_repeated_runs is not None and _repeated_runs(text) > self.max_repeated_runs:
            yield "repeated runs of words"
        if self.max_commonest_pair is not None and _commonest_pair(text) > self.max_commonest_pair:
            yield "one pair of words too often"


def _repeated_lines(text: str) -> float:
    """The share of characters that lie in lines which stood before, blank ones and outer spaces aside."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return 1 - sum(map(len, set(lines))) / max(1, sum(map(len, lines)))


def _repeated_runs(text: str) -> float:
    """The share of runs of words that stood before."""
    hashes, _ = runs([text], RUN)
    return 1 - len(np.unique(hashes)) / len(hashes)


def _commonest_pair(text: str) -> float:
    """The share of words that belong to the commonest pair of words; 0 where none stands twice."""
    hashes, _ = runs([text], 2)
    most = int(np.unique(hashes, return_counts=True)[1].max())
    return min(1.0, 2 * most / (len(hashes) + 1)) if most > 1 else 0.0
