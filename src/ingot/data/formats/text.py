"""Plain text: a file is one document, or several with a separator between them."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ingot.data.document import Document, Dropped
from ingot.data.formats.cuts import pieces, records
from ingot.data.formats.part import FilePart, accounted, document, ranges
from ingot.data.formats.stream import file_size

PIECE_BYTES = 16 * 2**20  # a text of a gigabyte is no document that anything could hold or hold out


class Text(FilePart):
    """A file is one document, one of more than 16 MiB several, cut at line ends; or a separator parts documents."""

    @classmethod
    def of(cls, path: Path, separator: str, size: int) -> list[Self]:
        """A part for each piece of a whole text; ranges of bytes where a separator parts documents."""
        cut = ranges(path, file_size(path), size if separator else PIECE_BYTES)
        return [cls(path, begin, end, separator=separator) for begin, end in cut]

    def records(self) -> Iterator[Document | Dropped]:
        """Text exactly as it stands, line ends included; between separators, nothing but white space is no record."""
        return accounted(self._records())

    def _records(self) -> Iterator[Document | Dropped]:
        separator = self.separator.encode()
        found = (
            records(self.path, self.begin, self.end, separator)
            if separator
            else pieces(self.path, self.begin, self.end, PIECE_BYTES)
        )
        for offset, record in found:
            if separator and not record.strip():
                continue
            if offset == 0:
                record = record.removeprefix(codecs.BOM_UTF8)
            try:
                text = record.decode()
            except UnicodeDecodeError as error:
                yield Dropped("invalid UTF-8", offset + error.start)
            else:
                yield document(text, offset)
