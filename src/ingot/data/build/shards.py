"""One shard of tokens on its way to the disk, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ingot.data.build.plan import Group
from ingot.data.cache import VIEWS, Shard, View
from ingot.files import disk_errors, new_file

MASK = "mask"
MASK_PIECE = 2**20  # tokens whose mask is filled in at once


class ShardWriter:
    """Writes `<stem>.bin`, `<stem>.starts` and, from the first piece that has one on, `<stem>.mask`.

    `shard` says what was written so far. Without any piece there is no file.
    """

    def __init__(self, stem: Path, source: int, files: ExitStack, flushed: bool):
        self.shard = Shard(f"{stem.name}.bin", source)
        self._stem, self._files, self._flushed = stem, files, flushed
        self._open: dict[str, IO[bytes]] = {}
        self._tokens, self._mask = xxhash.xxh3_128(), xxhash.xxh3_128()

    def put(
        self, tokens: NDArray[Any], lengths: NDArray[np.int64], size: int, mask: NDArray[np.bool_] | None = None
    ) -> None:
        """Append whole documents: their tokens, how many each has, and how many bytes of text they all have.

        `mask`: which tokens are targets with loss; None: all of them.
        """
        if not len(lengths):
            return
        begin = self.shard.tokens
        self._write("starts", (begin + np.cumsum(lengths) - lengths).astype("<i8"))
        content = self._write("bin", tokens)
        self._tokens.update(content)
        if mask is not None or self.shard.mask:
            self._put_mask(begin, np.ones(len(tokens), bool) if mask is None else mask)
        self.shard = replace(
            self.shard,
            tokens=begin + len(tokens),
            documents=self.shard.documents + len(lengths),
            bytes=self.shard.bytes + size,
            digest=self._tokens.hexdigest(),
            mask=self._mask.hexdigest() if MASK in self._open else "",
        )

    def _put_mask(self, begin: int, mask: NDArray[np.bool_]) -> None:
        if MASK not in self._open:  # all that came before are targets
            for place in range(0, begin, MASK_PIECE):
                self._mask.update(self._write(MASK, np.ones(min(MASK_PIECE, begin - place), np.uint8)))
        self._mask.update(self._write(MASK, mask.astype(np.uint8)))

    def _write(self, suffix: str, values: NDArray[Any]) -> memoryview:
        path = self._stem.with_name(f"{self._stem.name}.{suffix}")
        if suffix not in self._open:
            self._open[suffix] = self._files.enter_context(new_file(path, flushed=self._flushed))
        content = np.ascontiguousarray(values).data.cast("B")
        with disk_errors(path):
            self._open[suffix].write(content)
        return content


@contextmanager
def shard_writers(folder: Path, group: Group, *, flushed: bool) -> Iterator[dict[View, ShardWriter]]:
    """A writer of each view's shard of `group`; the files are there once the block has ended well."""
    with ExitStack() as files:
        yield {view: ShardWriter(folder / f"{view}-{group.name}", group.source, files, flushed) for view in VIEWS}
