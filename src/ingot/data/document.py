"""What a source gives: parts, which any process can read alone, and the records in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Part(Protocol):
    """A unit of work: some records of a source, read by one process. Small, and sent to other processes."""

    @property
    def name(self) -> str:
        """The file, or what stands for one, in messages."""

    @property
    def size(self) -> int:
        """Bytes that the part covers, packed or not, as far as they are known beforehand."""

    def expansion(self) -> float:
        """How many bytes of content a byte of `size` stands for, as far as a look at the head can tell."""

    def place(self, offset: int) -> str:
        """Where the record at `offset` stands, for a person: `file:line`."""


@dataclass(frozen=True)
class Document:
    """A text that UTF-8 can hold, not empty. `offset` is its place in the part, such as the byte it starts at."""

    text: str
    offset: int


@dataclass(frozen=True)
class Message:
    """What one side of a conversation says: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """Messages in turn, the last one the assistant's; texts that UTF-8 can hold."""

    messages: tuple[Message, ...]
    offset: int
    cut: int = 0  # messages behind the assistant's last one, which no answer follows: left out


@dataclass(frozen=True)
class Dropped:
    """A record that gave no document, or several that were lost together, and why."""

    reason: str
    offset: int
    records: int = 1


Record = Document | Conversation | Dropped


def unwritable(text: str) -> str:
    """Why UTF-8 can't hold `text`; empty where it can."""
    if text.isascii():
        return ""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON can spell what UTF-8 can't, "\ud800"; and bytes that are no UTF-8 were read as U+DC80 to U+DCFF.
        escaped = "\udc80" <= text[error.start] <= "\udcff"
        return "invalid UTF-8" if escaped else "half a surrogate pair"
    return ""
