"""Formats whose records have fields: the field that holds the text, and what a record gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

from ingot.data.conversations import LISTS, as_record, recognise
from ingot.data.document import Dropped, Record
from ingot.data.formats.part import FilePart, accounted, document
from ingot.errors import UserError

TEXT_FIELDS = ("text", "content", "message", "body", "output")  # in order of preference
SAMPLE_ROWS, SAMPLE_BYTES = 100, 2**17  # of a file, in which its text field is looked for


@dataclass(frozen=True)
class Row:
    """A record as it was read: a mapping of its fields, or whatever stands where one should be."""

    fields: Any
    offset: int


class Rows(ABC):
    """A part whose records have fields; one of them, `field`, holds a text, or makes a conversation."""

    field: str

    @property
    @abstractmethod
    def name(self) -> str:
        """The part in messages."""

    @abstractmethod
    def found(self) -> Iterator[Row | Dropped]:
        """Every record that can be reached; a format's own part of `rows`. Raises Damage where it breaks off."""

    def rows(self) -> Iterator[Row | Dropped]:
        """Every record with all its fields, or as dropped. Raises UserError for a file that can't be read."""
        return accounted(self.found())

    def records(self) -> Iterator[Record]:
        """Every record as the text or the conversation in its field `field`, or as dropped."""
        give = _spoken if self.field in LISTS or "+" in self.field else _written
        for row in self.rows():
            yield row if isinstance(row, Dropped) else give(row, self.field)

    def text_field(self, named: str = "") -> str:
        """`named`, or the field that holds the text of the most records at the head, the preferred one among equals.

        Without any such field, the one, or several joined by `+`, that make conversations of the most. Raises
        UserError where there are records and none has either, or the one that is named. A head without any record
        settles for the most preferred field: reading will say what is wrong with each record.
        """
        head = self._head()
        if named:
            return self._had(named, head)
        texts = Counter(name for row in head for name in TEXT_FIELDS if _says_something(row.get(name)))
        if texts or not any(head):
            return max(TEXT_FIELDS, key=lambda name: texts[name])
        if shape := _shape(head):
            return shape
        what = f"no text field was found (looked for {', '.join((*TEXT_FIELDS, *LISTS[:2]))}); {_names(head)}"
        raise UserError(what, where=self.name, mend="name the one that holds the text: field=…")

    def shape(self, named: str = "") -> str:
        """`named`, or the field or fields that make conversations of the most records at the head, by `recognise`.

        Raises UserError where there are records and none of them is a conversation, or has the field that is named.
        """
        head = self._head()
        if named:
            return self._had(named, head)
        if (shape := _shape(head)) or not any(head):
            return shape or LISTS[0]
        what = f"no conversations were found (looked for {', '.join(LISTS)} and pairs such as question+answer)"
        mend = "name the field that holds the messages, field=…, or those of request and answer, field=…+…"
        raise UserError(f"{what}; {_names(head)}", where=self.name, mend=mend)

    def _had(self, named: str, head: Sequence[dict[str, Any]]) -> str:
        """The field `named`, or several joined by `+`, once some record was seen to have them, or none was seen."""
        if any(head) and not any(all(name in row for name in named.split("+")) for row in head):
            raise UserError(f"no record has the field {named!r}", where=self.name, mend=f"{_names(head)}")
        return named

    def _head(self) -> list[dict[str, Any]]:
        """The first records that have fields."""
        rows = takewhile(lambda row: row.offset <= SAMPLE_BYTES, islice(self.rows(), SAMPLE_ROWS))
        return [row.fields for row in rows if isinstance(row, Row) and isinstance(row.fields, dict)]


class Table(Rows, FilePart):
    """A part of a file on this machine whose records have fields."""

    name = FilePart.name


def _written(row: Row, field: str) -> Record:
    """The text in the field of a record."""
    text = row.fields.get(field) if isinstance(row.fields, dict) else None
    if not isinstance(text, str):
        return Dropped(f"no text in the field {field!r}", row.offset)
    return document(text, row.offset)


def _spoken(row: Row, field: str) -> Record:
    """The conversation in a record; where its field holds a text after all, that. A csv file spells a list as JSON."""
    text = row.fields.get(field) if isinstance(row.fields, dict) else None
    if isinstance(text, str) and not text.lstrip().startswith("["):
        return document(text, row.offset)
    return as_record(row.fields, row.offset, field)


def _shape(head: Sequence[dict[str, Any]]) -> str:
    shapes = Counter(filter(None, map(recognise, head)))
    return shapes.most_common(1)[0][0] if shapes else ""


def _names(head: Sequence[dict[str, Any]]) -> str:
    return f"the records have: {', '.join(sorted({str(name) for row in head for name in row})[:8])}"


def _says_something(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and not value.isspace()
