"""Comma-separated values (RFC 4180, and the lenient rest of the world): a header, then a record a row."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Self

from ingot.data.document import Dropped
from ingot.data.formats.cuts import split
from ingot.data.formats.stream import CUT, Damage, content, file_size
from ingot.data.formats.table import Row, Table

FIELD_CHARACTERS = 2**26  # in one field; more is a quote that nothing closes
DELIMITERS = ",;\t"
NOT_CSV = "not CSV"


class Separated(Table):
    """Rows below a header that names their fields, between commas, semicolons or tabs, whichever it has most of.

    Quotes decide where a row ends, so a file can only be read from its head: it is one part. A row with more or fewer
    fields than the header is dropped, since nobody can tell what it lost.
    """

    @classmethod
    def of(cls, path: Path, separator: str, size: int) -> list[Self]:
        """One part."""
        return [cls(path, 0, file_size(path))]

    def found(self) -> Iterator[Row | Dropped]:
        """Every row below the header that is not blank."""
        found = split(content(self.path), b"\n")
        first = next(found, (0, b""))
        lines = _Lines(chain([first], found))
        # The limit belongs to the process. The module's own, 128 kB, is less than many a document has.
        csv.field_size_limit(FIELD_CHARACTERS)
        rows = csv.reader(lines, delimiter=max(DELIMITERS, key=first[1].decode(errors="replace").count))
        header: list[str] = []
        while True:
            begin = lines.position
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error:
                if not header:
                    raise Damage(NOT_CSV, begin) from None
                yield Dropped(NOT_CSV, begin)
                continue
            except Damage as damage:
                raise Damage(damage.reason, begin) from None
            if lines.ended:  # within a row, in quotes that nothing closes
                raise Damage(CUT, begin)
            if not row:
                continue
            if not header:
                header = row
            elif len(row) == len(header):
                yield Row(dict(zip(header, row, strict=True)), begin)
            else:
                yield Dropped("more or fewer fields than the header has", begin)


class _Lines(Iterator[str]):
    """Lines as the csv module asks for them, one at a time, and how far it has come."""

    def __init__(self, lines: Iterator[tuple[int, bytes]]):
        self._lines = lines
        self.position = 0  # byte at which the next line starts
        self.ended = False

    def __next__(self) -> str:
        try:
            offset, line = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.position = offset + len(line) + 1
        if offset == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        return line.decode(errors="surrogateescape") + "\n"  # `document` names what is no UTF-8
