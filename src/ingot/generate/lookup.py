"""Guesses of what comes next: what followed the same words the last time (Saxena, 2023, prompt lookup decoding)."""

from __future__ import annotations

from collections.abc import Sequence

SHORTEST, LONGEST = 2, 3  # tokens that must have come before in the same order


class Lookup:
    """Remembers where each short run of tokens was last followed by something."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._read = 0

    def guess(self, ids: Sequence[int], count: int) -> list[int]:
        """At most `count` tokens that followed the end of `ids` when it came last before; `ids` only ever grows."""
        for end in range(max(self._read, SHORTEST), len(ids)):
            for length in range(SHORTEST, min(LONGEST, end) + 1):
                self._after[tuple(ids[end - length : end])] = end
        self._read = max(self._read, len(ids))
        for length in range(min(LONGEST, len(ids)), SHORTEST - 1, -1):
            place = self._after.get(tuple(ids[-length:]))
            if place is not None:
                return list(ids[place : place + count])
        return []
