"""The token cache as it is read: one stream of tokens over memory-mapped shards, and where its documents start.

A folder `cache/<fingerprint>/`, complete once `index.json` is there, holds for each of the views `train` and
`held_out`: shards `<view>-00000.bin` (little-endian uint16 or uint32), beside those with conversations
`<view>-00000.mask` (a byte for each token, 1 where it is a target with loss), and `<view>.starts` (little-endian
int64). `report.json` says what went into it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from ingot.errors import UserError

INDEX, REPORT = "index.json", "report.json"
OPEN_SHARDS = 64  # each open map holds a file handle, of which a process has about a thousand
PIECE = 2**22  # bytes that are read at once to verify a file
View = Literal["train", "held_out"]
VIEWS: tuple[View, ...] = ("train", "held_out")


@dataclass(frozen=True)
class Shard:
    """One file of tokens, and what it holds."""

    file: str
    source: int  # index of the source that its documents come from
    tokens: int = 0
    documents: int = 0
    bytes: int = 0  # of text
    digest: str = ""  # xxh3_128 of the file
    mask: str = ""  # and of the mask beside it; empty: there is none, and all tokens are targets with loss

    @property
    def files(self) -> tuple[str, ...]:
        """Its name, and that of its mask if it has one."""
        return (self.file, mask_file(self.file)) if self.mask else (self.file,)


def mask_file(shard: str) -> str:
    """The name of the mask beside the shard of that name."""
    return str(Path(shard).with_suffix(".mask"))


class TokenView:
    """A stream of tokens, each document led by the end token; read by place, never held in memory as a whole."""

    def __init__(
        self, folder: Path, shards: Sequence[Shard], starts: NDArray[np.int64], dtype: str, starts_from: int = 0
    ):
        """`starts`: where each document's leading end token is, ascending; of this stream's first token: `starts_from`.

        The documents of a part of a stream thus need no list of their own.
        """
        self.documents = len(starts)
        self.tokens = sum(shard.tokens for shard in shards)
        self.bytes = sum(shard.bytes for shard in shards)  # of text
        self._folder, self._shards, self._dtype = folder, list(shards), dtype
        self._starts, self._starts_from = starts, starts_from
        self._begins = list(accumulate((shard.tokens for shard in shards), initial=0))
        self._ends = self._begins[1:]

        @lru_cache(OPEN_SHARDS)
        def open_file(name: str, kind: str) -> NDArray[Any]:
            return np.asarray(np.memmap(folder / name, dtype=kind, mode="r"))  # whose slices cost less

        self._open = open_file

    @property
    def starts(self) -> NDArray[np.int64]:
        """The place of each document's leading end token, (documents,), ascending."""
        return self._starts - self._starts_from if self._starts_from else self._starts

    @cached_property
    def masked(self) -> bool:
        """Whether some tokens are no targets: whether there are conversations."""
        return any(shard.mask for shard in self._shards)

    def of(self, source: int) -> TokenView:
        """The documents of one source alone, as a stream of its own."""
        own = [place for place, shard in enumerate(self._shards) if shard.source == source]  # one behind the other
        begin, end = (self._begins[own[0]], self._ends[own[-1]]) if own else (0, 0)
        begin, end = begin + self._starts_from, end + self._starts_from
        low, high = np.searchsorted(self._starts, [begin, end]).tolist()
        shards = [self._shards[place] for place in own]
        return TokenView(self._folder, shards, self._starts[low:high], self._dtype, begin)

    def read(self, begin: int, end: int) -> NDArray[Any]:
        """The tokens [begin, end) as an array of their own; shorter where the stream ends."""
        pieces = [self._open(shard.file, self._dtype)[own] for shard, own in self._within(begin, end)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)

    def mask(self, begin: int, end: int) -> NDArray[np.bool_] | None:
        """Which of the tokens [begin, end) are targets with loss; None where all tokens of the stream are."""
        if not self.masked:
            return None
        pieces = [np.zeros(0, bool)]
        for shard, own in self._within(begin, end):
            whole = np.ones(own.stop - own.start, bool)
            pieces.append(self._open(mask_file(shard.file), "?")[own] if shard.mask else whole)
        return np.concatenate(pieces)

    def starts_within(self, begin: int, end: int) -> NDArray[np.int64]:
        """The places in [begin, end) at which a document starts."""
        low, high = np.searchsorted(self._starts, [begin + self._starts_from, end + self._starts_from])
        return self._starts[low:high] - self._starts_from

    def _within(self, begin: int, end: int) -> Iterator[tuple[Shard, slice]]:
        """The shards that [begin, end) lies in, each with the part of it that does."""
        end = min(end, self.tokens)
        if begin >= end:
            return
        for place in range(bisect_right(self._ends, begin), bisect_right(self._ends, end - 1) + 1):
            offset, shard = self._begins[place], self._shards[place]
            yield shard, slice(max(0, begin - offset), min(end - offset, shard.tokens))


class TokenCache:
    """A complete token cache. `sources`: name and identity of each, in the order of the recipe."""

    def __init__(self, folder: Path, index: dict[str, Any]):
        self.folder = folder
        self.fingerprint: str = folder.name
        self.sources: list[dict[str, Any]] = index["sources"]
        self._index = index
        self._shards = {view: [Shard(**shard) for shard in index["shards"][view]] for view in VIEWS}
        self.train = self._view("train")
        self.held_out = self._view("held_out")

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether a complete cache lies there."""
        return (folder / INDEX).is_file()

    @classmethod
    def open(cls, folder: Path) -> TokenCache:
        """The cache in `folder`, its files all there and of the right size. Raises UserError where it is not whole."""
        try:
            cache = cls(folder, json.loads((folder / INDEX).read_bytes()))
            whole = all((folder / name).stat().st_size == size for name, size, _ in cache._files())
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise _damaged("this token cache is not whole", folder)
        return cache

    @cached_property
    def report(self) -> dict[str, Any]:
        """What went into the cache: documents, bytes, tokens, by view and by source, and what was dropped."""
        try:
            return dict(json.loads((self.folder / REPORT).read_bytes()))
        except (OSError, ValueError):
            raise _damaged("the report of this token cache can't be read", self.folder) from None

    def verify(self) -> None:
        """Read every file and compare it with the digest it was written with. Raises UserError for a difference."""
        for name, _, digest in self._files():
            found = xxhash.xxh3_128()
            with (self.folder / name).open("rb") as file:
                while piece := file.read(PIECE):
                    found.update(piece)
            if found.hexdigest() != digest:
                raise _damaged(f"the bytes of {name} are not those that were written", self.folder)

    def _files(self) -> Iterator[tuple[str, int, str]]:
        """Name, size and digest of each file beside the index and the report."""
        width = np.dtype(self._index["dtype"]).itemsize
        for view in VIEWS:
            documents = sum(shard.documents for shard in self._shards[view])
            yield f"{view}.starts", 8 * documents, self._index["starts"][view]
            for shard in self._shards[view]:
                yield shard.file, shard.tokens * width, shard.digest
                if shard.mask:
                    yield mask_file(shard.file), shard.tokens, shard.mask

    def _view(self, view: View) -> TokenView:
        file = self.folder / f"{view}.starts"
        starts = np.memmap(file, dtype="<i8", mode="r") if file.stat().st_size else np.zeros(0, np.int64)
        return TokenView(self.folder, self._shards[view], starts, self._index["dtype"])


def _damaged(what: str, folder: Path) -> UserError:
    return UserError(what, where=str(folder), mend="remove the folder and run the command again")
