"""A `.json` file: one list of records, one mapping whose values are records, or after all JSON lines.

A list or a mapping is read value by value as its text comes in, so it is never in memory as a whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from ingot.data.document import Dropped
from ingot.data.formats.lines import JsonLines
from ingot.data.formats.part import FilePart
from ingot.data.formats.stream import CUT, Damage, content, file_size
from ingot.data.formats.table import Row, Table

HEAD_BYTES = 2**17  # of a file, in which it is seen how its records lie
NOT_JSON = "not JSON"
_SPACE = re.compile("[ \t\n\r\ufeff]*")
_UNFINISHED = 16  # characters: what is wrong so near to the end may be a word or an escape that is not all there
_DECODER = json.JSONDecoder()


def json_parts(path: Path, separator: str, size: int) -> list[FilePart]:
    """The parts of a `.json` file. Raises UserError for a file that can't be read."""
    return [*(JsonLines if _is_lines(path) else JsonTree).of(path, separator, size)]


class JsonTree(Table):
    """One list, or one mapping, of records. What is behind a mistake in it can't be told apart: it is one record."""

    @classmethod
    def of(cls, path: Path, separator: str, size: int) -> list[Self]:
        """One part: where a record starts can only be told from the head."""
        return [cls(path, 0, file_size(path))]

    def found(self) -> Iterator[Row | Dropped]:
        """Every value of the list or mapping."""
        scan = _Scan(content(self.path))
        opening = scan.peek()
        if not opening:
            return
        if opening not in "[{":
            raise Damage(NOT_JSON, scan.offset)
        closing = {"[": "]", "{": "}"}[opening]
        scan.take(opening)
        while scan.peek() != closing:
            begin = scan.offset
            try:
                if opening == "{":
                    scan.value()
                    scan.take(":")
                value = scan.value()
            except Damage as damage:
                raise Damage(damage.reason, begin) from None
            yield Row(value, begin)
            if scan.peek() != closing:
                scan.take(",")
        scan.take(closing)
        if scan.peek():
            raise Damage(NOT_JSON, scan.offset)


def _is_lines(path: Path) -> bool:
    """Whether the file holds JSON lines: its first object holds something else than records, or is not the only one."""
    scan = _Scan(_head(path))
    try:
        if scan.peek() != "{":
            return scan.peek() not in ("[", "")
        scan.take("{")
        while scan.peek() != "}":
            scan.value()
            scan.take(":")
            if scan.peek() not in ("{", ""):
                return True
            scan.value()
            if scan.peek() != "}":
                scan.take(",")
        scan.take("}")
        return bool(scan.peek())
    except Damage as damage:
        return damage.reason == NOT_JSON  # which spoils a line, and all of a tree


def _head(path: Path) -> Iterator[bytes]:
    left = HEAD_BYTES
    for block in content(path):
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return


class _Scan:
    """JSON text that comes in blocks, read value by value. Raises Damage where it is cut short, or no JSON."""

    def __init__(self, blocks: Iterable[bytes]):
        self._blocks = iter(blocks)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")  # `document` names what is no UTF-8
        self._text = ""
        self._at = 0
        self.offset = 0  # the byte at which the next character stands
        self._damage = ""  # that keeps the rest away

    def peek(self) -> str:
        """The next character that is not white space; nothing at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match
            self._pass(match.end())
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                if self._damage:
                    raise Damage(self._damage, self.offset)
                return ""

    def take(self, expected: str) -> None:
        """Pass the one character that must come next."""
        found = self.peek()
        if found != expected:
            raise Damage(NOT_JSON if found else CUT, self.offset)
        self._pass(self._at + 1)

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                known = error.pos < len(self._text) - _UNFINISHED and not error.msg.startswith("Unterminated string")
                if known or not self._more():
                    raise Damage(NOT_JSON if known else self._damage or CUT, self.offset) from None
            except (ValueError, RecursionError):
                raise Damage(NOT_JSON, self.offset) from None
            else:
                if end < len(self._text) or not self._more():  # a number may go on
                    self._pass(end)
                    return value

    def _pass(self, end: int) -> None:
        self.offset += len(self._text[self._at : end].encode(errors="surrogateescape"))
        self._at = end

    def _more(self) -> bool:
        """Take in as much again as is unfinished, which keeps the cost of a long value linear; False at the end."""
        parts = [self._text[self._at :]]
        size = 0
        try:
            for block in self._blocks:
                parts.append(self._decoder.decode(block))
                size += len(block)
                if size > len(parts[0]):
                    break
            else:
                parts.append(self._decoder.decode(b"", final=True))
        except Damage as damage:  # what came in before is read first
            self._damage = damage.reason
        grown = sum(map(len, parts)) > len(parts[0])
        self._text, self._at = "".join(parts), 0
        return grown or size > 0
