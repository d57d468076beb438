"""The token cache as it is read: one stream of tokens over memory-mapped shards, and where its documents start.

A folder `cache/<fingerprint>/`, complete once `index.json` is there, holds for each of the views `train` and
`held_out`: shards `<view>-00000.bin` (little-endian uint16 or uint32) and `<view>.starts` (little-endian int64).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ingot.errors import UserError

INDEX = "index.json"
OPEN_SHARDS = 64  # each open map holds a file handle, of which a process has about a thousand
View = Literal["train", "held_out"]
VIEWS: tuple[View, ...] = ("train", "held_out")


@dataclass(frozen=True)
class Shard:
    """One file of tokens, and what it holds."""

    file: str
    source: int  # index of the source that its documents come from
    tokens: int
    documents: int
    bytes: int  # of text
    sha256: str


class TokenView:
    """A stream of tokens, each document led by the end token; read by place, never held in memory as a whole."""

    def __init__(self, folder: Path, shards: Sequence[Shard], starts: NDArray[np.int64], dtype: str):
        self.starts = starts  # (documents,): the place of each document's leading end token, ascending
        self.documents = len(starts)
        self.tokens = sum(shard.tokens for shard in shards)
        self.bytes = sum(shard.bytes for shard in shards)  # of text
        self._ends = np.cumsum([shard.tokens for shard in shards], dtype=np.int64)
        self._begins = self._ends - [shard.tokens for shard in shards]

        @lru_cache(OPEN_SHARDS)
        def tokens_of(shard: int) -> NDArray[Any]:
            return np.memmap(folder / shards[shard].file, dtype=dtype, mode="r")

        self._tokens_of = tokens_of

    def read(self, begin: int, end: int) -> NDArray[Any]:
        """The tokens [begin, end) as an array of their own; shorter where the stream ends."""
        end = min(end, self.tokens)
        if begin >= end:
            return np.zeros(0, np.int64)
        first, last = np.searchsorted(self._ends, [begin, end - 1], side="right").tolist()
        pieces = [
            self._tokens_of(shard)[max(0, begin - self._begins[shard]) : end - self._begins[shard]]
            for shard in range(first, last + 1)
        ]
        return np.concatenate(pieces)

    def starts_within(self, begin: int, end: int) -> NDArray[np.int64]:
        """The places in [begin, end) at which a document starts."""
        low, high = np.searchsorted(self.starts, [begin, end])
        return self.starts[low:high]


class TokenCache:
    """A complete token cache. `report` says what went into it: documents, bytes, tokens, and what was dropped."""

    def __init__(self, folder: Path, index: dict[str, Any]):
        self.folder = folder
        self.fingerprint: str = folder.name
        self.report: dict[str, Any] = index["report"]
        self._shards = {view: [Shard(**shard) for shard in index["shards"][view]] for view in VIEWS}
        self.train = self._view("train", index["dtype"])
        self.held_out = self._view("held_out", index["dtype"])

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether a complete cache lies there."""
        return (folder / INDEX).is_file()

    @classmethod
    def open(cls, folder: Path) -> TokenCache:
        """The cache in `folder`. Raises UserError where it is not whole."""
        try:
            cache = cls(folder, json.loads((folder / INDEX).read_bytes()))
            whole = all((folder / shard.file).stat().st_size == size for shard, size in cache._sizes())
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            mend = "remove the folder and run the command again"
            raise UserError("this token cache is not whole", where=str(folder), mend=mend)
        return cache

    def _sizes(self) -> list[tuple[Shard, int]]:
        width = self._width
        return [(shard, shard.tokens * width) for view in VIEWS for shard in self._shards[view]]

    def _view(self, view: View, dtype: str) -> TokenView:
        self._width = np.dtype(dtype).itemsize
        file = self.folder / f"{view}.starts"
        starts = np.memmap(file, dtype="<i8", mode="r") if file.stat().st_size else np.zeros(0, np.int64)
        return TokenView(self.folder, self._shards[view], starts, dtype)
