"""How documents lie in files. A file splits into parts, a part holds records, and each read accounts for all of it.

A part is a range of bytes. A record belongs to the part in which it starts, so the parts of a file tile its records
wherever the ranges are cut, and each part can be read alone by any process. Where a file is damaged, what is whole
before it is read, and one record more is dropped and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ingot.data.document import Record
from ingot.data.formats.lines import JsonLines
from ingot.data.formats.parquet import Parquet
from ingot.data.formats.part import FilePart
from ingot.data.formats.separated import Separated
from ingot.data.formats.stream import PACKINGS, packing, reach
from ingot.data.formats.table import Row, Table
from ingot.data.formats.text import Text
from ingot.data.formats.tree import json_parts
from ingot.errors import UserError

__all__ = ["FORMATS", "FilePart", "Row", "Table", "known", "parts", "reach", "read", "readable"]

# The number of a part decides which documents are held out (source.HeldOut): another size would be another split.
PART_BYTES = 4 * 2**20

# How the files of each suffix, plain or packed, are cut into parts; one row adds a format.
FORMATS: dict[str, Callable[[Path, str, int], Sequence[FilePart]]] = {
    ".txt": Text.of,
    ".jsonl": JsonLines.of,
    ".ndjson": JsonLines.of,
    ".json": json_parts,
    ".csv": Separated.of,
    ".tsv": Separated.of,
    ".parquet": Parquet.of,
}


def known() -> str:
    """The files that can be read, for a message."""
    *names, last = FORMATS
    return f"{', '.join(names)} or {last}, also packed as {' or '.join(PACKINGS)}"


def readable(path: Path | str) -> bool:
    """Whether a file of this name can be read."""
    return _suffix(Path(path)) in FORMATS


def parts(path: Path, field: str = "", separator: str = "", *, conversations: bool = False) -> list[FilePart]:
    """The parts of one file, in order; the field of the text named, or found by itself, where its records have fields.

    With `conversations`, what these are made of is found instead. Raises UserError for a file that can't be read, or
    has no such field.
    """
    if not readable(path):
        raise UserError(f"files of the kind {path.suffix!r} are not read", where=str(path), mend=f"give {known()}")
    found = FORMATS[_suffix(path)](path, separator, PART_BYTES)
    if isinstance(found[0], Table):
        field = found[0].shape(field) if conversations else found[0].text_field(field)
        return [replace(part, field=field) for part in found]
    if conversations:
        raise UserError("a plain text holds no conversations", where=str(path), mend="give records, such as .jsonl")
    return [*found]


def read(part: FilePart) -> Iterator[Record]:
    """Every record of `part`, by the format of its file."""
    return part.records()


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if packing(path) else path).suffix.lower()
