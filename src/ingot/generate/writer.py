"""The tokens of one request as text, in whole characters, up to a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from ingot.generate.token import Reason, Token
from ingot.tokenizer.tokenizer import Tokenizer


class Writer:
    """Turns tokens into text piece by piece. What may be the beginning of a stop string, or of a character, is held
    back until the next token tells; whatever the pieces, together they are `text`."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        self._tokenizer, self._stops = tokenizer, tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._pieces: list[str] = []
        self.finished: Reason | None = None
        """why the text has ended; none: it goes on"""

    @property
    def text(self) -> str:
        """All that was written so far."""
        return "".join(self._pieces)

    def push(self, token: Token) -> str:
        """The text that this token makes sure of, perhaps none; nothing after the end of the text."""
        if self.finished:
            return ""
        self.finished = token.reason
        spelling = b"" if token.reason == "end" else self._tokenizer.decode_bytes([token.id])
        self._held += self._decoder.decode(spelling, final=token.reason is not None)
        found = [place for place in map(self._held.find, self._stops) if place >= 0]
        if found:
            self.finished, cut = "stop", min(found)
            piece, self._held = self._held[:cut], ""
        else:
            cut = len(self._held) - (0 if token.reason else self._doubtful())
            piece, self._held = self._held[:cut], self._held[cut:]
        if piece:
            self._pieces.append(piece)
        return piece

    def _doubtful(self) -> int:
        """Characters at the end of what is held that a stop string may begin with."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for count in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-count:]
            if any(stop.startswith(end) for stop in self._stops):
                return count
        return 0
