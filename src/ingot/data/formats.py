"""How documents lie in files. A file splits into parts, a part holds documents, and each read accounts for every byte.

A part is a range of bytes. A record belongs to the part in which it starts, so the parts of a file tile its records
wherever the ranges are cut, and each part can be read alone by any process.
"""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from ingot.data.document import Document, Dropped
from ingot.errors import UserError

T = TypeVar("T")

# The number of a part decides which documents are held out (source.HeldOut): another size would be another split.
PART_BYTES = 4 * 2**20
READ_BYTES = 2**20
TEXT_FIELDS = ("text", "content", "message", "body", "output")  # in order of preference
SAMPLE_BYTES = 2**18  # how far into a file its text field is looked for


@dataclass(frozen=True)
class FilePart:
    """A unit of work: the records of `path` that start in the bytes [begin, end)."""

    path: Path
    begin: int
    end: int
    field: str = ""  # of a record that holds the text
    separator: str = ""  # between records; empty: the part is one record

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    @property
    def size(self) -> int:
        """Bytes of the file that this part covers."""
        return self.end - self.begin

    def place(self, offset: int) -> str:
        """`path:line` of the byte at `offset`."""
        return place(self.path, offset)


class Format(ABC):
    """How the files of one suffix are split and read."""

    @abstractmethod
    def parts(self, path: Path, field: str, separator: str) -> list[FilePart]:
        """The parts of one file, in order. Raises UserError for a file that can't be read."""

    @abstractmethod
    def read(self, part: FilePart) -> Iterator[Document | Dropped]:
        """Every record of `part` as a document, or as dropped. Raises UserError for a file that can't be read."""


class PlainText(Format):
    """The file is one document, or several with a separator between them."""

    def parts(self, path: Path, field: str, separator: str) -> list[FilePart]:
        """One part for a whole document; ranges of bytes where a separator parts documents."""
        size = file_size(path)
        ranges = _ranges(size) if separator else [(0, size)]
        return [FilePart(path, begin, end, separator=separator) for begin, end in ranges]

    def read(self, part: FilePart) -> Iterator[Document | Dropped]:
        """Text exactly as it stands, line ends included; between separators, nothing but white space is no record."""
        for offset, record in _records(part):
            if part.separator and not record.strip():
                continue
            text = _decode(record, offset)
            yield Document(text, offset) if isinstance(text, str) else text


class JsonLines(Format):
    """One JSON object a line, with the text in one of its fields."""

    def parts(self, path: Path, field: str, separator: str) -> list[FilePart]:
        """Ranges of bytes, with the field named, or found by itself in the first lines."""
        field = field or _find_field(path)
        return [FilePart(path, begin, end, field=field, separator="\n") for begin, end in _ranges(file_size(path))]

    def read(self, part: FilePart) -> Iterator[Document | Dropped]:
        """Blank lines are no records; all other lines are read or dropped."""
        for offset, record in _records(part):
            if not record.strip():
                continue
            line = _decode(record, offset)
            yield _text_of(line, part.field, offset) if isinstance(line, str) else line


FORMATS: dict[str, Format] = {".txt": PlainText(), ".jsonl": JsonLines()}  # one row adds a format


def read(part: FilePart) -> Iterator[Document | Dropped]:
    """Every record of `part`, by the format of its file."""
    return FORMATS[part.path.suffix].read(part)


def place(path: Path, offset: int) -> str:
    """`path:line` of a byte. It reads the file up to there: meant for the few places that a report shows."""
    line, left = 1, offset
    try:
        with path.open("rb") as file:
            while left and (block := file.read(min(READ_BYTES, left))):
                line += block.count(b"\n")
                left -= len(block)
    except OSError:
        return f"{path}, byte {offset}"
    return f"{path}:{line}"


def file_size(path: Path) -> int:
    """Size in bytes. Raises UserError where the file can't be reached."""
    return reach(path, lambda: path.stat().st_size)


def reach(path: Path, action: Callable[[], T]) -> T:
    """What `action` does with the file at `path`. Raises UserError, in one line, for a file that can't be read."""
    try:
        return action()
    except FileNotFoundError:
        mend = "put it back, or run the command again without it"
        raise UserError("this file was listed and is gone now", where=str(path), mend=mend) from None
    except OSError as error:
        mend = "mend the file's rights, or leave it out"
        raise UserError(f"this file can't be read ({error.strerror})", where=str(path), mend=mend) from None


def _ranges(size: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + PART_BYTES, size)) for begin in range(0, size, PART_BYTES)] or [(0, 0)]


def _records(part: FilePart) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of each record that starts in `part`."""
    separator = part.separator.encode()
    with reach(part.path, lambda: part.path.open("rb")) as file:
        if not separator:
            yield 0, file.read()
            return
        offset = _record_start(file, part.begin, separator)
        left = _record_start(file, part.end, separator) - offset
        file.seek(offset)
        rest = b""
        # Reading as much again as is unfinished keeps the cost of a long record linear.
        while left > 0 and (block := file.read(min(max(READ_BYTES, len(rest)), left))):
            left -= len(block)
            *records, rest = (rest + block).split(separator)
            for record in records:
                yield offset, record
                offset += len(record) + len(separator)
        if rest:
            yield offset, rest


def _record_start(file: IO[bytes], position: int, separator: bytes) -> int:
    """The first start of a record at or after `position`: 0, behind a separator, or the end of the file."""
    if position == 0:
        return 0
    at = max(0, position - len(separator))
    file.seek(at)
    window = b""
    while block := file.read(READ_BYTES):
        window += block
        if (found := window.find(separator)) >= 0:
            return at + found + len(separator)
        keep = len(separator) - 1  # a separator may lie across two blocks
        at += len(window) - keep
        window = window[len(window) - keep :]
    return file.tell()


def _decode(record: bytes, offset: int) -> str | Dropped:
    """The text of a record; a byte-order mark at the head of a file is no text."""
    if offset == 0:
        record = record.removeprefix(codecs.BOM_UTF8)
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError as error:
        return Dropped("invalid UTF-8", offset + error.start)
    return text if text and not text.isspace() else Dropped("empty", offset)


def _text_of(line: str, field: str, offset: int) -> Document | Dropped:
    """The document in one line of JSON."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return Dropped("not JSON", offset)
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        return Dropped(f"no text in the field {field!r}", offset)
    if not text or text.isspace():
        return Dropped("empty", offset)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # JSON can spell what UTF-8 can't: "\ud800"
        return Dropped("half a surrogate pair", offset)
    return Document(text, offset)


def _find_field(path: Path) -> str:
    """The field that holds the text of the most lines at the head of the file, the preferred one among equals.

    Raises UserError where there are records and none has such a field. A head without any record settles for the
    most preferred one: reading will say what is wrong with each line.
    """
    found: Counter[str] = Counter()
    known: Counter[str] = Counter()
    for _, line in _records(FilePart(path, 0, min(SAMPLE_BYTES, file_size(path)), separator="\n")):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            known.update(record)
            found.update(name for name in TEXT_FIELDS if isinstance(record.get(name), str))
    if known and not found:
        names = ", ".join(sorted(known)[:8])
        what = f"no text field was found (looked for {', '.join(TEXT_FIELDS)}); the records have: {names}"
        raise UserError(what, where=str(path), mend="name the one that holds the text: field=…")
    return max(TEXT_FIELDS, key=lambda name: found[name])
