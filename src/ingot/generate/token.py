"""What a model wrote: one token of a request, and a whole text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal["end", "stop", "length", "context"]
LONG_WORD = 40  # characters without a space that are taken for more than one word
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # stands for the bytes of a character that was cut short


@dataclass(frozen=True)
class Token:
    """One more token of one request; `reason` is set on the request's last."""

    request: int
    id: int
    reason: Reason | None = None
    logprob: float | None = None
    """natural logarithm of the token's probability under the model alone: no penalty, bias, temperature or cut"""
    alternatives: tuple[tuple[int, float], ...] = ()
    """ids and log-probabilities of the likeliest tokens in this place, the likeliest first"""


@dataclass(frozen=True)
class Generation:
    """What a model wrote after a prompt. `ids` leaves out the end token; `text` ends before a stop string."""

    prompt: str
    text: str
    ids: tuple[int, ...]
    reason: Reason
    """it ended the text itself, came to a stop string, wrote max_new_tokens, or filled its context"""
    tokens: tuple[Token, ...] = ()
    """all that was made, the end token too, with log-probabilities where they were asked for"""

    @property
    def excerpt(self) -> str:
        """Prompt and text in one line, to the last whole word and with an ellipsis where the model was cut short."""
        written = self.prompt + self.text
        line = " ".join(written.split())
        if self.reason in ("end", "stop"):
            return line
        head, _, word = line.rpartition(" ")
        cut = head and written[-1].isalnum() and len(word) < LONG_WORD  # a script may do without spaces
        return f"{head if cut else line.rstrip(UNFINISHED)} …"
