"""A part of a file: what every format makes of its files, and what a person is told of a place in one."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from ingot.data.document import Document, Dropped, Record, unwritable
from ingot.data.formats.stream import HEAD_BYTES, Damage, content, expansion_of, opened, packing, reach

T = TypeVar("T")
PLACED_BYTES = 2**30  # of a file, in which a place is told by its line: to count lines is to read up to there


@dataclass(frozen=True)
class FilePart(ABC):
    """A unit of work: the records of `path` that start in the bytes [begin, end); of a packed file, all."""

    path: Path
    begin: int
    end: int
    field: str = ""  # of a record that holds the text
    separator: str = ""  # between the documents of a text

    @classmethod
    @abstractmethod
    def of(cls, path: Path, separator: str, size: int) -> list[Self]:
        """The parts of one file, in order, of about `size` bytes. Raises UserError for a file that can't be read."""

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Every record of the part, as what it gives or as dropped. Raises UserError for a file that can't be read."""

    @property
    def name(self) -> str:
        """The file's path."""
        return os.fsencode(self.path).decode(errors="replace")  # a file's name can be no text at all

    @property
    def size(self) -> int:
        """Bytes of the file, packed or not, that this part covers."""
        return self.end - self.begin

    def expansion(self) -> float:
        """How many bytes of content a byte of the file holds, judged by its head; 1 where it is not packed."""
        kind = packing(self.path)
        if not kind:
            return 1.0
        with opened(self.path) as file:
            return expansion_of(reach(self.path, lambda: file.read(HEAD_BYTES)), kind)

    def place(self, offset: int) -> str:
        """`path:line` of a byte of the content. It reads up to there: meant for the few places that a report shows."""
        line, left = 1, offset
        if offset > PLACED_BYTES:
            return f"{self.name}, byte {offset}"
        try:
            for block in content(self.path):
                line += block.count(b"\n", 0, left)
                left -= len(block)
                if left <= 0:
                    break
        except (Damage, OSError):
            return f"{self.name}, byte {offset}"
        return f"{self.name}:{line}"


def ranges(path: Path, size: int, each: int) -> list[tuple[int, int]]:
    """The `size` bytes of a file in ranges of `each`; a packed file can only be read from its head, so it is one."""
    if packing(path):
        return [(0, size)]
    return [(begin, min(begin + each, size)) for begin in range(0, size, each)] or [(0, 0)]


def accounted(found: Iterator[T]) -> Iterator[T | Dropped]:
    """What is `found`; where that breaks off, one record more that says so."""
    try:
        yield from found
    except Damage as damage:
        yield Dropped(damage.reason, damage.offset)


def document(text: str, offset: int) -> Document | Dropped:
    """`text` as a document, if it is one."""
    if not text or text.isspace():
        return Dropped("empty", offset)
    if reason := unwritable(text):
        return Dropped(reason, offset)
    return Document(text, offset)
