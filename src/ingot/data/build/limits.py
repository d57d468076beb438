"""How much of a source is taken: its documents from the front, up to an exact document."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingot.data.source import Source


@dataclass(frozen=True)
class Quota:
    """What may still be taken of a source; None: all there is. Duplicates count, as they are found only afterwards."""

    documents: int | None = None  # at most
    bytes: int | None = None  # of text, at most
    tokens: int | None = None  # end tokens among them; the document that reaches the number is the last one

    @classmethod
    def of(cls, source: Source) -> Quota:
        """All that `source` may give."""
        return cls(source.max_documents, source.max_bytes, source.target_tokens)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self != Quota()

    @property
    def spent(self) -> bool:
        """Whether no further document may be taken."""
        return any(left is not None and left <= 0 for left in (self.documents, self.bytes, self.tokens))

    def after(self, documents: int, size: int, tokens: int) -> Quota:
        """What is left once so much was taken."""
        return Quota(_less(self.documents, documents), _less(self.bytes, size), _less(self.tokens, tokens))

    def taken(self, sizes: NDArray[np.int64], tokens: NDArray[np.int64]) -> tuple[int, Quota, bool]:
        """Of the next documents, with so many bytes and tokens each: how many are taken, what is left, if that is all.

        It is all at the document that reaches a limit, and before the one that would exceed `bytes`.
        """
        ends = [len(sizes)]
        if self.documents is not None:
            ends.append(self.documents)
        if self.tokens is not None:
            ends.append(int(np.searchsorted(np.cumsum(tokens), self.tokens)) + 1)
        if self.bytes is not None:
            ends.append(int(np.searchsorted(np.cumsum(sizes), self.bytes, side="right")))
        count = min(ends)
        left = self.after(count, int(sizes[:count].sum()), int(tokens[:count].sum()))
        return count, left, count < len(sizes) or left.spent

    def to_list(self) -> list[int | None]:
        """As JSON holds it: `Quota(*value)` reads it back."""
        return [self.documents, self.bytes, self.tokens]


def _less(left: int | None, used: int) -> int | None:
    return None if left is None else left - used
