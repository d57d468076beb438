"""Encoders that are faster than the library that `tokenizer.json` is written for, and give the same ids."""

from __future__ import annotations

import json
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import psutil
from numpy.typing import NDArray

from ingot.tokenizer.byte_pairs import pattern
from ingot.tokenizer.spelling import byte_alphabet
from ingot.tokenizer.tokenizer import Tokenizer, refuse_surrogates

LOOK_BYTES = 16 * 2**20  # of text between two looks at how much memory gigatoken has taken
CACHE_BYTES = 192 * 2**20  # of memory after which it begins anew: it remembers each word that it has met

# Letters and digits of Unicode 17 (2025): one library knows them as such, another does not yet.
UNICODE_17 = (
    *((0x088F, 0x088F), (0x0C5C, 0x0C5C), (0x0CDC, 0x0CDC), (0xA7CE, 0xA7CF), (0xA7D2, 0xA7D2), (0xA7D4, 0xA7D4)),
    *((0xA7F1, 0xA7F1), (0x10940, 0x10959), (0x10EC5, 0x10EC7), (0x11DB0, 0x11DDB), (0x11DE0, 0x11DE9)),
    *((0x16EA0, 0x16EB8), (0x16EBB, 0x16ED3), (0x16FF2, 0x16FF6), (0x187F8, 0x187FF), (0x18D09, 0x18D1E)),
    *((0x18D80, 0x18DF2), (0x1E6C0, 0x1E6DE), (0x1E6E0, 0x1E6E2), (0x1E6E4, 0x1E6E5), (0x1E6E7, 0x1E6ED)),
    *((0x1E6F0, 0x1E6F4), (0x1E6FE, 0x1E6FF)),
)
# Where characters are asked one by one whether they are assigned. Between these lie ideographs and syllables, all of
# them old but the rarest: those from U+2A6E0 on are held for new.
ASCII = bytes(range(0x80))
ALL_KNOWN = 0x250  # below, each is in use since Unicode 1.1
ASKED, IDEOGRAPHS = (range(ALL_KNOWN, 0x3400), range(0xA000, 0xAC00), range(0xD7A4, 0x20000)), 0x2A6E0


class Unsuited(Exception):
    """This encoder can't stand in for this tokenizer."""


def is_doubtful(point: int) -> bool:
    """Whether two libraries may differ on a code point: it is assigned by the newest Unicode only, or by none."""
    if point >= IDEOGRAPHS or any(first <= point <= last for first, last in UNICODE_17):
        return True
    return any(point in asked for asked in ASKED) and unicodedata.category(chr(point)) == "Cn"


class Doubts:
    """Finds texts on which libraries may differ, and remembers what it has learnt of each character that it met."""

    def __init__(self) -> None:
        self._known = np.zeros(0x110000, np.int8)  # by code point: 0 not asked yet, 1 no doubt, 2 doubtful
        self._known[:ALL_KNOWN] = 1

    def arise(self, text: str) -> bool:
        """Whether `text` holds a doubtful character. Raises UnicodeEncodeError for half a surrogate pair."""
        if text.isascii():
            return False
        rest = text.encode().translate(None, ASCII).decode()  # most of most texts goes, at little cost
        points = np.frombuffer(rest.encode("utf-32-le"), "<u4")
        known = self._known[points]
        if not known.all():
            new = np.unique(points[known == 0])
            self._known[new] = [1 + is_doubtful(point) for point in new.tolist()]
            known = self._known[points]
        return bool((known == 2).any())


class Fast(ABC):
    """Encodes texts one by one with `_read`; those on which libraries may differ, with the tokenizer itself."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer, self._doubts = tokenizer, Doubts()

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """As `Encoder` says."""
        slowly: set[int] = set()
        try:
            if self._doubts.arise("".join([text for text in texts if not text.isascii()])):
                slowly = {place for place, text in enumerate(texts) if self._doubts.arise(text)}
        except UnicodeEncodeError:
            refuse_surrogates(texts)
        found = [self._slowly(text) if place in slowly else self._read(text) for place, text in enumerate(texts)]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        empty = np.zeros(0, np.uint32)
        return np.concatenate([empty, *found], dtype=self._tokenizer.dtype, casting="unsafe"), lengths

    @abstractmethod
    def _read(self, text: str) -> NDArray[Any]:
        """The ids of a text that holds nothing doubtful."""

    def _slowly(self, text: str) -> NDArray[Any]:
        return np.array(self._tokenizer.encode(text), np.uint32)


class Gigatoken(Fast):
    """gigatoken (Rød, 2026): vector instructions, and a memory of the words that it has met."""

    name = "gigatoken"

    def __init__(self, tokenizer: Tokenizer):
        """Raises ImportError where it is not installed, Unsuited for a kind of tokenizer that it does not know."""
        super().__init__(tokenizer)
        description = json.loads(tokenizer.content)
        added = [token for token in description["added_tokens"] if not token["special"]]  # text can't forge them
        description |= {"added_tokens": added, "post_processor": None, "truncation": None, "padding": None}
        self._description = orjson.dumps(description).decode()
        self._library: Any = None
        self._ahead = self._began_with = 0
        self._begin()

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """As `Encoder` says; now and then its memory of words is dropped, so that it does not outgrow the machine's."""
        self._ahead -= sum(map(len, texts))
        if self._ahead < 0:
            self._ahead = LOOK_BYTES
            if _resident() - self._began_with > CACHE_BYTES:
                self._begin()
        return super().encode(texts)

    def _begin(self) -> None:
        from gigatoken.gigatoken_rs import load_hf_json

        self._library = None  # the old one first, so that there are not two
        try:
            self._library = load_hf_json(self._description)
        except (RuntimeError, ValueError) as error:
            raise Unsuited(str(error)) from None
        self._ahead, self._began_with = LOOK_BYTES, _resident()

    def _read(self, text: str) -> NDArray[Any]:
        return self._library.encode(text)


class Tiktoken(Fast):
    """tiktoken, for byte-level pairs whose ids stand in the order of their merges."""

    name = "tiktoken"

    def __init__(self, tokenizer: Tokenizer):
        """Raises ImportError where it is not installed, Unsuited for a tokenizer that is of another kind."""
        super().__init__(tokenizer)
        import tiktoken

        description = json.loads(tokenizer.content)
        model, cut = description["model"], pattern(description["pre_tokenizer"])
        if model.get("type") != "BPE" or cut is None or description["normalizer"] or model.get("ignore_merges"):
            raise Unsuited("not byte-level pairs alone")
        if any(not token["special"] for token in description["added_tokens"]):
            raise Unsuited("tokens are found in the text before it is cut")
        ranks = ranks_of(model["vocab"], model["merges"])
        self._library = tiktoken.Encoding("ingot", pat_str=cut, mergeable_ranks=ranks, special_tokens={})

    def _read(self, text: str) -> NDArray[Any]:
        return self._library.encode_to_numpy(text, disallowed_special=())


def ranks_of(vocabulary: Mapping[str, int], merges: Sequence[Sequence[str] | str]) -> dict[bytes, int]:
    """The ids of bytes and merged pairs, where "the lowest id first" is the same rule as "the first merge first".

    That is so where ids rise with merges and each token, taken apart, is put together again by its own merge: whatever
    merges lie within a token's bytes do not depend on what stands around them. Raises Unsuited where it is not so.
    """
    alphabet = byte_alphabet()
    pairs = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]
    made = [vocabulary[left + right] for left, right in pairs]
    names = [*alphabet, *(left + right for left, right in pairs)]
    if any(name not in vocabulary for name in alphabet) or made != sorted(set(made)):
        raise Unsuited("ids do not rise with merges")
    ranks = {bytes(alphabet[character] for character in name): vocabulary[name] for name in names}
    for left, right in pairs:
        halves = [bytes(alphabet[character] for character in half) for half in (left, right)]
        if _merged(b"".join(halves), ranks) != halves:
            raise Unsuited("a token is not put together again by its own merge")
    return ranks


def _merged(word: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """`word`, a token, as the two that it was merged from when the lowest id goes first."""
    pieces = [word[place : place + 1] for place in range(len(word))]
    while len(pieces) > 2:
        rank, place = min((ranks.get(a + b, len(ranks) + 2**32), at) for at, (a, b) in enumerate(pairwise(pieces)))
        if rank >= ranks[word]:
            break
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return pieces


def _resident() -> int:
    return psutil.Process().memory_info().rss
