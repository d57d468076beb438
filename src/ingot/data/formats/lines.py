"""JSON lines: one object a line, with the text in one of its fields."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import orjson

from ingot.data.document import Dropped
from ingot.data.formats.cuts import records
from ingot.data.formats.part import ranges
from ingot.data.formats.stream import file_size
from ingot.data.formats.table import Row, Table

ORJSON_BYTES = 2**20  # of a line, at most: it takes twelve times as much memory while it reads


class JsonLines(Table):
    """One JSON object a line. Blank lines are no records; all other lines are read or dropped."""

    @classmethod
    def of(cls, path: Path, separator: str, size: int) -> list[Self]:
        """Ranges of bytes."""
        return [cls(path, begin, end) for begin, end in ranges(path, file_size(path), size)]

    def found(self) -> Iterator[Row | Dropped]:
        """Every line that is not blank."""
        for offset, line in records(self.path, self.begin, self.end, b"\n"):
            if found := row(line, offset):
                yield found


def row(line: bytes, offset: int) -> Row | Dropped | None:
    """What one line of JSON holds; None: it is blank, and no record. A byte-order mark at the head is no text."""
    if offset == 0:
        line = line.removeprefix(codecs.BOM_UTF8)
    if not line or line.isspace():
        return None
    try:
        return Row(orjson.loads(line), offset) if len(line) <= ORJSON_BYTES else _patiently(line, offset)
    except orjson.JSONDecodeError:
        return _patiently(line, offset)


def _patiently(line: bytes, offset: int) -> Row | Dropped:
    """Python reads what orjson refuses, such as NaN or half a surrogate pair in a field that no one asks for."""
    try:
        return Row(json.loads(line.decode()), offset)
    except UnicodeDecodeError as error:
        return Dropped("invalid UTF-8", offset + error.start)
    except (ValueError, RecursionError):
        return Dropped("not JSON", offset)
