"""How much of a text stands word for word in a token cache: the longest stretch, found in one pass over the cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ingot.data.cache import TokenView

SEED = 8  # tokens of the shortest stretch that is looked for
PIECE = 2**20  # tokens of the cache that are looked at together: bounds the memory
MOST_TOKENS = 500_000_000  # of the cache that are searched, from its front
PAIRS = 2**20  # places in the cache and in the texts that are compared together
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 over the golden ratio


class Copies:
    """Texts, as ids, and for each the longest stretch of it found so far in what was searched."""

    def __init__(self, texts: Sequence[Sequence[int]], seed: int = SEED):
        self.seed = seed
        self.longest = [0] * len(texts)  # tokens; 0: nothing as long as the seed
        self.begins = [0] * len(texts)  # of the longest, in its text
        self.searched = 0  # tokens
        separator = np.int64(-1)  # between the texts: no token equals it
        parts = [np.append(np.asarray(text, np.int64), separator) for text in texts]
        self._all = np.concatenate([*parts, np.full(seed, separator)])
        self._owner = np.repeat(np.arange(len(texts)), [len(part) for part in parts])
        self._start = np.cumsum([0, *(len(part) for part in parts)])
        hashes = _hashes(self._all, seed)[: len(self._owner)]
        whole = np.array([not (self._all[place : place + seed] < 0).any() for place in range(len(self._owner))], bool)
        places = np.flatnonzero(whole)
        order = np.argsort(hashes[places], kind="stable")
        self._places, self._hashes = places[order], hashes[places][order]  # of every stretch of the seed's length

    def search(self, view: TokenView, most: int = MOST_TOKENS) -> None:
        """Look through `view`, or its first `most` tokens."""
        longest = len(self._all)
        for begin in range(0, min(view.tokens, most), PIECE):
            end = min(begin + PIECE, view.tokens, most)
            tokens = view.read(begin, min(end + longest, view.tokens)).astype(np.int64)
            self._search(tokens, end - begin)
            self.searched += end - begin

    def _search(self, tokens: NDArray[np.int64], count: int) -> None:
        """Look for stretches that begin at the first `count` of `tokens`."""
        if not len(self._places) or len(tokens) < self.seed:
            return
        hashes = _hashes(tokens, self.seed)[:count]
        low = np.searchsorted(self._hashes, hashes, "left")
        hits = np.flatnonzero(self._hashes[np.minimum(low, len(self._hashes) - 1)] == hashes)
        counts = np.searchsorted(self._hashes, hashes[hits], "right") - low[hits]
        for part in np.array_split(np.arange(len(hits)), -(-int(counts.sum()) // PAIRS) or 1):
            there = np.repeat(hits[part], counts[part])
            within = np.arange(len(there)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
            self._extend(tokens, there, self._places[np.repeat(low[hits[part]], counts[part]) + within])

    def _extend(self, tokens: NDArray[np.int64], there: NDArray[np.int64], here: NDArray[np.int64]) -> None:
        """Follow pairs of places, `there` in the cache and `here` in the texts, as far as the tokens are equal."""
        length = 0
        while len(there):
            fits = there + length < len(tokens)
            there, here = there[fits], here[fits]
            equal = tokens[there + length] == self._all[here + length]
            there, here, length = there[equal], here[equal], length + 1
            if length >= self.seed:
                for place in np.unique(here).tolist():
                    owner = int(self._owner[place])
                    if length > self.longest[owner]:
                        self.longest[owner], self.begins[owner] = length, place - int(self._start[owner])


def _hashes(tokens: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
    """A hash of the `length` tokens from each place on, (len(tokens) - length + 1,); equal stretches, equal hashes."""
    count = len(tokens) - length + 1
    found = np.zeros(max(0, count), np.uint64)
    for place in range(length):
        found = (found ^ tokens[place : place + count].astype(np.uint64)) * MULTIPLIER
        found ^= found >> np.uint64(29)
    return found
